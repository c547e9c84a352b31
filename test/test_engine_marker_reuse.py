"""Marker reuse: what it reads again, and that it is exact where nothing is left out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from test_engine_transformers import PREFIX, QUESTION, close, image
from tiny_models import shared_checkpoint

from depthlm_ros.config import EngineConfig
from depthlm_ros.engines import hf_reuse, hf_tower
from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt, PromptImage
from depthlm_ros.engines.factory import CHECKPOINTS, create_engine
from depthlm_ros.engines.hf_reuse import MarkerReuse
from depthlm_ros.engines.transformers import TransformersEngine
from depthlm_ros.prompting import marker_paint

EVERYTHING = 1000
SLIDING = {
    "use_sliding_window": True,
    "sliding_window": 64,
    "layer_types": ["sliding_attention", "full_attention"],
}
SIZES = {"tiny": (170, 230), "embedded": (96, 160)}  # the tiny model's windows are cut at two borders


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["tiny", "embedded"])
def engine(request: pytest.FixtureRequest) -> Iterator[TransformersEngine]:
    path: Path = shared_checkpoint("qwen2_5_vl") if request.param == "tiny" else CHECKPOINTS / "embedded"
    with TransformersEngine(path, device="cpu", dtype="float32", batch_size=8, marker_reuse=True) as it:
        it.size = SIZES[request.param]  # type: ignore[attr-defined]
        yield it


def marked(base: np.ndarray, x: int, y: int) -> Prompt:
    return Prompt((PromptImage(base, marker_paint(x, y)),), QUESTION, prefix=PREFIX)


def some_prompts(base: np.ndarray) -> list[Prompt]:
    height, width = base.shape[:2]
    corners = [(5, 5), (width - 6, 5), (5, height - 6), (width - 6, height - 6)]
    return [marked(base, x, y) for x, y in [*corners, (width // 2, height // 2), (40, 31)]]


def exactly(engine: TransformersEngine, prompts: list[Prompt]) -> list[Answer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_reuse", None)
        return engine.generate(prompts, max_new_tokens=5)


def use_radius(engine: TransformersEngine, patch: pytest.MonkeyPatch, radius: int) -> MarkerReuse:
    reuse = MarkerReuse(engine._model, engine._encoder, radius=radius)
    patch.setattr(engine, "_reuse", reuse)
    return reuse


def test_the_frames_features_are_those_of_the_models_own_tower(engine: TransformersEngine) -> None:
    prompt = replace(marked(image(*engine.size), 40, 31), images=(PromptImage(image(*engine.size)),))
    inputs = engine._encoder.batch([engine._encoder.encode(prompt)])
    visual = engine._model.model.visual
    _, rows, columns = (inputs["image_grid_thw"][0] // visual.spatial_merge_size).tolist()
    with torch.inference_mode():
        own = visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        tower = hf_tower.FrameTower(visual, inputs["pixel_values"], rows, columns)
    torch.testing.assert_close(tower.features, own, atol=1e-4, rtol=1e-4)


def test_with_every_token_read_again_it_is_exact(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = some_prompts(image(*engine.size))
    expected = exactly(engine, prompts)
    use_radius(engine, monkeypatch, EVERYTHING)
    answers = engine.generate(prompts, max_new_tokens=5)
    assert all(close(a, b, 5e-4) for a, b in zip(answers, expected, strict=True))
    assert len({tuple(t.logprob for t in answer.tokens) for answer in answers}) == len(prompts)


def test_only_tokens_near_the_marker_are_read_again(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = image(*engine.size)
    reuse = use_radius(engine, monkeypatch, 1)
    read: list[torch.Tensor] = []
    again = hf_tower.FrameTower.again

    def noted(self: hf_tower.FrameTower, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        read.append(tokens)
        return again(self, pixels, tokens)

    monkeypatch.setattr(hf_tower.FrameTower, "again", noted)
    prompts = some_prompts(base)
    engine.generate(prompts, max_new_tokens=2)
    (tokens,) = read
    tower, side = reuse._frame.tower, reuse._side()
    for prompt, near in zip(prompts, tokens.tolist(), strict=True):
        encoded = engine._encoder.encode(prompt)
        differs = (encoded.images[0] != encoded.repaint.base).any(dim=0)
        changed = {(y // side) * tower.columns + x // side for y, x in differs.nonzero().tolist()}
        around = {
            (row + down) * tower.columns + column + right
            for row, column in (divmod(token, tower.columns) for token in changed)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if 0 <= row + down < tower.rows and 0 <= column + right < tower.columns
        }
        assert changed
        assert around <= set(near)
        assert len(near) == len(set(near)) <= 16 < tower.rows * tower.columns


def test_a_frame_is_read_once_also_over_calls_and_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = []
    real = hf_tower.FrameTower

    def counted(*args: object) -> hf_tower.FrameTower:
        frames.append(1)
        return real(*args)

    monkeypatch.setattr(hf_tower, "FrameTower", counted)
    path = shared_checkpoint("qwen2_5_vl")
    first, second = image(90, 130), image(90, 130, 1)
    with TransformersEngine(path, device="cpu", dtype="float32", batch_size=2, marker_reuse=True) as engine:
        engine.generate(some_prompts(first), max_new_tokens=2)
        engine.generate(some_prompts(first), max_new_tokens=2)
        assert len(frames) == 1
        engine.generate(some_prompts(second), max_new_tokens=2)
        assert len(frames) == 2
        assert engine._reuse._frame.base is engine._encoder.encode(some_prompts(second)[0]).repaint.base
    assert engine._reuse is None


def test_what_is_not_one_marked_image_is_answered_exactly(engine: TransformersEngine) -> None:
    base, other = image(*engine.size), image(*engine.size, 1)
    prompts = [
        Prompt((PromptImage(base),), QUESTION, prefix=PREFIX),
        Prompt((PromptImage(base, marker_paint(40, 31)), PromptImage(other)), QUESTION),
        Prompt((), "How far?"),
    ]
    expected = exactly(engine, prompts)
    mixed = engine.generate([marked(base, 40, 31), *prompts, marked(other, 40, 31)], max_new_tokens=5)
    assert all(close(a, b) for a, b in zip(mixed[1:4], expected, strict=True))
    assert close(mixed[0], engine.generate([marked(base, 40, 31)], max_new_tokens=5)[0])
    assert close(mixed[4], engine.generate([marked(other, 40, 31)], max_new_tokens=5)[0])


def test_the_image_may_stand_behind_the_question(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [replace(prompt, image_first=False) for prompt in some_prompts(image(*engine.size))]
    expected = exactly(engine, prompts)
    use_radius(engine, monkeypatch, EVERYTHING)
    answers = engine.generate(prompts, max_new_tokens=5)
    assert all(close(a, b, 5e-4) for a, b in zip(answers, expected, strict=True))


def test_the_deadline_holds(engine: TransformersEngine) -> None:
    prompts = some_prompts(image(*engine.size))
    answers = engine.generate(prompts, max_new_tokens=4, deadline=time.monotonic() - 1)
    assert {answer.finish for answer in answers} == {Finish.DEADLINE}


@pytest.mark.parametrize(
    ("family", "changes", "attention", "got"),
    [
        ("qwen3_vl", {}, "sdpa", "got qwen3_vl with sdpa;"),
        ("pixtral", {}, "sdpa", "got llava with sdpa;"),
        ("qwen2_5_vl", {}, "flash_attention_2", "got qwen2_5_vl with flash_attention_2;"),
        ("qwen2_5_vl", SLIDING, "sdpa", "got qwen2_5_vl with sdpa, which slides in some layers;"),
    ],
)
def test_what_cannot_do_it_is_refused_before_a_weight_is_read(
    tmp_path: Path, family: str, changes: dict[str, Any], attention: str, got: str
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(shared_checkpoint(family), checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"] |= changes
    (checkpoint / "config.json").write_text(json.dumps(config))
    (weights,) = checkpoint.glob("*.safetensors")
    weights.write_bytes(b"unreadable: whoever loads this fails in another way")
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32", "attention": attention}
    with (
        pytest.raises(EngineError, match=f"engine.marker_reuse: expected a qwen2_5_vl .*{got}"),
        TransformersEngine(checkpoint, marker_reuse=True, **options),
    ):
        pass
    with pytest.raises(EngineError, match="cannot be loaded"), TransformersEngine(checkpoint, **options):
        pass


def test_it_is_off_unless_configured() -> None:
    assert EngineConfig().marker_reuse is False
    engine = create_engine(EngineConfig())
    assert isinstance(engine, TransformersEngine)
    assert not engine._marker_reuse
    assert create_engine(EngineConfig(marker_reuse=True))._marker_reuse  # type: ignore[attr-defined]


def test_windows_are_of_one_size_and_pushed_inwards_at_borders() -> None:
    touched = [slice(0, 6), slice(30, 40), slice(93, 99)]
    assert hf_reuse._spans(touched, 10, 10, 1) == ([0, 2, 7], 3)
    assert hf_reuse._spans([slice(5, 15), slice(40, 50)], 10, 10, 0) == ([0, 4], 2)
    assert hf_reuse._spans([slice(5, 15)], 10, 3, EVERYTHING) == ([0], 3)
