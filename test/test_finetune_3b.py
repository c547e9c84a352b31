"""Qwen2.5-VL 3B without its weights: the shape on the meta device, the adapters, and one real batch."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import shared_checkpoint
from tokenizers import Tokenizer
from toy_labels import write_toy_set

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

from depthlm_ros.engines.hf_processor import load_encoder  # noqa: E402
from depthlm_ros.evaluation.benchmark import read_benchmark  # noqa: E402
from depthlm_ros.profile import BUILT_IN_PROFILES  # noqa: E402
from depthlm_ros.training.finetune.config import AugmentConfig, load_recipe  # noqa: E402
from depthlm_ros.training.finetune.model import is_vision, prepare_model  # noqa: E402
from depthlm_ros.training.finetune.tokens import IGNORED, AnswerTokens  # noqa: E402
from depthlm_ros.training.finetune.views import make_sample  # noqa: E402

CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
    "Given this image, how far is the point pointed by the red arrow from the camera? Output the thinking process in "
    "<think> </think> and final answer (the meter number only, without the unit) in <answer> </answer> tags."
    "<|im_end|>\n<|im_start|>assistant\n"
)
ANSWER = (
    "<think> The point is around {0:.2f} meters away from the camera. </think>\n\n<answer> {0:.2f} </answer>"
)
CONFIG = Path(__file__).parents[1] / "config"
SHAPE = json.loads((Path(__file__).parent / "data" / "qwen2_5_vl_3b.json").read_text(encoding="utf-8"))


@pytest.fixture
def model():
    config = transformers.Qwen2_5_VLConfig(
        text_config=dict(SHAPE["text"]),
        vision_config=dict(SHAPE["vision"]),
        tie_word_embeddings=SHAPE["tie_word_embeddings"],
    )
    with torch.device("meta"):
        built = transformers.AutoModelForImageTextToText.from_config(config)
    built.tie_weights()
    return built


def linear_layers(text, vision):
    """(inputs, outputs, has a bias, how many) of each linear layer that is not the output layer."""
    head = text["hidden_size"] // text["num_attention_heads"]
    key = text["num_key_value_heads"] * head
    wide, hidden, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    language = [
        (wide, wide, True, layers),
        (wide, key, True, 2 * layers),
        (wide, wide, False, layers),
        (wide, hidden, False, 2 * layers),
        (hidden, wide, False, layers),
    ]
    side, inner, blocks = vision["hidden_size"], vision["intermediate_size"], vision["depth"]
    merged = side * vision["spatial_merge_size"] ** 2
    tower = [
        (side, 3 * side, True, blocks),
        (side, side, True, blocks),
        (side, inner, True, 2 * blocks),
        (inner, side, True, blocks),
        (merged, merged, True, 1),
        (merged, vision["out_hidden_size"], True, 1),
    ]
    return language, tower


def all_parameters(text, vision):
    language, tower = linear_layers(text, vision)
    linear = sum(count * (i * o + bias * o) for i, o, bias, count in language + tower)
    patch = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2 * vision["hidden_size"]
    norms = (2 * text["num_hidden_layers"] + 1) * text["hidden_size"]
    norms += (2 * vision["depth"] + 1) * vision["hidden_size"]
    return linear + patch + norms + text["vocab_size"] * text["hidden_size"]


def test_the_shape_has_as_many_parameters_as_the_published_one(model):
    counted = sum(p.numel() for p in model.parameters())
    assert counted == all_parameters(SHAPE["text"], SHAPE["vision"])
    # The weights of Qwen2.5-VL-3B-Instruct are 7,509,245,952 bytes of bfloat16; public code that loads them counts
    # 3,754,622,976 parameters, 668,684,288 of them in the tower (n_parameters of models made from it in mteb).
    assert counted == 7_509_245_952 // 2 == 3_754_622_976
    assert sum(p.numel() for name, p in model.named_parameters() if is_vision(name)) == 668_684_288


def test_adapters_are_on_every_linear_layer_that_moves(model):
    recipe = load_recipe(CONFIG / "train_sft_3b_lora.yaml")
    language, tower = linear_layers(SHAPE["text"], SHAPE["vision"])
    wanted = language if recipe.model.freeze_vision else language + tower
    tuned = prepare_model(model, recipe.model)
    moving = {name: p.numel() for name, p in tuned.named_parameters() if p.requires_grad}
    rank = recipe.model.lora_rank
    assert sum(moving.values()) == sum(rank * (i + o) * count for i, o, _, count in wanted)
    assert all("lora_" in name for name in moving)
    assert any(is_vision(name) for name in moving) != recipe.model.freeze_vision


def test_full_tuning_moves_everything_or_all_but_the_tower(model):
    recipe = load_recipe(CONFIG / "train_sft_3b.yaml", ["model.freeze_vision=true"])
    language, _ = linear_layers(SHAPE["text"], SHAPE["vision"])
    tuned = prepare_model(model, recipe.model)
    text = SHAPE["text"]
    linear = sum(count * (i * o + bias * o) for i, o, bias, count in language)
    rest = (2 * text["num_hidden_layers"] + 1 + text["vocab_size"]) * text["hidden_size"]
    assert sum(p.numel() for p in tuned.parameters() if p.requires_grad) == linear + rest


def test_a_batch_at_the_canonical_focal_length_has_the_tokens_that_its_size_says(tmp_path):
    """A 640x480 image of a 525 px camera: 1219x914 at 1000 px, 44x33 tokens of 28 px."""
    # Its processor has the published sizes and limits, its tokenizer is small: what is counted of the text is that
    # the batch holds the chat and the answer and no more, not how many tokens the published tokenizer makes of them.
    checkpoint = shared_checkpoint("qwen2_5_vl")
    record = json.loads((checkpoint / "config.json").read_text())
    encoder = load_encoder(checkpoint, record, device=torch.device("cpu"), max_image_pixels=None)
    entry = write_toy_set(tmp_path, "room", 2, 1, size=(640, 480), focal_px=525.0)
    images = read_benchmark(Path(entry["labels"]), tmp_path)
    whole = AugmentConfig(crop_width_px=(0, 0), crop_height_px=(0, 0))
    tokens = AnswerTokens(encoder, BUILT_IN_PROFILES["depthlm-3b"])
    rng = np.random.default_rng(0)
    samples = [make_sample(image, 0, BUILT_IN_PROFILES["depthlm-3b"], whole, rng) for image in images]
    assert samples[0].prompt.images[0].base.shape == (914, 1219, 3)
    batch = tokens.collate([tokens.encode(sample) for sample in samples])
    pad = encoder.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (batch["input_ids"] == pad).sum(dim=1).tolist() == [44 * 33, 44 * 33]
    assert batch["image_grid_thw"].tolist() == [[1, 66, 88], [1, 66, 88]]
    assert tuple(batch["pixel_values"].shape) == (2 * 66 * 88, 3 * 2 * 14 * 14)
    # Prompt and answer as the published chat template and the paper write them, counted by the tokenizer alone.
    counter = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    words = len(counter.encode(CHAT, add_special_tokens=False))
    answers = [
        len(counter.encode(ANSWER.format(image.depth[0]), add_special_tokens=False)) for image in images
    ]
    learnt = (batch["labels"] != IGNORED).sum(dim=1)
    assert learnt.tolist() == [count + 1 for count in answers]  # and the end of the turn
    # One of the chat's tokens is the place of the image.
    text = (batch["attention_mask"].sum(dim=1) - 44 * 33 - learnt).tolist()
    assert text == [words - 1, words - 1]


@pytest.mark.parametrize("name", ["train_sft_3b", "train_sft_3b_lora"])
def test_the_crop_of_the_recipes_bounds_the_tokens_of_their_batch(tmp_path, name):
    """That of the official script, at most 1400x1200 px: 50x43 tokens of 28 px."""
    augment = load_recipe(CONFIG / f"{name}.yaml").augment
    checkpoint = shared_checkpoint("qwen2_5_vl")
    record = json.loads((checkpoint / "config.json").read_text())
    encoder = load_encoder(checkpoint, record, device=torch.device("cpu"), max_image_pixels=None)
    entry = write_toy_set(tmp_path, "hall", 1, 1, size=(800, 600), focal_px=400.0)
    (image,) = read_benchmark(Path(entry["labels"]), tmp_path)
    image = replace(image, pixels=np.array([[400, 300]]))  # every crop in the middle holds it
    profile = BUILT_IN_PROFILES["depthlm-3b"]
    samples = [make_sample(image, 0, profile, augment, np.random.default_rng(seed)) for seed in range(4)]
    for height, width in (sample.prompt.images[0].base.shape[:2] for sample in samples):
        assert 700 <= height <= 1200
        assert 1000 <= width <= 1400
    tokens = AnswerTokens(encoder, profile)
    batch = tokens.collate([tokens.encode(sample) for sample in samples])
    squares = [int(grid.prod()) // 4 for grid in batch["image_grid_thw"]]
    assert all(36 * 25 <= count <= 50 * 43 for count in squares)
    pad = encoder.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (batch["input_ids"] == pad).sum(dim=1).tolist() == squares
