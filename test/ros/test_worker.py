"""The worker thread: newest frame first, questions in between, a clean stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from depthlm_ros.ros.worker import NewestFirstWorker


class Slow:
    """Processes frames only while the gate is open."""

    def __init__(self) -> None:
        self.gate, self.busy = threading.Event(), threading.Event()
        self.done: list[int] = []

    def __call__(self, frame: int) -> Iterator[None]:
        self.busy.set()
        assert self.gate.wait(10.0)
        if frame < 0:
            raise ValueError(f"frame {frame}")
        self.done.append(frame)
        yield from ()


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
def worker(slow: Slow, failures: list[BaseException]) -> Iterator[NewestFirstWorker[int]]:
    worker = NewestFirstWorker(slow, failures.append)
    worker.start()
    yield worker
    slow.gate.set()
    assert worker.stop(5.0)


def until(condition: object) -> None:
    end = time.monotonic() + 5.0
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_of_the_frames_that_wait_only_the_newest_is_processed(
    worker: NewestFirstWorker[int], slow: Slow
) -> None:
    assert not worker.submit(1)
    assert slow.busy.wait(5.0)
    assert [worker.submit(n) for n in (2, 3, 4)] == [False, True, True]
    slow.gate.set()
    until(lambda: slow.done == [1, 4])


def test_questions_and_frames_take_turns(worker: NewestFirstWorker[int], slow: Slow) -> None:
    order: list[str] = []
    worker.submit(1)
    assert slow.busy.wait(5.0)
    futures = [worker.ask(lambda k=k: order.append(f"question {k}") or len(slow.done)) for k in range(2)]
    worker.submit(2)
    slow.gate.set()
    # The frame that waits is processed after the first question, before the second.
    assert [f.result(5.0) for f in futures] == [1, 2]


def test_a_failing_frame_or_question_does_not_end_the_worker(
    worker: NewestFirstWorker[int], slow: Slow, failures: list[BaseException]
) -> None:
    slow.gate.set()
    worker.submit(-1)
    until(lambda: failures)
    assert str(failures[0]) == "frame -1"
    with pytest.raises(ZeroDivisionError):
        worker.ask(lambda: 1 // 0).result(5.0)
    assert worker.ask(lambda: 42).result(5.0) == 42


def test_stopping_drops_what_waits(slow: Slow) -> None:
    worker: NewestFirstWorker[int] = NewestFirstWorker(slow, print)
    worker.start()
    worker.submit(1)
    assert slow.busy.wait(5.0)
    waiting = worker.ask(lambda: 1)
    assert not worker.stop(0.05)
    assert waiting.cancelled()
    assert worker.ask(lambda: 1).cancelled()
    slow.gate.set()
    assert worker.stop(5.0)
    assert slow.done == [1]


def test_whoever_is_told_of_a_stop_may_take_the_lock_under_which_another_asks(slow: Slow) -> None:
    worker: NewestFirstWorker[int] = NewestFirstWorker(slow, print)
    lock = threading.Lock()
    holding, may_ask, asked, told = (threading.Event() for _ in range(4))

    def tell(_: object) -> None:
        may_ask.set()
        if lock.acquire(timeout=5.0):
            told.set()
            lock.release()

    def ask() -> None:
        with lock:
            holding.set()
            assert may_ask.wait(5.0)
            worker.ask(lambda: 1)
            asked.set()

    worker.ask(lambda: 1).add_done_callback(tell)
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    assert holding.wait(5.0)
    worker.stop(0.0)
    assert told.is_set()
    assert asked.is_set()
    asking.join(5.0)
