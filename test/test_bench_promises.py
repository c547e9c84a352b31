"""What is promised of the bench's records: hand-made records that keep it, and such that break it in one thing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from depthlm_ros.bench.promises import (
    LEAST_RATIO,
    MOST_GROWTH,
    MOST_POWER,
    MOST_SLOPE,
    OUTSIDE_BOUND,
    SMALL_THREADS,
    SOAK_FRAMES,
    other_size,
    promises,
    unkept,
)
from depthlm_ros.bench.sweep import SIZES


def compare_record(shape, **changed):
    """A compare record that just keeps everything."""
    least = {"small": (1.3, 15.0), "3b": (5.0, 30.0)}.get(shape, (1.0, 1.0))
    record = {
        "kind": "compare",
        "shape": {"name": shape},
        "points": 64,
        "width": 1280,
        "height": 720,
        "machine": {"device": "cuda" if shape == "3b" else "cpu", "threads": 2},
        "ratio": dict(zip(("marker", "text"), least, strict=True)),
        "outside_engine_share_of": {"marker": 0.05, "text": 0.05},
    }
    return record | changed


def sweep_record(power, **changed):
    """A sweep record whose time grows with a power of the points."""
    rows = [
        {"points": n, "marker": {"frame_s": n**power}, "text": {"frame_s": 1.0 + n}} for n in (1, 8, 64, 512)
    ]
    sizes = [{"width": width, "height": height} for width, height in SIZES]
    return {"kind": "sweep", "shape": {"name": "embedded"}, "by_points": rows, "by_size": sizes} | changed


def soak_record(growth_mb, slope, **changed):
    """A soak record with 500 MB after a quarter of its frames."""
    record = {
        "kind": "soak",
        "shape": {"name": "embedded"},
        "frames": 2000,
        "resident_mb": [[0, 400.0], [490, 480.0], [500, 500.0], [2000, 500.0 + growth_mb]],
        "growth_mb": growth_mb,
        "growth_mb_per_1000_frames": slope,
    }
    return record | changed


@pytest.mark.parametrize(
    "record",
    [
        compare_record("small"),
        compare_record("3b"),
        compare_record("embedded"),
        sweep_record(1.0),
        sweep_record(1.09),
        sweep_record(0.8),
        soak_record(4.9, 2.4),
        soak_record(-3.0, -2.0),
    ],
)
def test_a_good_record_keeps_what_is_promised(record):
    assert unkept(record) == []
    assert promises(record)
    assert all("(kept)" in str(promise) for promise in promises(record))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (compare_record("small", ratio={"marker": 1.29, "text": 15.0}), "ratio of `marker`"),
        (compare_record("small", ratio={"marker": 1.3, "text": 14.9}), "ratio of `text`"),
        (compare_record("3b", ratio={"marker": 4.9, "text": 30.0}), "ratio of `marker`"),
        (compare_record("3b", ratio={"marker": 5.0, "text": 29.0}), "ratio of `text`"),
        (compare_record("small", ratio={"marker": math.nan, "text": 15.0}), "ratio of `marker`"),
        (compare_record("small", outside_engine_share_of={"marker": 0.0, "text": 0.06}), "engine in `text`"),
        (compare_record("3b", outside_engine_share_of={"marker": 0.06, "text": 0.0}), "engine in `marker`"),
        (
            compare_record("embedded", outside_engine_share_of={"marker": 0.06, "text": 0.0}),
            "engine in `marker`",
        ),
        (sweep_record(1.11), "from 64 to 512 points in `marker`"),
        (soak_record(5.1, 1.0), "to the end"),
        (soak_record(1.0, 2.6), "per 1000"),
    ],
)
def test_a_record_that_breaks_one_promise_is_told_which(record, says):
    found = unkept(record)
    assert len(found) == 1
    assert says in found[0]
    assert "**missed**" in found[0]


def test_the_one_miss_that_is_known_is_said_and_fails_nothing():
    record = compare_record("embedded", outside_engine_share_of={"marker": 0.03, "text": 0.26})
    assert unkept(record) == []
    assert [str(promise) for promise in promises(record) if not promise.kept] == [
        "share of a frame outside of the engine in `text` at most 5.0%, found 26.0% (**missed**)"
    ]


@pytest.mark.parametrize(
    "record",
    [
        compare_record("tiny"),
        compare_record("small", points=32),
        compare_record("small", width=640, height=480),
        compare_record("small", machine={"device": "cuda", "threads": 2}),
        compare_record("small", machine={"device": "cpu", "threads": 8}),
        compare_record("3b", machine={"device": "cpu", "threads": 2}),
        sweep_record(1.0, by_points=sweep_record(1.0)["by_points"][:-1]),
        sweep_record(1.0, by_size=[]),
        soak_record(0.0, 0.0, frames=1999),
    ],
)
def test_a_record_of_another_size_keeps_nothing(record):
    assert unkept(record) == [other_size(record)]


def test_the_document_names_the_bounds_that_are_judged():
    text = (Path(__file__).parents[1] / "docs" / "performance.md").read_text()
    small, large = LEAST_RATIO["small"], LEAST_RATIO["3b"]
    assert SMALL_THREADS == 2
    for words in (
        "`small.json`, two CPU threads",
        f"`marker` at least {small['marker']:g} times as fast as the official procedure",
        f"`text` {small['text']:g} times",
        f"{large['marker']:g} and {large['text']:g} times",
        f"no more than {100 * OUTSIDE_BOUND:g} % of a frame outside of the engine",
        f"at most the power {MOST_POWER:g} of the points",
        f"from a quarter of {SOAK_FRAMES} frames to the end",
        f"no more than {100 * MOST_GROWTH:g} %, and",
        f"no more than {100 * MOST_SLOPE:g} % per 1000",
    ):
        assert words in text
