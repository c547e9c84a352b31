"""How many prompts run together: on a CPU few that need an image of their own read, answered as many would be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from test_engine_transformers import PREFIX, QUESTION, close, image, one_thread
from tiny_models import shared_checkpoint

from depthlm_ros.engines.base import EngineError, Prompt, PromptImage
from depthlm_ros.engines.factory import CHECKPOINTS
from depthlm_ros.engines.transformers import CPU_IMAGES, TransformersEngine
from depthlm_ros.prompting import marker_paint

__all__ = ["one_thread"]

BASE = image(96, 160)
EMBEDDED = CHECKPOINTS / "embedded"
MARKED = [
    Prompt((PromptImage(BASE, marker_paint(20 + 12 * n, 40)),), QUESTION, prefix=PREFIX) for n in range(9)
]
UNMARKED = [Prompt((PromptImage(BASE),), f"{QUESTION} At {n}?", prefix=PREFIX) for n in range(9)]


@contextmanager
def engine_of(path: Path, **options: Any) -> Iterator[tuple[TransformersEngine, list[int]]]:
    """An engine, and how many images each call of its vision tower had."""
    images: list[int] = []

    def count(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        images.append(len(given["grid_thw"] if "grid_thw" in given else args[1]))

    with TransformersEngine(path, device="cpu", dtype="float32", **options) as engine:
        engine._model.model.visual.register_forward_pre_hook(count, with_kwargs=True)
        yield engine, images


@pytest.mark.parametrize("path", [EMBEDDED, "qwen2_5_vl"])
def test_a_cpu_reads_few_marked_images_at_a_time_and_says_what_it_says_of_many(path: Path | str) -> None:
    path = path if isinstance(path, Path) else shared_checkpoint(path)
    with engine_of(path, batch_size=16) as (engine, images):
        assert engine.images_at_once == CPU_IMAGES == 4
        few = engine.generate(MARKED, max_new_tokens=4)
        assert images == [4, 4, 1]
    with engine_of(path, batch_size=16, images_at_once=16) as (engine, images):
        many = engine.generate(MARKED, max_new_tokens=4)
        assert images == [9]
    assert all(close(a, b) for a, b in zip(few, many, strict=True))
    assert len({answer.tokens for answer in many}) > 1


def test_what_shares_its_image_is_not_divided_and_order_is_kept() -> None:
    mixed = [*UNMARKED, *MARKED[:5], Prompt((), "How far?"), *UNMARKED]
    with engine_of(EMBEDDED, batch_size=16) as (engine, images):
        sizes = [len(batch) for batch in engine._batches(mixed)]
        answers = engine.generate(mixed, max_new_tokens=4)
        alone = [engine.generate([prompt], max_new_tokens=4)[0] for prompt in mixed[8:16]]
    assert sizes == [13, 11]
    assert images[:3] == [4, 1, 1]
    assert all(close(a, b) for a, b in zip(answers[8:16], alone, strict=True))


def test_the_batch_is_the_most_in_any_case_and_marker_reuse_takes_it_whole() -> None:
    with engine_of(EMBEDDED, batch_size=3, images_at_once=8) as (engine, images):
        engine.generate(MARKED[:5], max_new_tokens=1)
        assert images == [3, 2]
    with TransformersEngine(
        EMBEDDED, device="cpu", dtype="float32", batch_size=16, marker_reuse=True
    ) as engine:
        assert [len(batch) for batch in engine._batches(MARKED)] == [9]
    with pytest.raises(EngineError, match="images_at_once: expected 1 or more, got 0"):
        TransformersEngine(EMBEDDED, images_at_once=0)


def test_where_nothing_is_shared_unmarked_images_are_read_few_at_a_time_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with engine_of(EMBEDDED, batch_size=16) as (engine, images):
        shared = engine.generate(UNMARKED[:6], max_new_tokens=4)
        monkeypatch.setattr(engine, "_heads", None)
        del images[:]
        whole = engine.generate(UNMARKED[:6], max_new_tokens=4)
        assert images == [4, 2]
    assert all(close(a, b) for a, b in zip(shared, whole, strict=True))
