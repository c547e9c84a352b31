"""The running node: what it publishes, what it answers, and which of its parameters change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import FOCAL, HEIGHT, WIDTH, Bench, NodeProcess, image_message
from rclpy.qos import QoSReliabilityPolicy
from rehearsal import verdict
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs_py import point_cloud2

from depthlm_ros.srv import QueryDepth


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    process = NodeProcess("lifecycle.autostart:=true", "stream.stall_s:=1.0")
    yield process
    assert process.end() == 0, "\n".join(process.log)


@pytest.fixture(scope="module")
def bench(node: NodeProcess) -> Iterator[Bench]:
    bench = Bench()
    bench.send_until_answered()
    yield bench
    bench.close()


def depth_of(msg: Image) -> np.ndarray:
    assert msg.encoding == "32FC1"
    assert msg.step == msg.width * 4
    return np.frombuffer(msg.data, "<f4").reshape(msg.height, msg.width)


def test_every_output_carries_the_stamp_frame_and_size_of_its_image(bench: Bench) -> None:
    header = bench.send(image_message(bench.header("left_optical")), None)
    sparse = bench.wait_for("sparse_depth", header)
    for name in ("depth/image", "depth/camera_info", "points", "sparse_depth", "debug/image"):
        msg = bench.wait_for(name, header)
        assert msg.header == header, name
    assert sparse.header.frame_id == "left_optical"
    for name in ("depth/image", "depth/camera_info", "sparse_depth", "debug/image"):
        msg = bench.wait_for(name, header)
        assert (msg.width, msg.height) == (WIDTH, HEIGHT), name


def test_depth_is_nan_wherever_nothing_was_answered_and_never_zero(bench: Bench) -> None:
    header = bench.send()
    sparse = bench.wait_for("sparse_depth", header)
    depth = depth_of(bench.wait_for("depth/image", header))
    expected = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    for u, v, z, status in zip(sparse.u, sparse.v, sparse.depth, sparse.status, strict=True):
        assert np.isnan(z) == (status != sparse.STATUS_OK)
        expected[v, u] = z
    np.testing.assert_array_equal(depth, expected)
    assert len(sparse.u) == 6
    assert np.nanmin(depth) > 0.0


def test_the_points_project_onto_the_asked_pixels(bench: Bench) -> None:
    header = bench.send()
    sparse = bench.wait_for("sparse_depth", header)
    cloud = bench.wait_for("points", header)
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "rgb", "confidence", "sigma"]
    assert (cloud.height, cloud.is_dense) == (1, True)
    points = np.array([tuple(p) for p in point_cloud2.read_points(cloud, ("x", "y", "z"))])
    u = FOCAL * points[:, 0] / points[:, 2] + (WIDTH - 1) / 2
    v = FOCAL * points[:, 1] / points[:, 2] + (HEIGHT - 1) / 2
    ok = np.asarray(sparse.status) == sparse.STATUS_OK
    asked = np.stack([sparse.u, sparse.v], axis=1)[ok]
    assert len(points) == ok.sum() > 0
    assert np.abs(np.stack([u, v], axis=1) - asked).max() < 0.5
    np.testing.assert_allclose(points[:, 2], np.asarray(sparse.depth)[ok], rtol=1e-6)


def test_the_published_camera_info_has_no_distortion_and_the_images_intrinsics(bench: Bench) -> None:
    info = bench.wait_for("depth/camera_info", bench.send())
    assert isinstance(info, CameraInfo)
    assert (info.k[0], info.p[0], info.p[5]) == (FOCAL, FOCAL, FOCAL)
    assert not np.any(info.d)


def test_obstacles_are_left_out_where_no_point_is_sure(bench: Bench, node: NodeProcess) -> None:
    assert bench.set_parameter("obstacles.min_confidence", 1.0) == (True, "")
    header = bench.send()
    bench.wait_for("sparse_depth", header)
    bench.spin(0.3)
    assert not [m for m in bench.got["obstacles"] if m.header.stamp == header.stamp]
    assert node.logged("~/obstacles is not published")

    def said() -> bool:
        bench.send()
        return "answered frames gave no obstacles (unsure)" in verdict(bench, "depth")[1]

    bench.wait(said)
    assert verdict(bench, "depth")[0] in ("WARN", "ERROR")
    assert bench.set_parameter("obstacles.min_confidence", 0.0) == (True, "")
    header = bench.send()
    assert bench.wait_for("obstacles", header).width > 0


def test_outputs_are_reliable_and_inputs_best_effort(bench: Bench) -> None:
    publisher = bench.get_publishers_info_by_topic("/robot/depthlm/points")[0]
    assert publisher.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE
    subscription = bench.get_subscriptions_info_by_topic("/robot/image")[0]
    assert subscription.qos_profile.reliability == QoSReliabilityPolicy.BEST_EFFORT


def test_query_depth_answers_the_pixels_that_were_named(bench: Bench) -> None:
    bench.send_until_answered()
    bench.send()
    request = QueryDepth.Request(u=[80, 40, 0], v=[90, 60, 0], timeout_s=20.0)
    response = bench.call(bench.query, request)
    assert response.success, response.message
    result = response.result
    assert list(zip(result.u, result.v, strict=True)) == [(80, 90), (40, 60), (0, 0)]
    assert list(result.status) == [result.STATUS_OK, result.STATUS_OK, result.STATUS_UNDRAWABLE]
    assert np.isnan([result.depth[2], response.points[2].x, response.points[2].z]).all()
    assert response.points[0].z == pytest.approx(result.depth[0])
    assert response.points[0].x == pytest.approx((80 - (WIDTH - 1) / 2) / FOCAL * result.depth[0], rel=1e-5)


def test_query_depth_keeps_the_order_and_the_repetitions_of_the_request(bench: Bench) -> None:
    bench.send_until_answered()
    bench.send()
    response = bench.call(bench.query, QueryDepth.Request(u=[80, 80, 40], v=[90, 90, 60], timeout_s=20.0))
    assert response.success, response.message
    assert list(response.result.u) == [80, 80, 40]
    assert response.result.depth[0] == response.result.depth[1] == pytest.approx(response.points[1].z)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (QueryDepth.Request(u=[5000], v=[3]), "outside the image"),
        (QueryDepth.Request(), "1 to"),
        (QueryDepth.Request(u=[1, 2], v=[1]), "one length"),
        (QueryDepth.Request(u=[80], v=[60], timeout_s=-1.0), "timeout_s"),
    ],
)
def test_a_bad_query_is_refused_with_the_reason(
    request_: QueryDepth.Request, says: str, bench: Bench
) -> None:
    response = bench.call(bench.query, request_)
    assert not response.success
    assert says in response.message


def test_parameters_that_cannot_change_are_refused_with_the_reason(bench: Bench) -> None:
    changed, reason = bench.set_parameter("engine.batch_size", 4)
    assert not changed
    assert "cannot change while the node is configured (it is 32)" in reason
    changed, reason = bench.set_parameter("sampling.method", "all")
    assert not changed
    assert "one of grid, gradient, roi" in reason


def test_a_whole_number_may_stand_for_a_float(bench: Bench) -> None:
    assert bench.set_parameter("obstacles.max_range_m", 7) == (True, "")
    changed, reason = bench.set_parameter("stream.max_age_s", -1.0)
    assert not changed
    assert reason


def test_the_sampler_changes_while_the_node_runs(bench: Bench) -> None:
    assert bench.set_parameter("sampling.columns", 5) == (True, "")
    assert len(bench.send_until_answered().u) == 10
    assert bench.set_parameter("sampling.columns", 3) == (True, "")
