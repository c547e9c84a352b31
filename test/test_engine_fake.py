"""The scripted engine keeps the engines' contract, so that tests which use it mean something."""

from __future__ import annotations

import time

import numpy as np
import pytest

from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt, PromptImage, VlmEngine
from depthlm_ros.engines.fake import FakeEngine

IMAGE = PromptImage(np.zeros((4, 4, 3), np.uint8))


def ask(*questions: str) -> list[Prompt]:
    return [Prompt((IMAGE,), question) for question in questions]


def test_it_answers_from_the_script_and_counts() -> None:
    engine: VlmEngine
    with FakeEngine(lambda p: f" {p.question}.5 meters away", batch_size=2, logprob=-0.5) as engine:
        answers = engine.generate(ask("1", "2", "3"), max_new_tokens=99, stop=(" meters", "away"))
    assert [a.text for a in answers] == [" 1.5 meters", " 2.5 meters", " 3.5 meters"]
    assert all("".join(t.text for t in a.tokens) == a.text and a.finish is Finish.STOP for a in answers)
    assert {t.logprob for a in answers for t in a.tokens} == {-0.5}
    assert (engine.generate_calls, engine.batches, engine.entered, engine.running) == (1, 2, 1, False)
    assert [p.question for p in engine.prompts] == ["1", "2", "3"]


def test_it_fails_as_scripted() -> None:
    whole = Answer("7", finish=Finish.LENGTH)
    says = {"bad": ValueError("no"), "whole": whole, "long": "12345"}
    with FakeEngine(lambda p: says[p.question]) as engine:
        bad, same, long = engine.generate(ask("bad", "whole", "long"), max_new_tokens=3)
    assert (bad.finish, bad.error) == (Finish.ERROR, "no")
    assert same is whole
    assert (long.text, long.finish) == ("123", Finish.LENGTH)
    with FakeEngine(lambda p: EngineError("gone")) as engine, pytest.raises(EngineError, match="gone"):
        engine.generate(ask("x"), max_new_tokens=3)
    with pytest.raises(EngineError, match="not started"):
        engine.generate(ask("x"), max_new_tokens=3)


def test_it_keeps_the_deadline_between_batches() -> None:
    with FakeEngine(lambda p: "1", batch_size=1, delay_s=0.02) as engine:
        answers = engine.generate(ask("a", "b", "c"), max_new_tokens=3, deadline=time.monotonic() + 0.01)
    assert [a.finish for a in answers] == [Finish.STOP, Finish.DEADLINE, Finish.DEADLINE]
    assert engine.batches == 1
