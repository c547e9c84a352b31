"""What ``depthlm bench`` says of a shape: its weights, its proportions, its operations and a GPU's peak."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from depthlm_ros.bench.shapes import SHAPES, config_of
from depthlm_ros.bench.theory import query_flops, rated_tflops

IDS = {
    token: 100 + i
    for i, token in enumerate(
        [
            "<|endoftext|>",
            "<|im_end|>",
            "<|image_pad|>",
            "<|video_pad|>",
            "<|vision_start|>",
            "<|vision_end|>",
        ]
    )
}


def test_the_true_shape_has_the_published_number_of_weights():
    from transformers import Qwen2_5_VLForConditionalGeneration

    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config_of(SHAPES["3b"], IDS))
    # model.safetensors.index.json of Qwen/Qwen2.5-VL-3B-Instruct: 7509245952 bytes of bfloat16.
    assert sum(p.numel() for p in model.parameters()) * 2 == 7509245952


def test_small_is_the_true_shape_in_proportion():
    def shares(name, grid, prompt):
        flops = query_flops(SHAPES[name], grid, prompt)
        return flops.vision / flops.prefill_in_all

    # 1280x720 with 70 degrees: 1400x784 px at 1000 px of focal length, 700x392 at 500.
    assert shares("small", (28, 50), 88 + 350) == pytest.approx(shares("3b", (56, 100), 88 + 1400), rel=0.15)


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_counted_operations_are_those_that_torch_counts(name):
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Qwen2_5_VLForConditionalGeneration

    shape, grid = SHAPES[name], (12, 18)
    tokens = grid[0] * grid[1] // 4
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration._from_config(
            config_of(shape, IDS), attn_implementation="eager"
        )
    inner = model.model
    patches = torch.zeros(grid[0] * grid[1], 3 * 2 * 14 * 14)
    cpu = model.to_empty(device="cpu")
    with FlopCounterMode(display=False) as seen, torch.no_grad():
        inner.visual(patches, grid_thw=torch.tensor([[1, *grid]]))
    with FlopCounterMode(display=False) as read, torch.no_grad():
        inner.language_model(inputs_embeds=torch.zeros(1, tokens, shape.text.hidden))
        cpu.lm_head(torch.zeros(1, 1, shape.text.hidden))
    flops = query_flops(shape, grid, tokens)
    assert flops.vision == pytest.approx(seen.get_total_flops(), rel=1e-9)
    # Plain attention computes the upper triangle too, which causal attention does not need.
    triangle = 2.0 * shape.text.hidden * shape.text.layers * tokens * (tokens - 1)
    assert flops.prefill + triangle == pytest.approx(read.get_total_flops(), rel=1e-9)


@pytest.mark.parametrize(
    ("device", "dtype", "rate"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.0),
        ("NVIDIA H100 PCIe", "bfloat16", 756.0),
        ("NVIDIA L40S", "bfloat16", 362.0),
        ("NVIDIA L4", "float16", 121.0),
        ("NVIDIA H100 PCIe", "float32", None),
        ("Some Other GPU", "bfloat16", None),
    ],
)
def test_the_peak_of_a_known_gpu_is_its_data_sheet_s(device, dtype, rate):
    assert rated_tflops(device, dtype) == rate
