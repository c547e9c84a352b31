"""Attention by segments is that of the checkpoint's own way, called a few times instead of once for each window."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from test_engine_transformers import close, marked_prompts, one_thread, prompts_of_two_frames
from tiny_models import FAMILIES, shared_checkpoint

from depthlm_ros.engines import hf_segments
from depthlm_ros.engines.factory import CHECKPOINTS
from depthlm_ros.engines.hf_segments import attend_by_segments, attend_in_segments
from depthlm_ros.engines.transformers import TransformersEngine

__all__ = ["one_thread"]


@pytest.mark.parametrize("lengths", [[5], [4, 4, 4], [3, 7, 3, 1, 7, 7], [2, 0, 3]])
@pytest.mark.parametrize("scaling", [None, 0.37])
def test_each_patch_attends_to_its_own_segment(lengths: list[int], scaling: float | None) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, sum(lengths), 8)
    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    out, weights = attend_in_segments(None, query, key, value, None, cu_seq_lens_q=bounds, scaling=scaling)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    scores = query[0] @ key[0].transpose(1, 2) * (scaling or 8**-0.5)
    scores = scores.masked_fill(owner[:, None] != owner[None, :], -torch.inf)
    expected = (scores.softmax(-1) @ value[0]).transpose(0, 1)
    assert weights is None
    torch.testing.assert_close(out[0], expected)


@pytest.mark.parametrize("name", ["embedded", *FAMILIES])
def test_answers_are_those_of_the_own_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = CHECKPOINTS / name if name == "embedded" else shared_checkpoint(name)
    prompts = [*prompts_of_two_frames(), *marked_prompts()]
    answers, kernels = [], []
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def count(*args: Any, **options: Any) -> torch.Tensor:
        kernels[-1] += 1
        return sdpa(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", count)
    for way in (attend_by_segments, lambda model: False):
        monkeypatch.setattr("depthlm_ros.engines.transformers.attend_by_segments", way)
        with TransformersEngine(
            path, device="cpu", dtype="float32", batch_size=16, images_at_once=16
        ) as engine:
            inner = engine._model.model
            tower = inner.visual if hasattr(inner, "visual") else inner.vision_tower
            segments = tower.config._attn_implementation == hf_segments.ATTENTION
            assert segments == (way is attend_by_segments)
            kernels.append(0)
            answers.append(engine.generate(prompts, max_new_tokens=4))
    assert all(close(a, b) for a, b in zip(*answers, strict=True))
    if name == "qwen2_5_vl":
        assert kernels[0] < kernels[1] / 2


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_only_towers_that_run_sdpa_and_are_told_their_segments(attention: str) -> None:
    path = shared_checkpoint("pixtral")
    with TransformersEngine(path, device="cpu", dtype="float32", attention=attention) as engine:
        used = engine._model.model.vision_tower.config._attn_implementation
        assert used == (hf_segments.ATTENTION if attention == "sdpa" else "eager")
        assert engine._model.config.get_text_config()._attn_implementation == attention
    config = types.SimpleNamespace(_attn_implementation="sdpa")
    stranger = types.SimpleNamespace(visual=type("Tower", (), {"config": config, "__module__": "json"})())
    assert not attend_by_segments(types.SimpleNamespace(model=stranger))
    assert not attend_by_segments(types.SimpleNamespace(model=types.SimpleNamespace()))


@pytest.mark.parametrize("name", ["embedded", *FAMILIES])
def test_segments_are_read_from_the_device_once_however_many_layers_there_are(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = CHECKPOINTS / name if name == "embedded" else shared_checkpoint(name)
    read: list[int] = []
    tolist = torch.Tensor.tolist

    def count(tensor: torch.Tensor) -> Any:
        read.append(1)
        return tolist(tensor)

    with TransformersEngine(path, device="cpu", dtype="float32", batch_size=16) as engine:
        inner = engine._model.model
        tower = inner.visual if hasattr(inner, "visual") else inner.vision_tower
        layers = tower.blocks if hasattr(tower, "blocks") else tower.transformer.layers
        assert tower.config._attn_implementation == hf_segments.ATTENTION
        inputs = engine._encoder.batch([engine._encoder.encode(marked_prompts()[0])])
        sizes = {key: inputs[key] for key in ("image_sizes",) if key in inputs}
        grids = {"grid_thw": inputs["image_grid_thw"]} if "image_grid_thw" in inputs else {}
        counts = []
        for _ in range(2):
            layers.extend(
                [*layers]
            )  # Qwen2.5-VL's by number: those added have windows, also where no other has
            read.clear()
            with monkeypatch.context() as patch, torch.inference_mode():
                patch.setattr(torch.Tensor, "tolist", count)
                tower(inputs["pixel_values"], **sizes, **grids)
            counts.append(len(read))
    assert counts[1] == counts[0] > 0


def test_what_is_kept_of_segments_goes_with_them() -> None:
    before = len(hf_segments._kept())
    bounds = torch.tensor([0, 3, 8])
    first, again = hf_segments._by_length(bounds), hf_segments._by_length(bounds)
    assert first is again
    assert [(length, patches.tolist()) for length, patches in first] == [(3, [0, 1, 2]), (5, [3, 4, 5, 6, 7])]
    assert len(hf_segments._kept()) == before + 1
    del bounds
    assert len(hf_segments._kept()) == before
