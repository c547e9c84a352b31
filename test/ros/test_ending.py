"""The end of the process: in time and with 0, whatever of it is stuck."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import Bench, NodeProcess, alone
from lifecycle_msgs.msg import Transition
from stopwatch import Stopwatch

from depthlm_ros.ros.ending import CLOSE_S, LAST_S, STOP_S, Watchdog, end_callbacks
from depthlm_ros.srv import QueryDepth

FOREVER = 120.0
PROMISE_S = 2.0
"""docs/launch.md: on a machine whose CPUs are not taken by other work."""

PROGRAM = (str(Path(__file__).with_name("stuck_node.py")),)
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def ask_much(bench: Bench) -> Future:
    """Ask for more pixels than the engine can answer before the test goes on."""
    u, v = np.meshgrid(np.arange(20, 140, 2), np.arange(20, 100, 2))
    return bench.query.call_async(QueryDepth.Request(u=u.ravel(), v=v.ravel(), timeout_s=600.0))


@contextmanager
def stuck(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[NodeProcess, Bench, int]]:
    """An active node that will be stuck, and what hears when it is; with a caller who waits, where one is needed."""
    pipe = tmp_path / "entered"
    os.mkfifo(pipe)
    entered = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setenv("DEPTHLM_TEST_ENTERED", str(pipe))
    monkeypatch.setenv("DEPTHLM_TEST_STUCK", what)
    try:
        with alone("lifecycle.autostart:=true", "stream.max_age_s:=600.0", program=PROGRAM) as (node, bench):
            bench.wait(lambda: bench.state() == "active", FOREVER)
            bench.send_until_answered()
            if what in ("query", "callback"):
                bench.send()
                ask_much(bench)
                bench.wait(lambda: select.select([entered], [], [], 0.0)[0], FOREVER)
            yield node, bench, entered
    finally:
        os.close(entered)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_in_the_middle_of_a_query_ends_the_process_in_time(signum: int) -> None:
    with alone("lifecycle.autostart:=true", "sampling.columns:=1", "sampling.rows:=1") as (node, bench):
        bench.wait(lambda: bench.state() == "active", FOREVER)
        bench.send_until_answered()
        bench.send()
        pending = ask_much(bench)
        bench.spin(0.7)
        assert not pending.done()
        took = Stopwatch()
        assert node.end(signum, FOREVER) == 0, "\n".join(node.log)
        assert took.own_s() < PROMISE_S
        assert not node.logged("Traceback"), "\n".join(node.log)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_while_the_model_does_not_return_ends_the_process_in_time(
    signum: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stuck("query", tmp_path, monkeypatch) as (node, _, _):
        took = Stopwatch()
        assert node.end(signum, FOREVER) == 0, "\n".join(node.log)
        assert took.own_s() < PROMISE_S
        assert node.logged("the engine still works on its last batch")
        assert not node.logged("Traceback"), "\n".join(node.log)


@pytest.mark.parametrize("what", ["free", "callback", "close", "exit"])
def test_whatever_else_is_stuck_the_process_ends_in_time(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stuck(what, tmp_path, monkeypatch) as (node, _, entered):
        took = Stopwatch()
        assert node.end(signal.SIGINT, FOREVER) == 0, "\n".join(node.log)
        assert took.own_s() < PROMISE_S
        assert select.select([entered], [], [], 0.0)[0], "it was never reached"
        by_force = node.logged("after the end was asked for the process is ended while its main thread is in")
        assert bool(by_force) is (what in ("close", "exit")), "\n".join(node.log)
        assert not node.logged("Traceback"), "\n".join(node.log)


@pytest.mark.parametrize("what", ["query", "free"])
def test_the_transition_shutdown_waits_for_neither_the_model_nor_its_memory(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stuck(what, tmp_path, monkeypatch) as (node, bench, _):
        took = Stopwatch()
        assert bench.transition(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert took.own_s() < PROMISE_S
        assert bench.state() == "finalized"
        assert node.end(signal.SIGINT, FOREVER) == 0, "\n".join(node.log)


def test_the_watchdog_counts_from_the_beginning_of_the_end_and_not_before() -> None:
    left, said = threading.Event(), list[str]()
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        left.set()

    watchdog = Watchdog(0.3, say=said.append, leave=leave)
    assert not left.wait(0.6)
    began = time.monotonic()
    watchdog.begin()
    assert left.wait(FOREVER)
    assert time.monotonic() - began >= 0.3
    assert codes == [0]


def test_a_watchdog_leaves_also_when_nothing_can_be_said() -> None:
    left = threading.Event()
    watchdog = Watchdog(0.2, say=lambda _: threading.Event().wait(), leave=lambda _: left.set())  # type: ignore[arg-type, return-value]
    watchdog.begin()
    assert left.wait(FOREVER)


def test_an_executor_whose_callback_does_not_return_is_not_waited_for() -> None:
    done: Future[None] = Future()
    done.set_result(None)
    held = threading.Event()

    class Held:
        def shutdown(self) -> None:
            held.wait()

    assert end_callbacks(Held(), done) is False  # type: ignore[arg-type]
    held.set()
    assert end_callbacks(Held(), done) is True  # type: ignore[arg-type]


def test_each_wait_leaves_time_for_the_next_one_within_the_promise() -> None:
    assert STOP_S < CLOSE_S < LAST_S < PROMISE_S
