"""Which frames are kept to answer callers from."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from toy_node import pair_at

from depthlm_ros.ros.messages import stamp_ns
from depthlm_ros.ros.recent import KEPT, RecentFrames


def test_answered_frames_are_kept_for_a_while_and_only_so_many() -> None:
    frames = RecentFrames()
    assert (frames.newest, frames.oldest, frames.find(10**9)) == (None, None, None)
    pairs = [pair_at(1 + k / 4, k / 4) for k in range(40)]  # 10 s at 4 Hz
    for pair in pairs:
        frames.see(pair)
        frames.keep(pair, 2.0)
    kept = [pair for pair in pairs if frames.find(stamp_ns(pair.header)) is pair]
    assert kept == pairs[-9:]  # the newest and 2 s before it
    assert frames.oldest is pairs[-9]
    for pair in pairs:
        frames.keep(pair, 1000.0)
    assert [pair for pair in pairs if frames.find(stamp_ns(pair.header)) is pair] == pairs[-KEPT:]
    frames.clear()
    assert (frames.newest, frames.oldest) == (None, None)


def test_the_newest_frame_is_found_unanswered_and_is_no_older_frame() -> None:
    frames = RecentFrames()
    only = pair_at(1.0, 0.0)
    frames.see(only)
    assert frames.newest is frames.find(10**9) is only
    assert frames.oldest is None
    frames.keep(only, 2.0)
    assert frames.oldest is None
