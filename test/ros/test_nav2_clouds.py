"""Our obstacle clouds in a model of Nav2's rules: they mark, they clear, they go stale."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from heard import Publishers
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py.point_cloud2 import read_points
from toy_node import pair_at

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.config import ObstaclesConfig
from depthlm_ros.geometry import SparseDepth, project
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.outputs import Outputs

sys.path.insert(0, str(Path(__file__).parents[1]))
from nav2_model import StvlLayer, VoxelLayer, monitor_stops
from test_nav2 import LOCAL, MONITOR, STVL, VOXEL, latency_s

CAMERA = PinholeCamera.from_intrinsics(140.0, 140.0, 79.5, 59.5, 160, 120)
HEIGHT_M = 0.4
"""Of the camera, which looks level along x."""


def answers(points: list[tuple[float, float, float]]) -> SparseDepth:
    """A frame whose answers are these points of the global frame (x forward, y left, z up)."""
    world = np.asarray(points, float)
    optical = np.stack([-world[:, 1], HEIGHT_M - world[:, 2], world[:, 0]], axis=1)
    n = len(world)
    return SparseDepth(
        pixels=np.rint(project(optical, CAMERA)).astype(np.int64),
        depth=optical[:, 2].astype(np.float32),
        sigma=np.full(n, 0.1, np.float32),
        confidence=np.full(n, 0.8, np.float32),
        status=np.full(n, AnswerStatus.OK, np.uint8),
        rgb=np.zeros((n, 3), np.uint8),
        camera=CAMERA,
        model="test",
    )


def said_of(sparse: SparseDepth, stamp: float) -> list[PointCloud2]:
    """What the node's outputs publish as ~/obstacles, with the default limits."""
    node, pair = Publishers(), pair_at(stamp, 0.0)
    image = np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)
    outputs = Outputs(node, Health(print))  # type: ignore[arg-type]
    outputs.publish(pair, sparse, image, ObstaclesConfig())
    return node.topics["~/obstacles"].messages


def published(sparse: SparseDepth, stamp: float) -> tuple[np.ndarray, float]:
    """The points of the message ~/obstacles in the global frame, and its stamp."""
    (cloud,) = said_of(sparse, stamp)
    points = read_points(cloud, field_names=("x", "y", "z"))
    x, y, z = (np.asarray(points[name], float).ravel() for name in ("x", "y", "z"))
    world = np.stack([z, -x, HEIGHT_M - y], axis=1)
    return world, cloud.header.stamp.sec + cloud.header.stamp.nanosec * 1e-9


# Near the middle of cells: pixels are whole, so that a point comes back up to a centimetre off at two metres.
BOX = (2.05, 0.05, 0.3)
FLOOR_BEHIND = (3.05, 0.07, 0.0)
WALL = (5.05, 0.1, 0.4)


@pytest.fixture
def layer() -> VoxelLayer:
    return VoxelLayer(VOXEL, LOCAL["resolution"], LOCAL["width"])


def see(layer: VoxelLayer, points: list[tuple[float, float, float]], stamp: float) -> None:
    world, said = published(answers(points), stamp)
    now = stamp + latency_s()
    layer.buffer.take(world, np.array([0.0, 0.0, HEIGHT_M]), said, now)
    layer.update(now)


def test_an_obstacle_marks_and_the_floor_does_not(layer: VoxelLayer) -> None:
    see(layer, [BOX, (1.55, 0.85, 0.0), (2.55, -0.65, 0.05)], 10.0)
    assert layer.lethal(2.05, 0.05)
    assert not layer.lethal(1.55, 0.85)
    assert not layer.lethal(2.55, -0.65)


@pytest.mark.parametrize("behind", [FLOOR_BEHIND, WALL], ids=["floor", "wall"])
def test_what_is_gone_is_cleared_by_what_is_seen_behind_it(
    layer: VoxelLayer, behind: tuple[float, float, float]
) -> None:
    low_box = (2.05, 0.05, 0.17)
    see(layer, [low_box if behind == FLOOR_BEHIND else (2.05, 0.05, 0.4)], 10.0)
    assert layer.lethal(2.05, 0.05)
    see(layer, [behind], 12.0)
    assert not layer.lethal(2.05, 0.05)


def test_a_frame_without_an_obstacle_there_clears_nothing_elsewhere(layer: VoxelLayer) -> None:
    see(layer, [BOX], 10.0)
    see(layer, [(2.05, 1.05, 0.3)], 12.0)
    assert layer.lethal(2.05, 0.05)
    assert layer.lethal(2.05, 1.05)


