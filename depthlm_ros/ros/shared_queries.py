"""Depth queries of all callers: those that wait together about one frame go to the engine together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.engines.base import EngineError
from depthlm_ros.estimator import PreparedFrame
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair
from depthlm_ros.ros.recent import RecentFrames
from depthlm_ros.ros.shared import Shared, Wish
from depthlm_ros.ros.worker import NewestFirstWorker
from depthlm_ros.sampling import Pixels, unique_pixels

Pixel = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a caller gets.

    Attributes:
        pair: The frame that was asked.
        sparse: One entry per distinct pixel of the query; what was not answered in time, or only when the frame was
            too old, is NaN with ``DEADLINE``.
    """

    pair: Pair
    sparse: SparseDepth


@dataclass(eq=False)
class Query(Wish[Measured]):
    """Pixels that a caller wants measured.

    Attributes:
        pixels: Source pixels, shape (N, 2).
    """

    pixels: Pixels

    def __post_init__(self) -> None:
        self.left: dict[Pixel, None] = dict.fromkeys(map(tuple, unique_pixels(self.pixels).tolist()))
        self._parts: list[SparseDepth] = []
        self.frame: PreparedFrame | None = None
        self.asking: frozenset[Pixel] = frozenset()

    @property
    def begun(self) -> bool:
        """Whether something of it was answered in time."""
        return bool(self._parts)

    def take(self, sparse: SparseDepth) -> None:
        """Take what was answered of this query's pixels; once it has a result, nothing."""
        with self.lock:
            self.asking = frozenset()
            if self.result.done():
                return
            own = [pixel for pixel in map(tuple, sparse.pixels.tolist()) if pixel in self.left]
            if own:
                self._parts.append(sparse.at(own))
            for pixel in own:
                del self.left[pixel]

    def finish(self, pair: Pair) -> None:
        """Hand over what was taken, unless it has a result."""
        with self.lock:
            if not self.result.done():
                self.tell(Measured(pair, SparseDepth.joined(self._parts)))


class SharedQueries(Shared[Query]):
    """Has the worker ask the pixels of waiting queries, one chunk a turn, one pixel of each caller in turn."""

    def __init__(
        self,
        worker: NewestFirstWorker[Pair],
        pipeline: FramePipeline,
        frames: RecentFrames,
        health: Health,
    ) -> None:
        """Begin with nothing.

        Args:
            worker: Gives the turns.
            pipeline: Asks.
            frames: Knows the newest frame.
            health: Counts the points, once however many callers share them.
        """
        super().__init__(worker, pipeline, frames)
        self._health = health

    def hand_over(self, query: Query) -> None:
        """Give a caller whose time is over what is answered, in its thread: the next turn may be a chunk away.

        Where nothing is answered yet, the query is left as it is.
        """
        with query.lock:
            pair, frame = query.pair, query.frame
            if pair is None or frame is None or not query.begun:
                return
            try:
                self._pipeline.refuse_late(pair, query.stream)
            except FrameRefusedError as error:
                self._end([query], pair, error)
            else:
                self._give_up([query], pair, frame)

    def _do(self, pair: Pair, group: list[Query]) -> None:
        stream = group[0].stream
        try:
            frame = self._pipeline.prepare(pair, stream)
        except FrameRefusedError as error:
            self._end(group, pair, error)
            return
        asking = []
        for query in group:
            try:
                self._pipeline.refuse_outside(frame, query.pixels)
            except FrameRefusedError as error:
                query.fail(error)
            else:
                query.frame = frame
                asking.append(query)
        now = time.monotonic()
        late = [query for query in asking if query.deadline < now]
        self._give_up(late, pair, frame)
        asking = [query for query in asking if query not in late]
        if not asking:
            return
        # Copies: a caller whose time is over takes its pixels away meanwhile.
        pixels = list(islice(in_turn([list(query.left) for query in asking]), stream.chunk_points))
        if not pixels:
            return
        chunk = np.array(pixels, dtype=np.int64)
        for query in asking:
            query.asking = frozenset(pixels)
        deadline = self._pipeline.useful_until(pair, stream, max(query.deadline for query in asking))
        try:
            sparse = self._pipeline.measure(frame, chunk, deadline=deadline)
        except EngineError as error:
            for query in asking:
                query.fail(error)
            return
        if self._worker.stopping:
            return
        self._health.asked_points(sparse)
        try:
            self._pipeline.refuse_late(pair, stream)
        except FrameRefusedError as error:
            self._end(asking, pair, error)
            return
        for query in asking:
            query.take(sparse)
            if not query.left:
                query.finish(pair)

    def _end(self, queries: list[Query], pair: Pair, error: FrameRefusedError) -> None:
        """Refuse a frame; where it merely grew too old, what was answered before that counts."""
        for query in queries:
            if error.reason in ("stale", "late") and query.begun and query.frame is not None:
                self._give_up([query], pair, query.frame)
            else:
                query.fail(error)

    def _give_up(self, queries: list[Query], pair: Pair, frame: PreparedFrame) -> None:
        for query in queries:
            with query.lock:
                if query.result.done():
                    continue
                rest = self._pipeline.unasked(frame, np.array(list(query.left)), AnswerStatus.DEADLINE)
                # What the engine is just being asked is counted by what becomes of it.
                self._health.asked_points(
                    rest.at([pixel for pixel in query.left if pixel not in query.asking])
                )
                query.take(rest)
                query.finish(pair)


def in_turn(pixels: Iterable[Iterable[Pixel]]) -> Iterator[Pixel]:
    """The pixels of several callers, one of each in turn, none twice.

    So who asks little does not wait for who asks much.
    """
    seen: set[Pixel] = set()
    for row in zip_longest(*pixels):
        for pixel in row:
            if pixel is not None and pixel not in seen:
                seen.add(pixel)
                yield pixel
