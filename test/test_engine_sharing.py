"""Prompts with an untouched image go on from what they have in common, and answer as if each were run whole."""

from __future__ import annotations

import gc
import types
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from test_engine_transformers import PREFIX, close, full_passes, image, one_thread, prompts_of_two_frames
from tiny_models import FAMILIES, shared_checkpoint

from depthlm_ros.engines import hf_packed
from depthlm_ros.engines.base import Answer, Finish, Prompt, PromptImage
from depthlm_ros.engines.factory import CHECKPOINTS
from depthlm_ros.engines.hf_batch import BatchCall
from depthlm_ros.engines.hf_heads import heads_for
from depthlm_ros.engines.transformers import TransformersEngine
from depthlm_ros.profile import TEXT_QUESTION, VLM3_QUESTION

__all__ = ["one_thread"]
PIXELS = [(3, 5), (1999, 0), (47, 1100), (800, 801), (0, 12), (640, 77)]


def checkpoint(name: str) -> Path:
    return CHECKPOINTS / name if name == "embedded" else shared_checkpoint(name)


@pytest.fixture(scope="module", params=["embedded", *FAMILIES])
def engine(request: pytest.FixtureRequest) -> Iterator[TransformersEngine]:
    with TransformersEngine(checkpoint(request.param), device="cpu", dtype="float32", batch_size=8) as it:
        yield it


@pytest.fixture
def encoded_images(engine: TransformersEngine) -> Iterator[list[int]]:
    """Grows by one number for each time that the vision tower runs."""
    runs: list[int] = []
    inner = engine._model.model
    tower = inner.visual if hasattr(inner, "visual") else inner.vision_tower
    hook = tower.register_forward_hook(lambda *_: runs.append(1))
    yield runs
    hook.remove()


def text_prompts(base: np.ndarray, question: str = TEXT_QUESTION) -> list[Prompt]:
    return [
        Prompt((PromptImage(base),), question.format(x=x, y=y), system="You are helpful.", prefix=PREFIX)
        for x, y in PIXELS
    ]


def unshared(engine: TransformersEngine, prompts: list[Prompt], tokens: int) -> list[Answer]:
    call = BatchCall(engine._model, engine._encoder, tokens, (), lambda: False)
    return [call.run([prompt])[0] for prompt in prompts]


@pytest.mark.parametrize("question", [TEXT_QUESTION, VLM3_QUESTION], ids=["last", "first"])
def test_shared_answers_are_the_unshared_ones(
    engine: TransformersEngine, encoded_images: list[int], question: str
) -> None:
    prompts = text_prompts(image(90, 130), question)
    lengths = {len(engine._encoder.encode(prompt).ids) for prompt in prompts}
    assert len(lengths) > 1  # of different lengths, else this shows little
    answers = engine.generate(prompts, max_new_tokens=6)
    assert len(encoded_images) == 1
    expected = unshared(engine, prompts, 6)
    assert all(len(answer.tokens) > 0 for answer in answers)
    assert all(close(a, b) for a, b in zip(answers, expected, strict=True))


def test_shared_answers_are_those_of_full_forward_passes(engine: TransformersEngine) -> None:
    if engine._checkpoint.name == "embedded":
        pytest.skip("the reference reads the tiny models' tokens")
    prompts = text_prompts(image(90, 130))
    for prompt, answer in zip(prompts, engine.generate(prompts, max_new_tokens=5), strict=True):
        chosen, logprobs = full_passes(engine, prompt, len(answer.tokens))
        assert answer.text == engine._encoder.tokenizer.decode(chosen, skip_special_tokens=True)
        assert [t.logprob for t in answer.tokens] == pytest.approx(logprobs, abs=2e-4)


def test_a_frame_is_encoded_once_over_calls_and_the_newest_two_are_kept(
    engine: TransformersEngine, encoded_images: list[int]
) -> None:
    first, second, third = image(90, 130), image(90, 130, 1), image(60, 100, 2)
    for base in (first, second, first, second):
        engine.generate(text_prompts(base)[:2], max_new_tokens=2)
        assert len(engine._heads._kept) <= 2
    assert len(encoded_images) == 2
    for base in (third, second, third):
        engine.generate(text_prompts(base)[:2], max_new_tokens=2)
    assert len(encoded_images) == 3
    engine.generate(text_prompts(first.copy())[:2], max_new_tokens=2)
    assert len(encoded_images) == 4  # equal pixels are not the same frame


