"""The frames that were seen last: the newest to answer from, and the last answered ones to compare it with."""

from __future__ import annotations

import threading
from collections import deque

from depthlm_ros.ros.messages import stamp_ns
from depthlm_ros.ros.pipeline import Pair

KEPT = 16
"""Answered frames that are kept; their messages stay in memory."""

HISTORY = 0.5
"""They are kept for this share of ``stream.max_age_s``: they must not be too old once it is their turn."""


class RecentFrames:
    """Keeps the newest frame, and those whose stamps callers have seen on the node's outputs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: Pair | None = None
        self._answered: deque[Pair] = deque(maxlen=KEPT)

    def see(self, pair: Pair) -> None:
        """Take in the newest frame."""
        with self._lock:
            self._newest = pair

    def keep(self, pair: Pair, span_s: float) -> None:
        """Keep a frame that was answered, and let go of those that came more than ``span_s`` seconds before it."""
        with self._lock:
            self._answered.append(pair)
            while pair.arrived - self._answered[0].arrived > span_s:
                self._answered.popleft()

    def clear(self) -> None:
        """Forget all frames."""
        with self._lock:
            self._newest = None
            self._answered.clear()

    @property
    def newest(self) -> Pair | None:
        """The newest frame, or None."""
        return self._newest

    @property
    def oldest(self) -> Pair | None:
        """The oldest answered frame that is kept, or None where none was answered but the newest."""
        with self._lock:
            oldest = self._answered[0] if self._answered else None
            return None if oldest is self._newest else oldest

    def find(self, stamp: int) -> Pair | None:
        """The frame of an image's stamp in nanoseconds, or None."""
        with self._lock:
            frames = [*self._answered, *([self._newest] if self._newest is not None else [])]
        return next((pair for pair in reversed(frames) if stamp_ns(pair.header) == stamp), None)
