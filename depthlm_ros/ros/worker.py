"""The thread that does the work: the newest frame in turns, and questions in between."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Generic, TypeVar

Frame = TypeVar("Frame")
Result = TypeVar("Result")


class NewestFirstWorker(threading.Thread, Generic[Frame]):
    """Runs one job at a time off the executor: questions in order, and of the frames only the newest.

    A question and a piece of the frame's work take turns, so neither can starve the other.
    """

    def __init__(
        self, process: Callable[[Frame], Iterator[None]], failed: Callable[[BaseException], None]
    ) -> None:
        """Make the worker; ``start`` begins.

        Args:
            process: Begins a frame; each ``next`` does a piece of the work, and the last one publishes.
            failed: Told of an exception that ``process`` let through; the worker goes on.
        """
        super().__init__(name="depthlm_worker", daemon=True)
        self._process = process
        self._failed = failed
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._begun: Iterator[None] | None = None
        self._questions: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop: what still comes of its work is nobody's."""
        return self._stopping

    def submit(self, frame: Frame) -> bool:
        """Hand over a frame; one that still waits is dropped in its favour.

        Returns:
            Whether a waiting frame was dropped.
        """
        with self._changed:
            dropped = self._frame is not None
            self._frame = frame
            self._changed.notify()
        return dropped

    def discard(self) -> bool:
        """Drop the frame that waits, if any.

        Returns:
            Whether one waited.
        """
        with self._changed:
            dropped = self._frame is not None
            self._frame = None
        return dropped

    def ask(self, question: Callable[[], Result]) -> Future[Result]:
        """Queue a question; its result or exception arrives in the future. A cancelled one is not run.

        What is answered while the worker is told to stop raises ``CancelledError``, as what then waits does.
        """
        future: Future[Result] = Future()
        with self._changed:
            if self._stopping:
                future.cancel()
            else:
                self._questions.append((question, future))  # type: ignore[arg-type]
                self._changed.notify()
        return future

    def stop(self, timeout_s: float, interrupt: Callable[[], None] = lambda: None) -> bool:
        """Take no more work, drop what waits, and wait for what runs.

        Args:
            timeout_s: The longest wait.
            interrupt: Asks what runs to end early; called again and again, as a job may just be beginning.

        Returns:
            Whether the worker ended in time.
        """
        with self._changed:
            self._stopping = True
            self._frame = None
            dropped = [future for _, future in self._questions]
            self._questions.clear()
            self._changed.notify()
        # Outside of the lock: whoever is told takes locks of its own, under which it may ask.
        for future in dropped:
            future.cancel()
        end = time.monotonic() + timeout_s
        while self.is_alive() and time.monotonic() < end:
            interrupt()
            self.join(0.05)
        return not self.is_alive()

    def run(self) -> None:
        """Work until stopped."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._stopping:
                    return
                pending = self._questions.popleft() if self._questions else None
            if pending is not None:
                self._answer(*pending)
            self._go_on()

    def _has_work(self) -> bool:
        return bool(self._stopping or self._questions or self._begun) or self._frame is not None

    def _go_on(self) -> None:
        """Do a piece of the frame that was begun, else begin the one that waits."""
        try:
            if self._begun is None:
                with self._changed:
                    frame, self._frame = self._frame, None
                if frame is None or self._stopping:
                    return
                self._begun = iter(self._process(frame))
            next(self._begun)
        except StopIteration:
            self._begun = None
        except Exception as error:
            self._begun = None
            self._failed(error)

    def _answer(self, question: Callable[[], object], future: Future[object]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = question()
            if self._stopping:
                raise CancelledError
            future.set_result(result)
        except Exception as error:
            future.set_exception(error)
