"""The height band of ~/obstacles: tf2's arithmetic, and a stand-in for tf2_ros, which is no wheel."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from graph import alone
from heard import Publishers
from lifecycle_msgs.msg import Transition
from std_msgs.msg import Header

from depthlm_ros.config import ConfigError, ObstaclesConfig
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.outputs import Outputs
from depthlm_ros.ros.transforms import NoTransformError, Transforms, pose_matrix

# Optical axes in a robot's base, 0.4 m up and level: x right = -y, y down = -z, z forward = x (REP 103).
LEVEL = Transform(translation=Vector3(x=0.1, y=0.0, z=0.4), rotation=Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5))


class UnknownFrameError(Exception):
    """What the stand-in raises."""


def tf2_stand_in(known: dict[tuple[str, str], Transform]) -> ModuleType:
    """The three names of tf2_ros that are used, with its signatures."""

    class Buffer:
        def clear(self) -> None:
            known.clear()

        def lookup_transform(self, target_frame: str, source_frame: str, time: Any) -> TransformStamped:
            if (target_frame, source_frame) not in known:
                raise UnknownFrameError(f'"{target_frame}" passed to lookupTransform does not exist')
            return TransformStamped(transform=known[target_frame, source_frame])

    class TransformListener:
        def __init__(self, buffer: Any, node: Any) -> None:
            self.node = node

        def unregister(self) -> None:
            self.node = None

    module = ModuleType("tf2_ros")
    module.Buffer, module.TransformListener = Buffer, TransformListener  # type: ignore[attr-defined]
    module.TransformException = UnknownFrameError  # type: ignore[attr-defined]
    return module


def test_a_pose_turns_and_moves_points() -> None:
    pose = pose_matrix(LEVEL)
    forward_right_down = np.array([0.5, 0.3, 2.0, 1.0])
    np.testing.assert_allclose(pose @ forward_right_down, [2.1, -0.5, 0.1, 1.0], atol=1e-12)
    half = Transform(rotation=Quaternion(x=0.0, y=0.0, z=math.sin(math.pi / 8), w=math.cos(math.pi / 8)))
    np.testing.assert_allclose(
        pose_matrix(half)[:2, :2], np.array([[1, -1], [1, 1]]) / math.sqrt(2), atol=1e-12
    )


def test_a_frame_that_tf2_does_not_know_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_stand_in({("base_link", "camera"): LEVEL}))
    transforms = Transforms(SimpleNamespace(), "obstacles.target_frame")  # type: ignore[arg-type]
    np.testing.assert_allclose(transforms.matrix("base_link", Header(frame_id="camera")), pose_matrix(LEVEL))
    with pytest.raises(NoTransformError, match="does not exist"):
        transforms.matrix("map", Header(frame_id="camera"))


def test_a_clock_that_went_back_takes_the_transforms_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_stand_in({("base_link", "camera"): LEVEL}))
    outputs = Outputs(Publishers(), Health(print), "base_link")  # type: ignore[arg-type]
    assert outputs._transforms is not None
    outputs._transforms.matrix("base_link", Header(frame_id="camera"))
    outputs.forget()
    with pytest.raises(NoTransformError):
        outputs._transforms.matrix("base_link", Header(frame_id="camera"))


def publish(
    monkeypatch: pytest.MonkeyPatch, known: dict[tuple[str, str], Transform], listeners: int = 1
) -> tuple[Any, Health, list[str]]:
    from test_nav2_clouds import answers

    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_stand_in(known))
    said: list[str] = []
    node, health = Publishers(), Health(said.append)
    outputs = Outputs(node, health, "base_link")
    node.topics["~/obstacles"].listeners = listeners
    # Points of the base frame without the 0.1 m offset: floor, box, lamp.
    sparse = answers([(2.0, 0.0, 0.02), (2.0, 0.3, 0.5), (2.0, -0.3, 1.0)])
    pair = SimpleNamespace(header=Header(frame_id="camera"), arrived=0.0)
    limits = ObstaclesConfig(target_frame="base_link", min_height_m=0.15, max_height_m=0.8)
    outputs.publish(pair, sparse, np.zeros((120, 160, 3), np.uint8), limits)  # type: ignore[arg-type]
    return node.topics, health, said


def test_points_within_the_band_stay_in_the_optical_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    topics, health, said = publish(monkeypatch, {("base_link", "camera"): LEVEL})
    cloud = topics["~/obstacles"].messages[0]
    assert (cloud.header.frame_id, cloud.width, said) == ("camera", 1, [])
    x, y, z = np.frombuffer(bytes(cloud.data), np.float32)[:3]
    assert (x, y, z) == pytest.approx((-0.3, -0.1, 2.0), abs=0.01)
    assert topics["~/points"].messages[0].width == 3
    assert health.total.withheld.total() == 0


def test_without_a_transform_no_obstacles_are_published(monkeypatch: pytest.MonkeyPatch) -> None:
    topics, health, said = publish(monkeypatch, {})
    assert topics["~/obstacles"].messages == []
    assert topics["~/points"].messages[0].width == 3
    assert dict(health.total.withheld) == {"no_transform": 1}
    assert "base_link" in said[0]
    assert "not published" in said[0]


def test_obstacles_that_nobody_hears_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    topics, health, said = publish(monkeypatch, {}, listeners=0)
    assert topics["~/obstacles"].messages == []
    assert health.total.withheld.total() == 0
    assert said == []


def test_a_target_frame_without_tf2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(ConfigError, match=r"obstacles\.target_frame.*tf2-ros-py.*leave it empty"):
        Outputs(Publishers(), Health(print), "base_link")


@pytest.mark.skipif(find_spec("tf2_ros") is not None, reason="tf2_ros is installed here")
def test_the_node_says_at_configure_that_tf2_is_missing() -> None:
    with alone("obstacles.target_frame:=base_link") as (node, bench):
        assert not bench.transition(Transition.TRANSITION_CONFIGURE)
        bench.wait(
            lambda: node.logged("cannot configure: obstacles.target_frame is set, which needs tf2_ros")
        )
        assert bench.state() == "unconfigured"
