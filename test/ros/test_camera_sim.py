"""The demo's camera says where it stands, where that is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped

from depthlm_ros.config import ConfigError
from depthlm_ros.ros.camera_sim import CameraSim, transforms
from depthlm_ros.ros.transforms import pose_matrix
from depthlm_ros.synthetic import Pose

SENT: list[TransformStamped] = []


class Broadcaster:
    """What is used of tf2_ros, which is no wheel."""

    def __init__(self, node: Any) -> None:
        SENT.clear()

    def sendTransform(self, given: list[TransformStamped]) -> None:  # noqa: N802
        SENT.extend(given)


@pytest.fixture
def ros() -> Iterator[None]:
    arguments = (
        "scenes:=1",
        "frames_per_scene:=3",
        "broadcast_tf:=true",
        "width:=32",
        "height:=24",
        "focal_px:=28.0",
    )
    rclpy.init(args=["--ros-args", *(word for a in arguments for word in ("-p", a))])
    yield
    rclpy.try_shutdown()


def test_the_two_transforms_together_are_the_cameras_pose() -> None:
    pose = Pose(1.5, -2.0, 0.7, yaw=2.1, pitch=0.2, roll=-0.1)
    robot, camera = transforms(pose, Time(sec=7))
    assert [(t.header.frame_id, t.child_frame_id) for t in (robot, camera)] == [
        ("odom", "base_link"), ("base_link", "camera_optical_frame"),
    ]  # fmt: skip
    assert robot.header.stamp == camera.header.stamp == Time(sec=7)
    base = pose_matrix(robot.transform)
    # It stands upright on the floor.
    np.testing.assert_allclose(base[2], [0.0, 0.0, 1.0, 0.0], atol=1e-12)
    whole = base @ pose_matrix(camera.transform)
    np.testing.assert_allclose(whole[:3, 3], [1.5, -2.0, 0.7], atol=1e-12)
    np.testing.assert_allclose(whole[:3, :3], pose.rotation, atol=1e-12)


def test_a_level_camera_is_mounted_as_rep_103_says() -> None:
    turn = transforms(Pose(0.0, 0.0, 0.4), Time())[1].transform.rotation
    found = np.array([turn.x, turn.y, turn.z, turn.w])
    np.testing.assert_allclose(found * np.sign(found[3]), [-0.5, 0.5, -0.5, 0.5], atol=1e-12)


@pytest.mark.usefixtures("ros")
def test_every_image_comes_with_the_pose_that_it_was_rendered_from(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tf2_ros")
    module.TransformBroadcaster = Broadcaster  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    camera, images = CameraSim(), []
    try:
        monkeypatch.setattr(camera._image_pub, "publish", images.append)
        poses = [next(camera._views)[1] for _ in range(3)]
        for _ in range(3):
            camera._publish()
    finally:
        camera.destroy_node()
    for pose, image, robot in zip(poses, images, SENT[::2], strict=True):
        assert robot.header.stamp == image.header.stamp
        assert (robot.transform.translation.x, robot.transform.translation.y) == (pose.x, pose.y)


@pytest.mark.usefixtures("ros")
def test_without_tf2_the_camera_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(ConfigError, match=r"broadcast_tf is set, which needs tf2_ros.*tf2-ros-py"):
        CameraSim()
