"""What a lifecycle manager does: change_state and get_state in its order, also while an engine loads."""

from __future__ import annotations

import gc
import socket
import threading
import weakref
from collections.abc import Iterator

import pytest
from graph import Bench, NodeProcess, alone
from lifecycle_msgs.msg import Transition
from stopwatch import Stopwatch

from depthlm_ros.config import DepthLMConfig, from_flat
from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.ros.loading import LoadedEngine
from depthlm_ros.session import open_estimator, warm_up

CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE, CLEANUP = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP


@pytest.fixture
def mute_server() -> Iterator[str]:
    """A server that takes connections and never says a word: an engine that is slow to start."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(params=["by a manager", "by itself"])
def loading(request: pytest.FixtureRequest, mute_server: str) -> Iterator[tuple[NodeProcess, Bench]]:
    """A node whose configure is under way: asked for by a service call, or by the node itself (autostart)."""
    by_itself = request.param == "by itself"
    parameters = ("engine.name:=openai", "engine.model:=embedded", f"engine.base_urls:={mute_server}")
    with alone(*parameters, f"lifecycle.autostart:={str(by_itself).lower()}") as (node, bench):
        if not by_itself:
            bench.begin(CONFIGURE)
        bench.wait(lambda: node.logged("loading engine"))
        yield node, bench


def test_the_state_is_answered_while_the_engine_loads(loading: tuple[NodeProcess, Bench]) -> None:
    _, bench = loading
    assert bench.state() == "configuring"
    assert bench.counters()["state"] == "configuring"


def test_a_second_transition_while_the_engine_loads_is_refused(loading: tuple[NodeProcess, Bench]) -> None:
    node, bench = loading
    assert not bench.transition(CONFIGURE)
    assert not bench.transition(ACTIVATE)
    assert bench.state() == "configuring"
    assert node.process.poll() is None


def test_what_the_engine_is_loaded_with_does_not_change_while_it_loads(
    loading: tuple[NodeProcess, Bench],
) -> None:
    _, bench = loading
    changed, reason = bench.set_parameter("engine.batch_size", 4)
    assert not changed
    assert "engine.batch_size cannot change" in reason
    assert bench.set_parameter("sampling.columns", 4) == (True, "")
    assert bench.state() == "configuring"


def test_the_process_ends_while_the_engine_loads(loading: tuple[NodeProcess, Bench]) -> None:
    node, _ = loading
    took = Stopwatch()
    assert node.end(timeout=15.0) == 0
    assert took.own_s() < 2.0  # the promise of docs/launch.md


def test_a_manager_brings_the_node_up_down_and_up_again() -> None:
    with alone() as (_, bench):
        for _ in range(2):
            # The order of nav2_lifecycle_manager: one transition, then its state is asked for.
            for transition, state in ((CONFIGURE, "inactive"), (ACTIVATE, "active")):
                assert bench.transition(transition)
                assert bench.state() == state
            assert bench.send_until_answered()
            for transition, state in ((DEACTIVATE, "inactive"), (CLEANUP, "unconfigured")):
                assert bench.transition(transition)
                assert bench.state() == state
            sent = bench.send()
            bench.spin(0.5)
            assert not [m for m in bench.got["sparse_depth"] if m.header.stamp == sent.stamp]


def test_cleanup_frees_the_model() -> None:
    loaded = LoadedEngine(from_flat({"engine.threads": 1}), threading.Event())
    engine = loaded.estimator.engine
    weights = weakref.ref(engine._model)  # type: ignore[attr-defined]
    assert weights() is not None
    assert loaded.close()
    gc.collect()
    assert weights() is None


PROFILE = CheckpointProfile("fake", canonical_focal_px=100.0)


def test_the_first_question_is_asked_before_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Prompt] = []
    engine = FakeEngine(lambda prompt: asked.append(prompt) or " 2.00 meters")  # type: ignore[func-returns-value]
    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: engine)
    with open_estimator(DepthLMConfig()):
        assert asked == []
    with open_estimator(DepthLMConfig(), warm=True):
        assert len(asked) == 1


def test_an_engine_that_fails_on_the_first_question_does_not_start() -> None:
    failed = Answer("", finish=Finish.ERROR, error="CUDA kernel image is missing")
    with (
        FakeEngine(lambda prompt: failed) as engine,
        pytest.raises(EngineError, match="failed on a first question: CUDA kernel image is missing"),
    ):
        warm_up(DepthEstimator(engine, PROFILE))


def test_an_answer_that_makes_no_sense_does_not_keep_an_engine_from_starting() -> None:
    with FakeEngine(lambda prompt: "no idea") as engine:
        warm_up(DepthEstimator(engine, PROFILE))
        assert engine.generate_calls == 1