def test_points_beyond_the_marking_range_only_clear(layer: VoxelLayer) -> None:
    see(layer, [(3.85, 0.05, 0.4)], 10.0)
    assert layer.lethal(3.85, 0.05)
    see(layer, [(3.95, 1.05, 0.4), (7.5, 0.1, 0.4)], 12.0)
    assert not layer.lethal(3.95, 1.05)  # 4.09 m from the camera
    assert not layer.lethal(3.85, 0.05)


def test_a_silent_node_goes_stale_but_its_obstacles_stay(layer: VoxelLayer) -> None:
    see(layer, [BOX], 10.0)
    arrived = 10.0 + latency_s()
    assert layer.buffer.current(arrived + latency_s())
    later = arrived + VOXEL["depthlm"]["expected_update_rate"] + 0.1
    layer.update(later)
    assert not layer.buffer.current(later)
    assert layer.lethal(2.05, 0.05)


def test_the_monitor_stops_without_a_cloud_and_not_between_two(layer: VoxelLayer) -> None:
    timeout = MONITOR["source_timeout"]
    _, stamp = published(answers([BOX]), 10.0)
    next_arrival = 10.0 + 2 * latency_s()
    assert not monitor_stops(timeout, stamp, next_arrival)
    assert monitor_stops(timeout, stamp, 10.0 + timeout + 0.1)
    assert monitor_stops(timeout, None, 10.0)


def test_an_answered_frame_with_nothing_near_is_an_empty_cloud_that_clears_nothing(layer: VoxelLayer) -> None:
    see(layer, [BOX], 10.0)
    world, stamp = published(answers([(9.5, 0.0, 0.4)]), 12.0)
    assert world.shape == (0, 3)
    layer.buffer.take(world, np.array([0.0, 0.0, HEIGHT_M]), stamp, 13.0)
    layer.update(13.0)
    assert layer.lethal(2.05, 0.05)


def test_a_frame_of_which_nothing_is_sure_is_silence_and_no_empty_cloud(layer: VoxelLayer) -> None:
    see(layer, [BOX], 10.0)
    unsure = answers([WALL])
    unsure.confidence[:] = 0.1
    assert said_of(unsure, 12.0) == []
    later = 10.0 + latency_s() + VOXEL["depthlm"]["expected_update_rate"] + 0.1
    layer.update(later)
    assert layer.lethal(2.05, 0.05)
    assert not layer.buffer.current(later)


def test_a_voxel_of_stvl_is_marked_once_stays_while_it_is_seen_and_fades() -> None:
    layer, period = StvlLayer(STVL), 1.0 / LOCAL["update_frequency"]

    def run(until: float, since: float) -> None:
        for now in np.arange(since, until, period).tolist():
            layer.update(now)

    def hear(points: list[tuple[float, float, float]], stamp: float) -> float:
        world, said = published(answers(points), stamp)
        layer.buffer.take(world, np.array([0.0, 0.0, HEIGHT_M]), said, stamp + latency_s())
        return stamp + latency_s()

    floor = (1.55, 0.85, 0.02)
    last = 0.0
    for stamp in (10.0, 12.0, 14.0, 16.0):
        last = hear([BOX, floor], stamp)
        run(last + 2.0, last)
        assert layer.lethal(2.05, 0.05)
        assert not layer.lethal(floor[0], floor[1])
    run(last + STVL["voxel_decay"] - 1.0, last + 2.0)
    assert layer.lethal(2.05, 0.05)
    run(last + STVL["voxel_decay"] + 1.0, last + STVL["voxel_decay"] - 1.0)
    assert not layer.lethal(2.05, 0.05)


def test_without_clear_after_reading_a_voxel_of_stvl_would_never_fade() -> None:
    source = {**STVL["depthlm"], "clear_after_reading": False}
    layer = StvlLayer({**STVL, "depthlm": source})
    world, said = published(answers([BOX]), 10.0)
    layer.buffer.take(world, np.array([0.0, 0.0, HEIGHT_M]), said, 11.5)
    for now in np.arange(11.5, 11.5 + 3 * STVL["voxel_decay"], 0.2).tolist():
        layer.update(now)
    assert layer.lethal(2.05, 0.05)


def test_a_costmap_whose_node_is_not_up_yet_becomes_stale() -> None:
    layer = VoxelLayer(VOXEL, LOCAL["resolution"], LOCAL["width"])
    layer.buffer.updated = 100.0  # when Nav2 came up
    assert layer.buffer.current(100.0 + VOXEL["depthlm"]["expected_update_rate"])
    assert not layer.buffer.current(100.1 + VOXEL["depthlm"]["expected_update_rate"])
