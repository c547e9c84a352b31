"""What the node counts, over which time, and what it repeats in the log."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from health_toys import NO_NUMBER, OK, UNDRAWABLE, Clock, sparse

from depthlm_ros.ros import health as health_module
from depthlm_ros.ros.health import Counts, Health


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(health_module, "time", clock)
    return clock


def test_points_are_counted_by_what_became_of_them(clock: Clock) -> None:
    health = Health(print)
    health.image_arrived()
    health.frame_arrived()
    health.answered_frame(sparse(OK, OK, UNDRAWABLE, NO_NUMBER), 0.5)
    assert health.counters() == {
        "frames_in": 1, "frames_answered": 1, "frames_dropped": 0, "points_asked": 3, "points_answered": 2,
    }  # fmt: skip
    assert health.total == Counts(
        images_in=1, frames_in=1, frames_answered=1, points_asked=3, points_answered=2,
        failed_points={"undrawable": 1, "no_number": 1},
    )  # fmt: skip


def test_what_is_recent_reaches_as_far_back_as_the_window(clock: Clock) -> None:
    health = Health(print)
    for second in range(30):
        clock.now += 1.0
        health.frame_arrived()
        if second < 20:
            health.dropped_frame("stale")
        else:
            health.answered_frame(sparse(OK), float(second))
        recent = health.snapshot(5.0)
    assert recent.total.frames_in == 30
    assert recent.total.dropped == {"stale": 20}
    assert (recent.span_s, recent.recent.frames_in, recent.recent.points_asked) == (5.0, 5, 5)
    assert recent.recent.dropped == {}
    assert recent.latencies_s == (24.0, 25.0, 26.0, 27.0, 28.0, 29.0)
    assert (recent.frame_age_s, recent.success_age_s, recent.age_s) == (0.0, 0.0, 30.0)


def test_the_window_begins_no_earlier_than_the_activation(clock: Clock) -> None:
    health = Health(print)
    health.frame_arrived()
    clock.now += 100.0
    health.reset()
    clock.now += 2.0
    health.frame_arrived(0.25)
    now = health.snapshot(10.0)
    assert (now.span_s, now.recent.frames_in, now.total.frames_in) == (2.0, 1, 1)
    assert (now.stamp_age_s, now.success_age_s, now.frame_rate_hz) == (0.25, None, None)


def test_the_frame_rate_is_that_of_the_frames_in_the_window(clock: Clock) -> None:
    health = Health(print)
    for _ in range(100):
        health.frame_arrived()
        clock.now += 1.0
    for _ in range(50):
        health.frame_arrived()
        clock.now += 0.1
    assert health.snapshot(4.0).frame_rate_hz == pytest.approx(10.0)


def test_the_engine_fails_until_it_answers_again(clock: Clock) -> None:
    health = Health(lambda _: None)
    states = [health.snapshot(1.0)]
    health.engine_is("ready")
    health.dropped_frame("engine", "the server is gone")
    states.append(health.snapshot(1.0))
    health.answered_frame(sparse(OK), 0.1)
    states.append(health.snapshot(1.0))
    health.answered_frame(replace(sparse(OK, NO_NUMBER), error="one request was refused"), 0.1)
    states.append(health.snapshot(1.0))
    health.asked_points(sparse(NO_NUMBER))
    states.append(health.snapshot(1.0))
    assert [(state.engine, state.engine_error) for state in states] == [
        ("none", ""),
        ("failing", "the server is gone"),
        ("ready", ""),
        ("failing", "one request was refused"),
        ("failing", "one request was refused"),
    ]


def test_a_complaint_is_logged_once_in_a_while_and_counted_always(clock: Clock) -> None:
    said: list[str] = []
    health = Health(said.append)
    for _ in range(5):
        health.dropped_frame("bad_image", "short data")
    health.dropped_frame("stale", "old")
    assert len(said) == 2
    assert health.total.dropped["bad_image"] == 5
    clock.now += health_module.SAY_AGAIN_S
    health.dropped_frame("bad_image", "short data")
    assert len(said) == 3


def test_the_engines_own_words_are_logged(clock: Clock) -> None:
    said: list[str] = []
    health = Health(said.append)
    health.answered_frame(replace(sparse(OK, NO_NUMBER), error="the logits are not finite"), 0.1)
    assert "the logits are not finite" in said[0]
