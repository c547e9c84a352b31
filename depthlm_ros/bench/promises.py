"""What this project promises of the records of ``docs/performance.md``, and whether a record keeps it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from depthlm_ros.bench.contest import ARMS
from depthlm_ros.bench.sweep import POINTS, SIZES, growth_exponent
from depthlm_ros.config import EMBEDDED

LEAST_RATIO = {
    "small": {"marker": 1.3, "text": 15.0},
    "3b": {"marker": 5.0, "text": 30.0},
    EMBEDDED: {},
}
"""{shape: {arm: how many times as fast as the official procedure it is at least}}."""
POINTS_A_FRAME, CAMERA = 64, (1280, 720)
SMALL_THREADS = 2
"""With more, the matrix products get quicker and the rest does not."""

OUTSIDE_BOUND = 0.05
"""The share of a frame of 64 points that may be spent outside of the engine."""
WAIVED_OUTSIDE = (EMBEDDED, "text")
"""Shape and arm that miss it, which is said but fails no test: beside so fast a query, opening the file weighs."""

MOST_POWER = 1.1
"""Of the points, with which a frame's time grows from 64 to 512 of them; 1 is linear, and time is noisy."""
POWER_POINTS = POINTS[-2:]

SOAK_FRAMES = 2000
MOST_GROWTH = 0.01
"""Of the memory that is resident after a quarter of the frames, what may be added from there to the end."""
MOST_SLOPE = 0.005
"""Of the same, what a straight line through those frames may add per 1000: it hangs less on two single looks."""


@dataclass(frozen=True)
class Promise:
    """One promise and what a record says of it.

    Attributes:
        what: What is bounded.
        found: What the record has.
        bound: What is promised.
        least: Whether the bound is the least, not the most.
        form: How both are written.
        waived: Whether it is known to be missed and only said.
    """

    what: str
    found: float
    bound: float
    least: bool = False
    form: str = ".2f"
    waived: bool = False

    @property
    def kept(self) -> bool:
        """Whether the record keeps it; what is no number keeps nothing."""
        return self.found >= self.bound if self.least else self.found <= self.bound

    def __str__(self) -> str:
        """In words."""
        word, verdict = "at least" if self.least else "at most", "kept" if self.kept else "**missed**"
        return f"{self.what} {word} {self.bound:{self.form}}, found {self.found:{self.form}} ({verdict})"


def unkept(record: dict[str, Any]) -> list[str]:
    """In words, what a record does not keep; one of another size than the promised one keeps nothing."""
    other = other_size(record)
    return [other] if other else [str(p) for p in promises(record) if not p.kept and not p.waived]


def other_size(record: dict[str, Any]) -> str:
    """Why nothing is promised of a record; empty where something is."""
    kind, shape = record["kind"], record["shape"]["name"]
    if kind == "soak":
        frames = record["frames"]
        return "" if frames >= SOAK_FRAMES else f"promised of {SOAK_FRAMES} frames, not of {frames}"
    if kind == "sweep":
        points = {row["points"] for row in record["by_points"]}
        sizes = {(row["width"], row["height"]) for row in record["by_size"]}
        whole = points >= set(POINTS) and sizes >= set(SIZES)
        return "" if whole else f"promised of {POINTS} points and of cameras {SIZES}, not of fewer"
    if shape not in LEAST_RATIO:
        return f"nothing is promised of the shape {shape}"
    if (record["points"], record["width"], record["height"]) != (POINTS_A_FRAME, *CAMERA):
        return f"promised of {POINTS_A_FRAME} points of a camera of {CAMERA}"
    device = "cuda" if shape == "3b" else "cpu"
    if record["machine"]["device"] != device:
        return f"promised of {shape} on {device}, not on {record['machine']['device']}"
    threads = record["machine"]["threads"]
    if shape == "small" and threads != SMALL_THREADS:
        return f"promised of {SMALL_THREADS} CPU threads, not of {threads}"
    return ""


def promises(record: dict[str, Any]) -> list[Promise]:
    """What is promised of a record of the promised size; see :func:`other_size`."""
    return {"compare": _compare, "sweep": _sweep, "soak": _soak}[record["kind"]](record)


def _compare(record: dict[str, Any]) -> list[Promise]:
    shape = record["shape"]["name"]
    ratios = [
        Promise(f"ratio of `{arm}` to official", record["ratio"][arm], least, least=True)
        for arm, least in LEAST_RATIO[shape].items()
    ]
    outside = [
        Promise(
            f"share of a frame outside of the engine in `{arm}`",
            record["outside_engine_share_of"][arm],
            OUTSIDE_BOUND,
            form=".1%",
            waived=(shape, arm) == WAIVED_OUTSIDE,
        )
        for arm in ARMS[1:]
    ]
    return ratios + outside


def _sweep(record: dict[str, Any]) -> list[Promise]:
    rows = [row for row in record["by_points"] if row["points"] in POWER_POINTS]
    few, many = POWER_POINTS
    powers = {arm: growth_exponent(rows, arm) for arm in ARMS[1:]}
    return [
        Promise(
            f"power of growth from {few} to {many} points in `{arm}`",
            math.nan if power is None else power,
            MOST_POWER,
        )
        for arm, power in powers.items()
    ]


def _soak(record: dict[str, Any]) -> list[Promise]:
    rest = next(mb for number, mb in record["resident_mb"] if number >= record["frames"] / 4)
    return [
        Promise(
            "resident memory added from a quarter of the frames to the end",
            record["growth_mb"] / rest,
            MOST_GROWTH,
            form=".2%",
        ),
        Promise(
            "added per 1000 of those frames by a straight line",
            record["growth_mb_per_1000_frames"] / rest,
            MOST_SLOPE,
            form=".2%",
        ),
    ]
