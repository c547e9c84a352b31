"""Many frames one after another: does the memory of the process grow?"""

from __future__ import annotations

from typing import Any

import numpy as np

from depthlm_ros.bench.compare import SCHEMA, Say, choose_pixels, setting
from depthlm_ros.bench.contest import ARMS, Contest, Run
from depthlm_ros.bench.frames import write_frames
from depthlm_ros.bench.memory import resident_mb

_FILES = 8
_PIXELS = 2000
_LOOKS = 200


def soak(contest: Contest, frames: int, say: Say) -> dict[str, Any]:
    """Answer frames with ``marker`` and ``text`` in turn, each read from its file anew, and watch the memory.

    Args:
        contest: The opened procedures; the official one is not used.
        frames: How many.
        say: Called with what runs and how many queries it has answered since the last call.

    Returns:
        The record: ``resident_mb`` as rows (frames so far, MB); ``warmup_mb``, by how much it grew in the first
        quarter of the frames; ``growth_mb``, from there to the end; ``growth_mb_per_1000_frames``, the slope of a
        straight line through those last three quarters.
    """
    options = contest.options
    files = write_frames(contest.folder / "soak", options.width, options.height, _FILES)
    # Other pixels every frame, as a robot asks them, so that whatever is kept per question has to be dropped too.
    pixels = choose_pixels(contest, files[0], max(_PIXELS, options.points))
    shift = np.random.default_rng(0).integers(0, len(pixels), frames + 1)
    every = max(1, frames // _LOOKS)
    seen = [(0, resident_mb())]
    for number in range(1, frames + 1):
        arm = ARMS[1 + number % 2]
        asked = [pixels[(shift[number] + k) % len(pixels)] for k in range(options.points)]
        contest.run_ours(arm, Run(), files[number % len(files)], asked)
        say(arm, len(asked))
        if number % every == 0 or number == frames:
            seen.append((number, resident_mb()))
    return {
        "schema": SCHEMA,
        "kind": "soak",
        **setting(contest),
        "frames": frames,
        "resident_mb": [[number, round(mb, 3)] for number, mb in seen],
        **growth(seen, frames),
    }


def growth(seen: list[tuple[int, float]], frames: int) -> dict[str, float]:
    """How memory grew while caches filled, and after that.

    Args:
        seen: (frames so far, MB), in order.
        frames: Frames in all.
    """
    late = np.array([row for row in seen if row[0] >= frames / 4], dtype=np.float64)
    slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) if len(late) > 1 else 0.0
    return {
        "warmup_mb": float(late[0, 1] - seen[0][1]),
        "growth_mb": float(late[-1, 1] - late[0, 1]),
        "growth_mb_per_1000_frames": 1000.0 * slope,
    }
