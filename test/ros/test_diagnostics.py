"""The node's diagnostics: names, levels against thresholds, and the values beside them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from depthlm_ros.config import ConfigError, DiagnosticsConfig, StreamConfig
from depthlm_ros.ros.diagnostics import Watched, diagnostics
from depthlm_ros.ros.health import Counts, Snapshot

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

WELL = Snapshot(
    total=Counts(images_in=500, frames_in=500, frames_answered=400, points_asked=4000, points_answered=3900,
                 dropped=Counter(newer=100), failed_points=Counter(no_number=90, deadline=10)),
    recent=Counts(images_in=100, frames_in=100, frames_answered=20, points_asked=200, points_answered=190,
                  dropped=Counter(newer=80), failed_points=Counter(no_number=10)),
    span_s=10.0, frame_age_s=0.1, success_age_s=0.4, age_s=50.0, frame_rate_hz=10.0, latencies_s=(0.2,) * 20,
    stamp_age_s=0.02, last_drop="newer", engine="ready", engine_error="",
)  # fmt: skip
"""A camera of 10 Hz, and an engine that answers two frames a second with ten points each."""


def watched(*, state: str = "active", limits: dict[str, Any] | None = None, **changes: Any) -> Watched:
    return Watched(
        "robot/depthlm",
        state,
        replace(WELL, **changes),
        StreamConfig(),
        DiagnosticsConfig(**(limits or {})),
        {},
    )


def recent(**changes: Any) -> dict[str, Any]:
    return {"recent": replace(WELL.recent, **changes)}


def told(what: Watched) -> dict[str, tuple[bytes, str]]:
    names = {status.name: (status.level, status.message) for status in diagnostics(what, Time()).status}
    assert all(name.startswith("robot/depthlm: ") for name in names)
    return {name.removeprefix("robot/depthlm: "): verdict for name, verdict in names.items()}


def test_a_node_that_answers_is_ok_in_every_aspect() -> None:
    array = diagnostics(watched(), Time(sec=7))
    assert array.header.stamp == Time(sec=7)
    assert [status.name for status in array.status] == [
        "robot/depthlm: depth", "robot/depthlm: camera", "robot/depthlm: engine", "robot/depthlm: clock",
    ]  # fmt: skip
    assert {status.level for status in array.status} == {OK}
    assert {status.hardware_id for status in array.status} == {"depthlm"}
    keys = [value.key for status in array.status for value in status.values]
    assert len(keys) == len(set(keys))


def test_the_values_are_totals_rates_of_the_window_and_percentiles() -> None:
    what = replace(
        watched(latencies_s=tuple(i / 100 for i in range(101)), engine_error="busy", engine="failing"),
        engine={"server/0": "http://gpu:8000 answering"},
    )
    values = {v.key: v.value for status in diagnostics(what, Time()).status for v in status.values}
    assert values == {
        "state": "active",
        "images_in": "500", "frames_in": "500", "frames_answered": "400", "frames_dropped": "100",
        "dropped/newer": "100",
        "points_asked": "4000", "points_answered": "3900",
        "failed_points/no_number": "90", "failed_points/deadline": "10",
        "questions_asked": "0",
        "answered_rate_hz": "2.00", "queries_per_s": "20.00", "frame_rate_hz": "10.00",
        "latency_p50_s": "0.500", "latency_p95_s": "0.950", "latency_max_s": "1.000",
        "last_frame_age_s": "0.1", "last_success_age_s": "0.4",
        "engine_state": "failing", "engine_error": "busy", "engine/server/0": "http://gpu:8000 answering",
        "clock_jumps": "0", "bad_stamps": "0", "stamp_age_s": "0.020",
    }  # fmt: skip


CASES: dict[str, tuple[Watched, str, bytes, str]] = {
    "not active": (watched(state="inactive"), "depth", WARN, "not active (inactive)"),
    "not subscribed": (watched(state="inactive", frame_age_s=None), "camera", OK, "not subscribed"),
    "waiting": (watched(frame_age_s=None, age_s=1.0), "camera", WARN, "waiting for the first frame"),
    "stalled": (watched(frame_age_s=3.0), "camera", WARN, "no image with a CameraInfo for 3 s"),
    "stalled, so no answers": (watched(frame_age_s=3.0), "depth", WARN, "no frames from the camera"),
    "dead": (
        watched(frame_age_s=12.0, **recent(images_in=0)), "camera", ERROR, "no image for 12 s",
    ),
    "dead, later": (
        watched(frame_age_s=12.0, limits={"stall_error_s": 20.0}), "camera", WARN,
        "no image with a CameraInfo for 12 s",
    ),
    "slow camera": (
        watched(limits={"min_rate_hz": 15.0}), "camera", WARN, "10.0 Hz, less than diagnostics.min_rate_hz (15)",
    ),
    "unusable frames": (
        watched(**recent(dropped=Counter(bad_image=7, size_mismatch=4, stale=50))), "camera", WARN,
        "11 of 100 frames cannot be used (bad_image)",
    ),
    "frames that come twice": (
        watched(**recent(dropped=Counter(duplicate=50))), "camera", WARN,
        "50 of 100 frames cannot be used (duplicate)",
    ),
    "frames that come twice are answered": (
        watched(**recent(dropped=Counter(duplicate=50))), "depth", OK, "answering",
    ),
    "few unusable frames": (watched(**recent(dropped=Counter(bad_image=10))), "camera", OK, "frames arrive"),
    "silent": (
        watched(success_age_s=8.0, last_drop="engine"), "depth", ERROR,
        "no frame answered for 8 s; the last was dropped as engine",
    ),
    "silent from the start": (
        watched(success_age_s=None, age_s=8.0), "depth", ERROR,
        "no frame answered for 8 s; the last was dropped as newer",
    ),
    "silent, later": (
        watched(success_age_s=8.0, limits={"silence_error_s": 9.0}), "depth", OK, "answering",
    ),
    "nothing yet": (watched(success_age_s=None, age_s=4.0), "depth", WARN, "no frame answered yet"),
    "slow": (
        watched(latencies_s=(1.0,) * 18 + (4.0, 4.0)), "depth", WARN,
        "slow: 4.00 s from a frame to its depth (95th percentile)",
    ),
    "refused": (
        watched(**recent(dropped=Counter(newer=50, stale=20))), "depth", WARN, "20 of 100 frames were refused",
    ),
    "all refused": (
        watched(**recent(dropped=Counter(stale=95))), "depth", ERROR, "95 of 100 frames were refused",
    ),
    "replaced by newer ones": (watched(**recent(dropped=Counter(newer=99))), "depth", OK, "answering"),
    "points fail": (
        watched(**recent(points_answered=150)), "depth", WARN, "50 of 200 points got no depth",
    ),
    "points fail and are slow": (
        watched(latencies_s=(3.0,), **recent(points_answered=10)), "depth", ERROR,
        "190 of 200 points got no depth; slow: 3.00 s from a frame to its depth (95th percentile)",
    ),
    "obstacles withheld": (
        watched(**recent(withheld=Counter(unsure=5))), "depth", WARN,
        "5 of 20 answered frames gave no obstacles (unsure)",
    ),
    "all obstacles withheld": (
        watched(**recent(withheld=Counter(unsure=1, no_transform=19))), "depth", ERROR,
        "20 of 20 answered frames gave no obstacles (no_transform)",
    ),
    "few obstacles withheld": (
        watched(**recent(withheld=Counter(unsure=4))), "depth", OK, "answering",
    ),
    "obstacles that nobody uses": (
        watched(limits={"withheld_warn": 1.0, "withheld_error": 1.0}, **recent(withheld=Counter(unsure=20))),
        "depth", OK, "answering",
    ),
    "withheld long ago": (
        watched(total=replace(WELL.total, withheld=Counter(unsure=400))), "depth", OK, "answering",
    ),
    "no engine": (watched(engine="none"), "engine", OK, "not loaded"),
    "loading": (watched(engine="loading"), "engine", WARN, "loading"),
    "cannot start": (watched(engine="failed", engine_error="no such file"), "engine", ERROR, "no such file"),
    "failing": (watched(engine="failing", engine_error="gone"), "engine", ERROR, "gone"),
    "stale": (
        watched(**recent(dropped=Counter(stale=95))), "clock", ERROR,
        "95 of 100 frames were stamped by another clock or too late (stale)",
    ),
    "no /clock": (
        replace(watched(), clock_unset=True), "clock", ERROR, "use_sim_time is set but nothing came on /clock",
    ),
    "jumped": (watched(**recent(clock_jumps=1)), "clock", WARN, "the clock jumped"),
    "no times": (watched(**recent(bad_stamps=3)), "clock", WARN, "3 stamps are no times"),
    "late is not the clock's fault": (
        watched(**recent(dropped=Counter(late=95))), "clock", OK, "stamps fit this node's clock",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_aspect_has_its_level_and_one_sentence(name: str) -> None:
    what, aspect, level, message = CASES[name]
    assert told(what)[aspect] == (level, message)


@pytest.mark.parametrize("what", ["refused", "failed", "withheld"])
def test_an_error_must_not_come_before_its_warning(what: str) -> None:
    says = rf"diagnostics\.{what}_warn: expected at most diagnostics\.{what}_error"
    with pytest.raises(ConfigError, match=says):
        DiagnosticsConfig(**{f"{what}_warn": 0.5, f"{what}_error": 0.4})
