"""What callers want, put together: that which waits about one frame has its turn at once."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from depthlm_ros.config import StreamConfig
from depthlm_ros.ros.pipeline import FramePipeline, Pair
from depthlm_ros.ros.recent import RecentFrames
from depthlm_ros.ros.worker import NewestFirstWorker

Result = TypeVar("Result")


@dataclass(eq=False)
class Wish(Generic[Result]):
    """What one caller wants to know of a frame.

    Attributes:
        pair: The frame; None means the newest one when it is this wish's turn.
        deadline: ``time.monotonic()`` seconds after which nothing more is begun for this caller.
        stream: How old a frame may be, and how many pixels are asked at once.
        result: What came of it; the caller may cancel it.
        lock: Held by whoever decides on the result: the worker, or the caller whose time is over.
    """

    pair: Pair | None
    deadline: float
    stream: StreamConfig
    result: Future[Result] = field(default_factory=Future, kw_only=True)
    lock: threading.RLock = field(default_factory=threading.RLock, kw_only=True)  # type: ignore[valid-type,unused-ignore]

    @property
    def kind(self) -> Hashable:
        """Only wishes of one kind are put together."""
        return None

    def tell(self, result: Result) -> None:
        """Hand over the result; a caller that gave up, or was told before, gets nothing."""
        with self.lock:
            if not self.result.done() and self.result.set_running_or_notify_cancel():
                self.result.set_result(result)

    def fail(self, error: Exception) -> None:
        """Tell the caller why there is no answer, unless it gave up or was told before."""
        with self.lock:
            if not self.result.done() and self.result.set_running_or_notify_cancel():
                self.result.set_exception(error)


Wished = TypeVar("Wished", bound=Wish)  # type: ignore[type-arg]


class Shared(ABC, Generic[Wished]):
    """Has the worker do what callers wait for, one turn for all that goes together, frames and kinds in turn."""

    def __init__(
        self, worker: NewestFirstWorker[Pair], pipeline: FramePipeline, frames: RecentFrames
    ) -> None:
        """Begin with nothing.

        Args:
            worker: Gives the turns; when it is stopped, whoever waits is cancelled.
            pipeline: Asks.
            frames: Knows the newest frame.
        """
        self._worker, self._pipeline, self._frames = worker, pipeline, frames
        self._lock = threading.Lock()
        self._waiting: list[Wished] = []
        self._turn: Future[None] | None = None

    @abstractmethod
    def _do(self, pair: Pair, group: list[Wished]) -> None:
        """Do a turn's work for wishes about one frame, in the worker's thread.

        Those that have no result then wait for the next turn; where the worker is stopped, they are cancelled.
        """

    def ask(self, wish: Wished) -> None:
        """Queue a wish; its result comes, or an error, or it is cancelled when the worker is stopped."""
        with self._lock:
            self._waiting.append(wish)
        self._want_turn()

    def _want_turn(self) -> None:
        with self._lock:
            if self._turn is not None or not self._waiting:
                return
            self._turn = turn = self._worker.ask(self._take_turn)
        # Outside of the lock: a turn that is cancelled already calls back at once.
        turn.add_done_callback(self._turn_over)

    def _turn_over(self, turn: Future[None]) -> None:
        with self._lock:
            self._turn = None
            given_up = self._waiting if turn.cancelled() else []
            if turn.cancelled():
                self._waiting = []
        for wish in given_up:
            wish.result.cancel()
        self._want_turn()

    def _take_turn(self) -> None:
        with self._lock:
            wishes = [wish for wish in self._waiting if not wish.result.done()]
        group = self._together(wishes)
        try:
            if group and group[0].pair is not None:
                self._do(group[0].pair, group)
        except Exception as error:
            for wish in group:
                wish.fail(error)
        finally:
            with self._lock:
                waiting = [wish for wish in self._waiting if not wish.result.done()]
                others = [wish for wish in waiting if wish not in group]
                self._waiting = others + [wish for wish in waiting if wish in group]

    def _together(self, wishes: list[Wished]) -> list[Wished]:
        """The wish that has waited longest, and those that go with it."""
        if not wishes:
            return []
        newest, first = self._frames.newest, wishes[0]
        pair = first.pair or newest
        if pair is None:
            first.fail(ValueError("no frame is kept any more: check the image and camera_info topics"))
            return []
        group = [wish for wish in wishes if (wish.pair or newest) is pair and wish.kind == first.kind]
        for wish in group:
            wish.pair = pair
        return group
