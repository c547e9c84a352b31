"""The next batch is prepared while the present one is worked on, in order, in one thread that ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from depthlm_ros.engines.ahead import Ahead
from depthlm_ros.engines.base import Finish, Prompt


def batches(count: int) -> list[list[Prompt]]:
    return [[Prompt((), f"{number}")] for number in range(count)]


def preparing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]


def test_the_next_batch_is_prepared_while_this_one_is_worked_on() -> None:
    begun = {"0": threading.Event(), "1": threading.Event()}

    def prepare(prompts: Sequence[Prompt]) -> str:
        begun[prompts[0].question].set()
        return prompts[0].question

    first, second = batches(2)
    with Ahead(prepare) as ahead:
        ahead.want([first, second])
        assert ahead.get(first) == "0"
        assert begun["1"].wait(30)  # nobody has asked for its result
        assert ahead.get(second) == "1"
    assert preparing() == []


def test_batches_are_prepared_once_each_in_order_and_never_two_at_a_time() -> None:
    order: list[str] = []
    busy = threading.Lock()

    def prepare(prompts: Sequence[Prompt]) -> str:
        assert busy.acquire(blocking=False)
        order.append(prompts[0].question)
        busy.release()
        return prompts[0].question

    everything, extra = batches(6), batches(1)[0]
    with Ahead(prepare) as ahead:
        got = []
        for number, batch in enumerate(everything):
            ahead.want(everything[number : number + 2])
            got.append(ahead.get(batch))
            if number == 3:
                assert ahead.get(extra) == "0"
    assert got == [str(number) for number in range(6)]
    assert sorted(order) == sorted([*got, "0"])
    assert [n for n in order if n != "0"] == got[1:]


def test_what_preparing_raises_is_raised_where_the_batch_is_asked_for() -> None:
    def prepare(prompts: Sequence[Prompt]) -> str:
        if prompts[0].question == "1":
            raise MemoryError("no room")
        return prompts[0].question

    everything = batches(3)
    with Ahead(prepare) as ahead:
        ahead.want(everything)
        assert ahead.get(everything[0]) == "0"
        with pytest.raises(MemoryError, match="no room"):
            ahead.get(everything[1])
        assert ahead.get(everything[2]) == "2"


def test_leaving_ends_the_thread_whatever_was_begun() -> None:
    gate = threading.Event()
    done: list[str] = []

    def prepare(prompts: Sequence[Prompt]) -> None:
        assert gate.wait(30)
        done.append(prompts[0].question)

    def stop_half_way() -> None:
        with Ahead(prepare) as ahead:
            ahead.want(batches(50))
            gate.set()
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        stop_half_way()
    assert preparing() == []
    assert len(done) < 50


def test_a_single_batch_takes_no_thread() -> None:
    with Ahead(lambda prompts: threading.current_thread()) as ahead:
        assert ahead.get(batches(1)[0]) is threading.current_thread()


def test_the_engine_answers_small_batches_as_it_answers_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from test_engine_transformers import close, marked_prompts, prompts_of_two_frames
    from tiny_models import shared_checkpoint

    from depthlm_ros.engines.transformers import TransformersEngine

    prompts = [*prompts_of_two_frames(), *marked_prompts()]
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
    whole = {"batch_size": 16, "images_at_once": 16}
    with TransformersEngine(shared_checkpoint("qwen2_5_vl"), **whole, **options) as engine:
        expected = engine.generate(prompts, max_new_tokens=3)
    with TransformersEngine(shared_checkpoint("qwen2_5_vl"), batch_size=2, **options) as engine:
        answers = engine.generate(prompts, max_new_tokens=3)
        assert all(close(a, b) for a, b in zip(answers, expected, strict=True))
        assert preparing() == []

        real, calls = engine._encoder.batch, []

        def batch(encoded: Sequence[Any]) -> Any:
            calls.append(threading.current_thread())
            if len(calls) == 2:
                raise RuntimeError("no room for the inputs")
            return real(encoded)

        monkeypatch.setattr(engine._encoder, "batch", batch)
        failing = engine.generate(marked_prompts(), max_new_tokens=3)
        assert [answer.finish is Finish.ERROR for answer in failing] == [False, False, True, True, False]
        assert "no room for the inputs" in failing[2].error
        assert np.all([thread is not threading.current_thread() for thread in calls])
        assert preparing() == []
