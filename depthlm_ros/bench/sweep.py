"""How the time of a frame grows with its points and with the camera's image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from depthlm_ros.bench.compare import SCHEMA, Say, choose_pixels, setting, warm_up
from depthlm_ros.bench.contest import ARMS, Contest, Run
from depthlm_ros.bench.frames import BenchFrame, write_frames
from depthlm_ros.bench.official import ENOUGH

POINTS = (1, 8, 64, 512)
SIZES = ((320, 240), (640, 480), (1280, 720), (1920, 1080))
POINTS_PER_SIZE = 16


def sweep(
    contest: Contest,
    say: Say,
    *,
    points: Sequence[int] = POINTS,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> dict[str, Any]:
    """Time all procedures over numbers of points, and over sizes of the image at one field of view.

    Args:
        contest: The opened procedures.
        say: Called with what runs and how many queries it has answered since the last call.
        points: Numbers of points, at the size of the options.
        sizes: Sizes (width, height) in pixels, at :data:`POINTS_PER_SIZE` points.

    Returns:
        The record: ``by_points`` and ``by_size``, a row per step with seconds per frame, queries/s and timed queries
        of each procedure; ``growth_exponent`` {marker, text}, the slope of log time over log points between the two
        largest numbers of points: 1 is linear.
    """
    options = contest.options
    (frame,) = _frames(contest, options.width, options.height)
    pixels = choose_pixels(contest, frame, max(points))
    warm_up(contest, frame, pixels)
    by_points = []
    for count in points:
        by_points.append({"points": count, **_step(contest, frame, pixels[:count], say)})
    by_size = []
    for width, height in sizes:
        (frame,) = _frames(contest, width, height)
        chosen = choose_pixels(contest, frame, POINTS_PER_SIZE)
        warm_up(contest, frame, chosen)
        row = _step(contest, frame, chosen, say)
        by_size.append(
            {
                "width": width,
                "height": height,
                "image_patches": math.prod(contest.watches["ours"].grid),
                **row,
            }
        )
    return {
        "schema": SCHEMA,
        "kind": "sweep",
        **setting(contest),
        "by_points": by_points,
        "points_per_size": POINTS_PER_SIZE,
        "by_size": by_size,
        "growth_exponent": {arm: growth_exponent(by_points, arm) for arm in ARMS[1:]},
    }


def growth_exponent(rows: Sequence[dict[str, Any]], arm: str) -> float | None:
    """Slope of log time over log points between the two largest numbers of points; None with fewer than two."""
    if len(rows) < 2:
        return None
    few, many = sorted(rows, key=lambda row: int(row["points"]))[-2:]
    times = many[arm]["frame_s"] / few[arm]["frame_s"]
    return math.log(times) / math.log(many["points"] / few["points"])


def _frames(contest: Contest, width: int, height: int) -> list[BenchFrame]:
    return write_frames(contest.folder / f"sweep_{width}x{height}", width, height, 1)


def _step(
    contest: Contest, frame: BenchFrame, pixels: Sequence[tuple[int, int]], say: Say
) -> dict[str, dict[str, float]]:
    runs = {arm: Run() for arm in ARMS}
    contest.run_official(runs["official"], frame, pixels[:ENOUGH], lambda n: say("official", n))
    for arm in ARMS[1:]:
        contest.run_ours(arm, runs[arm], frame, pixels)
        say(arm, len(pixels))
    return {
        arm: {
            "frame_s": run.wall_s * len(pixels) / run.queries,
            "queries_per_s": run.queries / run.wall_s,
            "timed_queries": run.queries,
        }
        for arm, run in runs.items()
    }
