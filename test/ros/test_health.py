"""Counters and diagnostics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.ros import health as health_module
from depthlm_ros.ros.health import Health

OK, UNDRAWABLE, NO_NUMBER = AnswerStatus.OK, AnswerStatus.UNDRAWABLE, AnswerStatus.NO_NUMBER


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(health_module, "time", clock)
    return clock


def sparse(*status: AnswerStatus) -> SparseDepth:
    count = len(status)
    numbers = np.where(np.array(status) == OK, 2.0, np.nan).astype(np.float32)
    return SparseDepth(
        pixels=np.stack([np.arange(count), np.arange(count)], axis=1),
        depth=numbers,
        sigma=numbers,
        confidence=numbers,
        status=np.array(status, np.uint8),
        rgb=np.zeros((count, 3), np.uint8),
        camera=PinholeCamera.from_intrinsics(10.0, 10.0, 3.5, 2.5, 8, 6),
        model="test",
    )


def level(health: Health, state: str = "active") -> tuple[bytes, str]:
    status = health.diagnostics(Time(), "depthlm: depth", state, 2.0, 5.0).status[0]
    return status.level, status.message


def test_points_are_counted_by_what_became_of_them(clock: Clock) -> None:
    health = Health(print)
    health.frame_arrived()
    health.answered_frame(sparse(OK, OK, UNDRAWABLE, NO_NUMBER), 0.5)
    assert health.counters() == {
        "frames_in": 1, "frames_answered": 1, "frames_dropped": 0, "points_asked": 3, "points_answered": 2,
    }  # fmt: skip
    assert dict(health.failed_points) == {"undrawable": 1, "no_number": 1}


def test_one_success_long_ago_is_not_health(clock: Clock) -> None:
    health = Health(print)
    assert level(health, "inactive")[0] == DiagnosticStatus.WARN
    health.frame_arrived()
    assert level(health) == (DiagnosticStatus.WARN, "no frame answered yet")
    health.answered_frame(sparse(OK), 0.5)
    assert level(health) == (DiagnosticStatus.OK, "answering")
    for _ in range(60):
        clock.now += 1.0
        health.frame_arrived()
        health.dropped_frame("engine", "the server is gone")
    assert level(health) == (
        DiagnosticStatus.ERROR,
        "no frame answered for 60 s; the last was dropped as engine",
    )
    clock.now += 3.0
    assert level(health)[0] == DiagnosticStatus.WARN


def test_the_frame_rate_is_told(clock: Clock) -> None:
    health = Health(print)
    for _ in range(11):
        health.frame_arrived()
        clock.now += 0.1
    values = health.diagnostics(Time(), "n", "active", 2.0, 5.0).status[0].values
    assert float({v.key: v.value for v in values}["frame_rate_hz"]) == pytest.approx(10.0)


def test_a_complaint_is_logged_once_in_a_while_and_counted_always(clock: Clock) -> None:
    said: list[str] = []
    health = Health(said.append)
    for _ in range(5):
        health.dropped_frame("bad_image", "short data")
    health.dropped_frame("stale", "old")
    assert len(said) == 2
    assert health.dropped["bad_image"] == 5
    clock.now += health_module.SAY_AGAIN_S
    health.dropped_frame("bad_image", "short data")
    assert len(said) == 3


def test_the_engines_own_words_are_logged(clock: Clock) -> None:
    said: list[str] = []
    health = Health(said.append)
    health.answered_frame(replace(sparse(OK, NO_NUMBER), error="the logits are not finite"), 0.1)
    assert "the logits are not finite" in said[0]


def test_what_the_engine_says_of_itself_stands_beside_the_counters(clock: Clock) -> None:
    health = Health(lambda text: None)
    array = health.diagnostics(Time(), "n", "active", 2.0, 5.0, {"server/0": "http://gpu:8000 answering"})
    values = {value.key: value.value for value in array.status[0].values}
    assert values["engine/server/0"] == "http://gpu:8000 answering"
    assert values["state"] == "active"