def test_what_was_kept_serves_other_questions_and_stays_as_it_was(
    engine: TransformersEngine, encoded_images: list[int]
) -> None:
    base = image(90, 130)
    prompts = text_prompts(base)
    # A single prompt keeps all of itself but the last token; those that differ sooner use less of it.
    engine.generate(prompts[:1], max_new_tokens=3)
    before = [[part.clone() for part in layer] for layer in engine._heads._kept[0].layers]
    others = [*prompts, Prompt((PromptImage(base),), "How far?", system="You are helpful.")]
    answers = engine.generate(others, max_new_tokens=4)
    assert len(encoded_images) == 1
    after = engine._heads._kept[0].layers
    assert all(
        torch.equal(a, b) for x, y in zip(before, after, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert all(close(a, b) for a, b in zip(answers, unshared(engine, others, 4), strict=True))


def test_prompts_of_all_kinds_in_one_batch(engine: TransformersEngine) -> None:
    wide, small = image(90, 130), image(60, 100, 1)
    other = replace(text_prompts(wide)[0], system="Be brief.")
    prompts = [
        *text_prompts(wide)[:2],
        prompts_of_two_frames()[0],
        *text_prompts(small)[:2],
        other,
        replace(other, image_first=False),
        replace(other, images=(PromptImage(wide), PromptImage(small))),
        replace(other, images=()),
        replace(other, images=(PromptImage(small), PromptImage(wide))),
        text_prompts(wide)[0],
    ]
    answers = engine.generate(prompts, max_new_tokens=4)
    assert all(close(a, b) for a, b in zip(answers, unshared(engine, prompts, 4), strict=True))


def test_a_stop_string_ends_its_continuation_only(engine: TransformersEngine) -> None:
    prompts = text_prompts(image(90, 130))
    free = engine.generate(prompts, max_new_tokens=6)
    piece = next(t.text for t in free[0].tokens if t.text.strip())
    for before, after in zip(free, engine.generate(prompts, max_new_tokens=6, stop=[piece]), strict=True):
        assert before.text.startswith(after.text)
        assert (after.finish is Finish.STOP) == (piece in before.text or before.finish is Finish.STOP)


def test_long_continuations_are_run_in_parts(
    engine: TransformersEngine, encoded_images: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = text_prompts(image(90, 130))
    expected = engine.generate(prompts, max_new_tokens=4)
    monkeypatch.setattr(hf_packed, "PACKED_TOKENS", 60)
    ids = [engine._encoder.encode(prompt).ids for prompt in prompts]
    assert 1 < len(list(hf_packed.packs(ids))) < len(prompts)
    answers = engine.generate(prompts, max_new_tokens=4)
    assert all(close(a, b) for a, b in zip(answers, expected, strict=True))
    assert len(encoded_images) == 1


def test_parts_hold_every_prompt_once_and_no_more_tokens_than_allowed() -> None:
    rng = np.random.default_rng(0)
    prompts = [[1, 2, 3, *rng.integers(10, 99, n).tolist()] for n in rng.integers(1, 700, 40)]
    parts = list(hf_packed.packs(prompts))
    assert [row for part in parts for row in part] == list(range(40))
    for part in parts:
        assert len(part) == 1 or sum(len(prompts[row]) - 3 for row in part) <= hf_packed.PACKED_TOKENS
    assert list(hf_packed.packs([])) == []
    assert list(hf_packed.packs([[7, 7]] * 3)) == [[0, 1, 2]]


def test_the_deadline_is_looked_at_between_parts(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_packed, "PACKED_TOKENS", 1)
    looks = iter(range(1000))
    clock = types.SimpleNamespace(monotonic=lambda: next(looks))
    monkeypatch.setattr("depthlm_ros.engines.transformers.time", clock)
    # Looks at 0 (before the batch), 1 (after the only token of the first part) and 2 (before the second part).
    answers = engine.generate(text_prompts(image(90, 130)), max_new_tokens=1, deadline=1)
    assert [answer.finish for answer in answers] == [Finish.LENGTH] + [Finish.DEADLINE] * 5


def test_a_part_that_does_not_fit_is_tried_as_halves(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = text_prompts(image(90, 130))
    expected = engine.generate(prompts, max_new_tokens=3)
    sizes: list[int] = []
    real = hf_packed.decode_packed

    def decode(model: object, head: object, members: list[list[int]], watch: object) -> None:
        sizes.append(len(members))
        if len(members) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(model, head, members, watch)

    monkeypatch.setattr("depthlm_ros.engines.hf_batch.decode_packed", decode)
    answers = engine.generate(prompts, max_new_tokens=3)
    assert sizes == [6, 3, 3]
    assert all(close(a, b) for a, b in zip(answers, expected, strict=True))


def test_leaving_the_engine_frees_what_was_kept() -> None:
    with TransformersEngine(shared_checkpoint("qwen2_5_vl"), device="cpu", dtype="float32") as engine:
        engine.generate(text_prompts(image(90, 130)), max_new_tokens=2)
        kept = weakref.ref(engine._heads._kept[0].layers[0][0])
        assert kept() is not None
    gc.collect()
    assert engine._heads is None
    assert kept() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_attn_implementation", "flash_attention_2"),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("sliding_window", 4096),
    ],
)
def test_attention_that_takes_no_such_mask_runs_every_prompt_whole(name: str, value: object) -> None:
    with TransformersEngine(shared_checkpoint("pixtral"), device="cpu", dtype="float32") as engine:
        assert heads_for(engine._model, engine._encoder) is not None
        assert heads_for(engine._model, types.SimpleNamespace()) is None
        text = engine._model.config.get_text_config()
        stand_in = types.SimpleNamespace(**{"_attn_implementation": "sdpa"} | text.to_dict() | {name: value})
        config = types.SimpleNamespace(get_text_config=lambda: stand_in)
        assert heads_for(types.SimpleNamespace(config=config), engine._encoder) is None
