"""Requests that nobody has a use for any more are ended on the wire: the server sees their connections close."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator

import numpy as np
import pytest
from servers.fixtures import PROFILE, engine_of, prompts_of
from servers.holding import Holding
from servers.kinds import Vllm
from servers.scripted import ScriptedModel

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.engines.base import Finish
from depthlm_ros.engines.openai import OpenAIEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.turns import Budget, ask_in_turns

PROMPTS = prompts_of(6)
AT_ONCE = 4


@pytest.fixture
def server() -> Iterator[Vllm]:
    with Vllm(ScriptedModel()) as server:
        yield server


@pytest.fixture
def engine(server: Vllm) -> Iterator[OpenAIEngine]:
    with engine_of(server, max_in_flight=AT_ONCE) as engine:
        yield engine


@pytest.fixture
def held(server: Vllm, engine: OpenAIEngine) -> Iterator[Holding]:
    """The engine has got to know the server, which now holds every request back."""
    server.fault = held = Holding()
    yield held
    held.release()


def soon(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20.0
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def whole(turns: Generator[None, None, SparseDepth]) -> SparseDepth:
    while True:
        try:
            next(turns)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def test_at_the_deadline(engine: OpenAIEngine, held: Holding) -> None:
    answers = engine.generate(PROMPTS, max_new_tokens=9, deadline=time.monotonic() + 2.0)
    assert {answer.finish for answer in answers} == {Finish.DEADLINE}
    assert soon(lambda: held.deserted == AT_ONCE)
    # What waited for its turn was never sent.
    assert (held.begun, held.waiting) == (AT_ONCE, 0)


def test_when_the_call_is_cancelled(engine: OpenAIEngine, held: Holding) -> None:
    asking = threading.Thread(target=engine.generate, args=(PROMPTS,), kwargs={"max_new_tokens": 9})
    asking.start()
    assert soon(lambda: held.waiting == AT_ONCE)
    engine.cancel()
    asking.join(20.0)
    assert not asking.is_alive()
    assert soon(lambda: held.deserted == AT_ONCE)
    assert held.waiting == 0


def test_when_the_budget_of_a_frame_ends(engine: OpenAIEngine, held: Holding) -> None:
    estimator = DepthEstimator(engine, PROFILE)
    focal = PROFILE.canonical_focal_px
    camera = PinholeCamera.from_intrinsics(focal, focal, 80.0, 48.0, 160, 96)
    frame = estimator.prepare(np.zeros((96, 160, 3), np.uint8), camera)
    pixels = [(20 + 10 * n, 40) for n in range(8)]
    end = time.monotonic() + 2.0
    turns = ask_in_turns(estimator, frame, pixels, Budget(4, left_s=lambda: end - time.monotonic()))
    sparse = whole(turns)
    assert list(sparse.status) == [AnswerStatus.DEADLINE] * 4 + [AnswerStatus.OVER_BUDGET] * 4
    assert np.isnan(sparse.depth).all()
    assert soon(lambda: held.deserted == 4)
    assert (held.begun, held.waiting) == (4, 0)
