"""What the transformers engine answers, held against independent forward passes of the same tiny models."""

from __future__ import annotations

import builtins
import logging
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from test_engine_inputs import why_no_processor
from tiny_models import FAMILIES, make_tiny_checkpoint, shared_checkpoint

from depthlm_ros.engines import hf_decoding
from depthlm_ros.engines.base import Answer, EngineError, Finish, Paint, Prompt, PromptImage
from depthlm_ros.engines.hf_chat import chat_template
from depthlm_ros.engines.hf_processor import ProcessorEncoder
from depthlm_ros.engines.transformers import TransformersEngine

QUESTION = "How far is the point pointed by the red arrow from the camera?"
PREFIX = "<think> The point is around"
RED = (255, 0, 0)


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def marked(base: np.ndarray, x: int, y: int) -> PromptImage:
    return PromptImage(base, Paint(tuple((x + dx, y + dy) for dx in range(-9, 0) for dy in range(5)), RED))


def prompts_of_two_frames() -> list[Prompt]:
    wide, small = image(90, 130), image(60, 100, 1)
    return [
        Prompt((marked(wide, 40, 20),), QUESTION, prefix=PREFIX),
        Prompt((marked(small, 40, 20),), QUESTION, system="You are a helpful assistant.", prefix=PREFIX),
        Prompt((PromptImage(wide), PromptImage(small)), "naïve café?", prefix=PREFIX),
        Prompt((marked(wide, 90, 60),), "How far?"),
        Prompt((marked(wide, 90, 60),), "How far?", image_first=False),
    ]


def marked_prompts() -> list[Prompt]:
    """Five prompts of two frames that share no untouched image, so that each goes through ``generate``."""
    prompts = prompts_of_two_frames()
    return [*prompts[:2], *prompts[3:], replace(prompts[0], question="How far?")]


