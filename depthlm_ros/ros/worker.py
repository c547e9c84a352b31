"""The thread that does the work: the newest frame, and questions between frames."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Frame = TypeVar("Frame")
Result = TypeVar("Result")


class NewestFirstWorker(threading.Thread, Generic[Frame]):
    """Runs one job at a time off the executor: questions in order, and of the frames only the newest.

    Questions and frames take turns, so neither can starve the other.
    """

    def __init__(self, process: Callable[[Frame], None], failed: Callable[[BaseException], None]) -> None:
        """Make the worker; ``start`` begins.

        Args:
            process: Handles a frame.
            failed: Told of an exception that ``process`` let through; the worker goes on.
        """
        super().__init__(name="depthlm_worker", daemon=True)
        self._process = process
        self._failed = failed
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._questions: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._stopping = False

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

    def ask(self, question: Callable[[], Result]) -> Future[Result]:
        """Queue a question; its result or exception arrives in the future. A cancelled one is not run."""
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
            while self._questions:
                self._questions.popleft()[1].cancel()
            self._changed.notify()
        end = time.monotonic() + timeout_s
        while self.is_alive() and time.monotonic() < end:
            interrupt()
            self.join(0.05)
        return not self.is_alive()

    def run(self) -> None:
        """Work until stopped."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._questions or self._frame is not None)
                if self._stopping:
                    return
                pending, frame = self._questions.popleft() if self._questions else None, self._frame
                self._frame = None
            if pending is not None:
                self._answer(*pending)
            if frame is not None:
                try:
                    self._process(frame)
                except Exception as error:
                    self._failed(error)

    @staticmethod
    def _answer(question: Callable[[], object], future: Future[object]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(question())
        except Exception as error:
            future.set_exception(error)
