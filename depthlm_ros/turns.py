"""A frame asked in turns: chunk after chunk, others in between, until its pixels or its budget are spent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy.typing as npt

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.estimator import DepthEstimator, PreparedFrame
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.sampling import unique_pixels


@dataclass(frozen=True)
class Budget:
    """What a frame may cost.

    Attributes:
        chunk_points: Pixels that are asked at once.
        points: The most pixels to ask; 0 asks all.
        left_s: Says how many seconds are left; looked at before each chunk.
    """

    chunk_points: int
    points: int = 0
    left_s: Callable[[], float] = lambda: math.inf


def ask_in_turns(
    estimator: DepthEstimator, frame: PreparedFrame, pixels: npt.ArrayLike, budget: Budget
) -> Generator[None, None, SparseDepth]:
    """Ask pixels in the order given, chunk by chunk, and hand the turn over between chunks.

    A chunk is not begun when the one before it took longer than the time that is left. The first one always is, so
    that a frame on which nothing else presses has answers however slow the engine.

    Args:
        estimator: Asks.
        frame: The frame.
        pixels: Source pixels as (u, v), shape (N, 2), the most valuable first; repeated ones are asked once.
        budget: When to stop.

    Yields:
        Nothing, between two chunks.

    Returns:
        One entry per distinct pixel, in order; what was not asked any more is NaN with ``OVER_BUDGET``.

    Raises:
        EngineError: The engine as a whole failed.
    """
    uv = unique_pixels(pixels)
    most = min(len(uv), budget.points or len(uv))
    parts: list[SparseDepth] = []
    asked, took_s = 0, 0.0
    while asked < most:
        if parts:
            yield
        begun = time.monotonic()
        left_s = budget.left_s()
        if parts and took_s > left_s:
            break
        chunk = uv[asked : min(asked + budget.chunk_points, most)]
        parts.append(estimator.ask(frame, chunk, deadline=begun + left_s))
        asked += len(chunk)
        took_s = time.monotonic() - begun
    return SparseDepth.joined([*parts, estimator.unasked(frame, uv[asked:], AnswerStatus.OVER_BUDGET)])