def close(left: Answer, right: Answer, tolerance: float = 2e-4) -> bool:
    return (left.text, left.finish) == (right.text, right.finish) and np.allclose(
        [t.logprob for t in left.tokens], [t.logprob for t in right.tokens], atol=tolerance
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On busy cores torch's threads wait for each other: these tests take 40 times as long with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=FAMILIES)
def engine(request: pytest.FixtureRequest) -> Iterator[TransformersEngine]:
    with TransformersEngine(
        shared_checkpoint(request.param), device="cpu", dtype="float32", batch_size=8, images_at_once=8
    ) as it:
        yield it


def full_passes(engine: TransformersEngine, prompt: Prompt, steps: int) -> tuple[list[int], list[float]]:
    """Greedy decoding without cache, padding, ``generate`` or our encoder's shortcuts."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    path = engine._checkpoint
    model = AutoModelForImageTextToText.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    seen = AutoImageProcessor.from_pretrained(path, backend="pil")(
        [i.pixels() for i in prompt.images], return_tensors="pt"
    )
    text = engine._encoder._chat.render(prompt)
    if "image_grid_thw" in seen:
        for grid in seen["image_grid_thw"]:
            text = text.replace("<|image_pad|>", "<x>" * (int(grid.prod()) // 4), 1)
        text = text.replace("<x>", "<|image_pad|>")
    else:
        for height, width in seen["image_sizes"].tolist():
            rows = "[IMG_BREAK]".join(["<x>" * (width // 16)] * (height // 16))
            text = text.replace("[IMG]", rows + "[IMG_END]", 1)
        text = text.replace("<x>", "[IMG]")
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    chosen, logprobs = [], []
    for _ in range(steps):
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **seen}
        if "image_grid_thw" in seen:
            inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).long()
        with torch.inference_mode():
            row = model(**inputs, use_cache=False).logits[0, -1].float().log_softmax(-1)
        chosen.append(int(row.argmax()))
        logprobs.append(float(row.max()))
        ids = torch.cat([ids, row.argmax().view(1, 1)], dim=1)
    return chosen, logprobs


def test_tokens_and_logprobs_are_those_of_full_forward_passes(engine: TransformersEngine) -> None:
    prompts = prompts_of_two_frames()
    for prompt, answer in zip(prompts, engine.generate(prompts, max_new_tokens=5), strict=True):
        chosen, logprobs = full_passes(engine, prompt, len(answer.tokens))
        assert answer.finish is Finish.LENGTH
        assert len(answer.tokens) == 5
        tokenizer = engine._encoder.tokenizer
        assert answer.text == tokenizer.decode(chosen, skip_special_tokens=True)
        assert [t.logprob for t in answer.tokens] == pytest.approx(logprobs, abs=2e-4)
        assert "".join(t.text for t in answer.tokens) == answer.text


def test_a_batch_answers_what_single_prompts_answer(engine: TransformersEngine) -> None:
    prompts = prompts_of_two_frames()
    together = engine.generate(prompts, max_new_tokens=6)
    alone = [engine.generate([prompt], max_new_tokens=6)[0] for prompt in prompts]
    assert all(close(a, b) for a, b in zip(together, alone, strict=True))
    assert len({answer.text for answer in together}) > 2  # else this shows little


def test_a_prefix_is_continued_as_if_the_model_had_said_it(engine: TransformersEngine) -> None:
    base = image(90, 130)
    free = Prompt((PromptImage(base),), QUESTION)
    whole = engine.generate([free], max_new_tokens=9)[0]
    # The first tokens whose text is whole characters, so that they can be given as text.
    cut = next((n for n in range(1, 9) if "\ufffd" not in "".join(t.text for t in whole.tokens[:n])), None)
    if cut is None:
        pytest.skip("this tiny model starts with half a character")
    said = "".join(t.text for t in whole.tokens[:cut])
    tokenizer = engine._encoder.tokenizer
    rendered = engine._encoder._chat.render(free)
    joint = tokenizer(rendered + said)["input_ids"]
    if joint != tokenizer(rendered)["input_ids"] + tokenizer(said, add_special_tokens=False)["input_ids"] or (
        len(tokenizer(said, add_special_tokens=False)["input_ids"]) != cut
    ):
        pytest.skip("this tiny model did not say what its tokenizer would write")
    rest = engine.generate([replace(free, prefix=said)], max_new_tokens=9 - cut)[0]
    assert rest.text == whole.text[len(said) :]
    assert [t.logprob for t in rest.tokens] == pytest.approx(
        [t.logprob for t in whole.tokens[cut:]], abs=2e-4
    )


def test_a_stop_string_ends_its_sequence_only(engine: TransformersEngine) -> None:
    prompts = prompts_of_two_frames()[:3]
    free = engine.generate(prompts, max_new_tokens=6)
    piece = next(t.text for t in free[0].tokens if t.text.strip())
    stopped = engine.generate(prompts, max_new_tokens=6, stop=[piece])
    for before, after in zip(free, stopped, strict=True):
        if piece in before.text:
            assert after.finish is Finish.STOP
            assert piece in after.text
            assert before.text.startswith(after.text)
            assert piece not in "".join(t.text for t in after.tokens[:-1])
            assert len(after.tokens) <= len(before.tokens)
        else:
            assert close(before, after)


def test_defaults_of_the_checkpoint_do_not_change_the_answer(engine: TransformersEngine) -> None:
    config = engine._model.generation_config  # Qwen's file asks for sampling and a repetition penalty
    assert not config.do_sample
    assert config.repetition_penalty in (None, 1.0)
    assert config.temperature in (None, 1.0)
    prompt = prompts_of_two_frames()[0]
    assert engine.generate([prompt], max_new_tokens=6) == engine.generate([prompt], max_new_tokens=6)


def test_the_end_of_text_token_ends_an_answer_and_is_not_part_of_it(engine: TransformersEngine) -> None:
    watch = hf_decoding.GreedyDecoding(
        engine._encoder.tokenizer,
        [[1], [1]],
        eos=frozenset([7]),
        stop=(),
        max_new_tokens=3,
        late=lambda: False,
    )
    ids = torch.tensor([[1], [1]])
    for pair in ([5, 5], [7, 6], [9, 6]):
        logits = torch.zeros(2, 10)
        watch.record(ids, logits)
        ids = torch.cat([ids, torch.tensor(pair)[:, None]], dim=1)
        done = watch.done(ids, None)
    assert done.tolist() == [True, True]
    first, second = watch.answers()
    assert (len(first.tokens), first.finish) == (1, Finish.STOP)
    assert (len(second.tokens), second.finish) == (3, Finish.LENGTH)
    assert first.tokens[0].logprob == pytest.approx(-np.log(10))


def test_nothing_is_begun_after_the_deadline(engine: TransformersEngine) -> None:
    answers = engine.generate(prompts_of_two_frames(), max_new_tokens=4, deadline=time.monotonic() - 1)
    assert [a.finish for a in answers] == [Finish.DEADLINE] * 5
    assert all(a.text == "" and a.tokens == () for a in answers)


def test_the_deadline_ends_decoding_between_tokens(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1000))
    clock = types.SimpleNamespace(monotonic=lambda: next(ticks))
    monkeypatch.setattr("depthlm_ros.engines.transformers.time", clock)
    answers = engine.generate(prompts_of_two_frames()[:2], max_new_tokens=500, deadline=3)
    assert {a.finish for a in answers} == {Finish.DEADLINE}
    assert next(ticks) <= 6


def test_a_cancelled_call_ends_between_tokens_and_the_next_one_is_not_affected(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def look_at_the_clock() -> float:
        looks.append(1)
        if len(looks) == 3:
            engine.cancel()
        return 0.0

    monkeypatch.setattr(
        "depthlm_ros.engines.transformers.time", types.SimpleNamespace(monotonic=look_at_the_clock)
    )
    prompts = prompts_of_two_frames()[:2]
    answers = engine.generate(prompts, max_new_tokens=500, deadline=1.0)
    assert Finish.DEADLINE in {a.finish for a in answers}
    assert len(looks) <= 4
    assert Finish.DEADLINE not in {a.finish for a in engine.generate(prompts, max_new_tokens=2, deadline=1.0)}


def test_one_bad_prompt_fails_alone(engine: TransformersEngine) -> None:
    good = prompts_of_two_frames()[0]
    bad = [
        replace(good, images=(PromptImage(image(2, 900)),)),  # Qwen refuses the shape
        replace(good, question="<|image_pad|>[IMG]"),
        replace(good, images=(PromptImage(image(60, 60), Paint(((80, 1),), RED)),)),
    ]
    answers = engine.generate([bad[1], good, bad[2], bad[0]], max_new_tokens=3)
    assert [a.finish for a in answers[:3]] == [Finish.ERROR, Finish.LENGTH, Finish.ERROR]
    assert "places for one" in answers[0].error
    assert close(answers[1], engine.generate([good], max_new_tokens=3)[0])


def test_without_prompts_there_are_no_answers(engine: TransformersEngine) -> None:
    assert engine.generate([], max_new_tokens=3) == []


def test_a_batch_that_does_not_fit_is_halved_once(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = engine._model.generate

    def generate(**inputs: torch.Tensor) -> object:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(**inputs)

    prompts = marked_prompts()
    expected = engine.generate(prompts, max_new_tokens=3)
    monkeypatch.setattr(engine._model, "generate", generate)
    answers = engine.generate(prompts, max_new_tokens=3)
    assert sizes == [5, 3, 2]
    assert all(close(a, b) for a, b in zip(answers, expected, strict=True))
    answers = engine.generate(prompts * 2, max_new_tokens=3)
    assert [a.finish for a in answers] == [Finish.ERROR] * 8 + [Finish.LENGTH] * 2
    assert "out of memory" in answers[0].error


def test_a_failed_batch_leaves_the_others_and_a_lost_gpu_ends_all(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = engine._model.generate, iter([RuntimeError("shape mismatch")])

    def generate(**inputs: torch.Tensor) -> object:
        for failure in failures:
            raise failure
        return real(**inputs)

    monkeypatch.setattr(engine._model, "generate", generate)
    answers = engine.generate(prompts_of_two_frames() * 2, max_new_tokens=2)
    assert [a.finish for a in answers] == [Finish.ERROR] * 8 + [Finish.LENGTH] * 2
    assert "shape mismatch" in answers[0].error
    failures = iter([RuntimeError("CUDA error: device-side assert triggered")])
    with pytest.raises(EngineError, match="restart"):
        engine.generate(prompts_of_two_frames(), max_new_tokens=2)


def test_a_failure_of_a_kind_is_logged_with_its_traceback_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_with(error: Exception) -> None:
        def generate(**inputs: torch.Tensor) -> None:
            raise error

        monkeypatch.setattr(engine._model, "generate", generate)
        for _ in range(3):
            assert engine.generate(prompts[:2], max_new_tokens=2)[0].finish is Finish.ERROR

    prompts = prompts_of_two_frames()
    caplog.set_level(logging.INFO, logger="depthlm_ros")
    with TransformersEngine(shared_checkpoint("pixtral"), device="cpu", dtype="float32") as engine:
        fail_with(RuntimeError("shape mismatch"))
        fail_with(ValueError("another kind"))
        assert [r.message for r in caplog.records] == ["a batch of 2 prompts failed"] * 2
        assert all(record.exc_info for record in caplog.records)
        caplog.clear()
        fail_with(torch.OutOfMemoryError("CUDA out of memory"))
        assert [r.levelname for r in caplog.records] == ["WARNING", "ERROR"]
    caplog.clear()
    with engine:  # started anew, it is said anew
        fail_with(RuntimeError("shape mismatch"))
    assert len(caplog.records) == 1


@pytest.mark.skipif(bool(why_no_processor()), reason=why_no_processor())
def test_other_architectures_go_through_their_own_processor(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoImageProcessor, AutoProcessor

    path, prompts = engine._checkpoint, prompts_of_two_frames()
    expected = engine.generate(prompts, max_new_tokens=5)
    processor = AutoProcessor.from_pretrained(path)
    processor.image_processor = AutoImageProcessor.from_pretrained(path, backend="pil")
    encoder = ProcessorEncoder(
        processor, chat_template(path, processor.tokenizer), device=torch.device("cpu")
    )
    monkeypatch.setattr(engine, "_encoder", encoder)
    answers = engine.generate(prompts, max_new_tokens=5)
    assert all(close(a, b) for a, b in zip(answers, expected, strict=True))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_runs_in_the_dtype_asked_for(family: str, dtype: str) -> None:
    engine = TransformersEngine(shared_checkpoint(family), device="cpu", dtype=dtype)
    with engine:
        assert {p.dtype for p in engine._model.parameters()} == {getattr(torch, dtype)}
        answer = engine.generate(prompts_of_two_frames()[:1], max_new_tokens=3)[0]
        assert answer.finish is Finish.LENGTH, answer.error
        assert all(np.isfinite(t.logprob) for t in answer.tokens)
    assert engine._model is None
    with pytest.raises(EngineError, match="not started"):
        engine.generate([], max_new_tokens=1)


def test_logits_that_are_not_finite_are_an_error(tmp_path) -> None:
    with TransformersEngine(shared_checkpoint("qwen2_5_vl"), device="cpu", dtype="float16") as engine:
        with torch.no_grad():
            engine._model.lm_head.weight.mul_(torch.inf)
        answer = engine.generate(prompts_of_two_frames()[:1], max_new_tokens=3)[0]
    assert answer.finish is Finish.ERROR
    assert "not finite" in answer.error


def test_a_bfloat16_checkpoint_loads_as_float32(tmp_path) -> None:
    path = make_tiny_checkpoint(tmp_path, "qwen3_vl", dtype="bfloat16")
    with TransformersEngine(path, device="cpu", dtype="float32") as engine:
        assert engine._model.dtype is torch.float32


def test_importing_the_engine_imports_no_torch() -> None:
    code = "import sys, depthlm_ros.engines.transformers; sys.exit(bool({'torch', 'transformers'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "error", [ImportError("No module named 'torch'"), OSError("libcudnn.so.9: no such file")]
)
def test_a_torch_that_does_not_load_is_an_error_that_says_what_to_do(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = builtins.__import__

    def broken(name: str, *rest: object) -> object:
        if name == "torch":
            raise error
        return load(name, *rest)  # type: ignore[arg-type]

    engine = TransformersEngine(shared_checkpoint(FAMILIES[0]))
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(EngineError, match=rf"do not load \({error}\); install them"), engine:
        pass


def test_the_name_says_model_and_architecture() -> None:
    engine = TransformersEngine(shared_checkpoint("pixtral"))
    assert engine.model_name == "tiny-pixtral (LlavaForConditionalGeneration)"


def test_the_name_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, reads = TransformersEngine(shared_checkpoint("pixtral")), []
    monkeypatch.setattr("depthlm_ros.engines.transformers.read_json", lambda path: reads.append(path) or {})
    assert engine.model_name == engine.model_name == "tiny-pixtral (unknown)"
    assert len(reads) == 1
