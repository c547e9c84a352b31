"""The running node's states, and how it ends: deactivated, refused at its start, or by a signal."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import Bench, NodeProcess, alone
from lifecycle_msgs.msg import Transition

from depthlm_ros.srv import QueryDepth


@pytest.fixture(scope="module")
def graph() -> Iterator[tuple[NodeProcess, Bench]]:
    with alone("lifecycle.autostart:=true") as graph:
        graph[1].send_until_answered()
        yield graph


def test_deactivating_stops_and_activating_resumes(bench: Bench) -> None:
    assert bench.transition(Transition.TRANSITION_DEACTIVATE)
    bench.spin(0.5)
    bench.got["points"].clear()
    for _ in range(5):
        bench.send()
        bench.spin(0.1)
    assert bench.got["points"] == []
    assert not bench.call(bench.query, QueryDepth.Request(u=[80], v=[60])).success
    assert bench.transition(Transition.TRANSITION_CLEANUP)
    assert bench.state() == "unconfigured"
    assert bench.set_parameter("engine.batch_size", 16) == (True, "")
    assert bench.transition(Transition.TRANSITION_CONFIGURE)
    assert bench.transition(Transition.TRANSITION_ACTIVATE)
    assert bench.send_until_answered()


def test_configure_fails_with_a_sentence_when_the_engine_cannot_start() -> None:
    with alone("engine.checkpoint:=/nowhere/at/all") as (node, bench):
        assert not bench.transition(Transition.TRANSITION_CONFIGURE)
        assert bench.state() == "unconfigured"
        assert "/nowhere/at/all" in bench.wait(lambda: node.logged("cannot configure"))[0]


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ("sampling.method:=everything", "sampling.method: expected one of grid, gradient, roi"),
        ("sampling.columns:=0", "sampling.columns"),
        ("engine.batch_size:=many", "engine.batch_size"),
        ("sampling.colums:=3", "did you mean 'sampling.columns'?"),
    ],
)
def test_a_wrong_parameter_ends_the_process_with_the_reason(parameter: str, says: str) -> None:
    node = NodeProcess(parameter, namespace="/wrong")
    assert node.process.wait(60.0) == 2
    node.end()
    assert node.logged(says), "\n".join(node.log)
    assert not node.logged("Traceback"), "\n".join(node.log)


def test_what_was_begun_before_a_deactivation_is_never_published() -> None:
    with alone("lifecycle.autostart:=true", "sampling.columns:=40", "sampling.rows:=30") as (_, bench):
        bench.wait(lambda: bench.state() == "active", 60.0)
        old = bench.send()
        bench.spin(0.7)
        assert bench.transition(Transition.TRANSITION_DEACTIVATE)
        assert bench.set_parameter("sampling.columns", 2)[0]
        assert bench.set_parameter("sampling.rows", 2)[0]
        assert bench.transition(Transition.TRANSITION_ACTIVATE)
        answer = bench.send_until_answered()
        bench.spin(1.0)
        assert answer.header.stamp != old.stamp
        assert not [m for m in bench.got["sparse_depth"] if m.header.stamp == old.stamp]


def test_a_signal_while_the_engine_loads_ends_the_process_cleanly() -> None:
    with alone("lifecycle.autostart:=true") as (node, bench):
        bench.wait(lambda: node.logged("loading engine"), 60.0)
        assert node.end(signal.SIGINT) == 0, "\n".join(node.log)
        assert not node.logged("configured with")
