"""The running node: what it publishes, what it refuses, and how it ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import FOCAL, HEIGHT, WIDTH, Bench, NodeProcess, alone, image_message, info_message, picture
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
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


def test_a_binned_crop_is_understood(bench: Bench) -> None:
    header = bench.header()
    roi = RegionOfInterest(x_offset=40, y_offset=20, width=2 * WIDTH, height=2 * HEIGHT)
    big = info_message(
        header, width=400, height=300, binning_x=2, binning_y=2, roi=roi,
        k=[2 * FOCAL, 0.0, 200.0, 0.0, 2 * FOCAL, 150.0, 0.0, 0.0, 1.0],
        p=[2 * FOCAL, 0.0, 200.0, 0.0, 0.0, 2 * FOCAL, 150.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    )  # fmt: skip
    bench.send(image_message(header), big)
    out = bench.wait_for("depth/camera_info", header)
    assert (out.width, out.height) == (WIDTH, HEIGHT)
    assert (out.p[0], out.p[2], out.p[6]) == (FOCAL, (200 - 40) / 2, (150 - 20) / 2)


def test_obstacles_are_left_out_where_no_point_is_sure(bench: Bench, node: NodeProcess) -> None:
    assert bench.set_parameter("obstacles.min_confidence", 1.0) == (True, "")
    header = bench.send()
    bench.wait_for("sparse_depth", header)
    bench.spin(0.3)
    assert not [m for m in bench.got["obstacles"] if m.header.stamp == header.stamp]
    assert node.logged("~/obstacles is not published")
    assert bench.set_parameter("obstacles.min_confidence", 0.0) == (True, "")
    header = bench.send()
    assert bench.wait_for("obstacles", header).width > 0


def test_outputs_are_reliable_and_inputs_best_effort(bench: Bench) -> None:
    publisher = bench.get_publishers_info_by_topic("/robot/depthlm/points")[0]
    assert publisher.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE
    subscription = bench.get_subscriptions_info_by_topic("/robot/image")[0]
    assert subscription.qos_profile.reliability == QoSReliabilityPolicy.BEST_EFFORT


BROKEN = {
    "wrong step": ({"step": WIDTH}, {}, "bad_image"),
    "short data": ({"height": HEIGHT + 1}, {}, "bad_image"),
    "unknown encoding": ({"encoding": "32FC1"}, {}, "bad_image"),
    "empty": ({"width": 0, "height": 0, "step": 0, "data": b""}, {}, "bad_image"),
    "fx is zero": ({}, {"k": [0.0] * 9, "p": [0.0] * 12}, "bad_camera_info"),
    "fx is nan": ({}, {"k": [float("nan")] * 9}, "bad_camera_info"),
    "sizes disagree": ({}, {"width": WIDTH * 2}, "size_mismatch"),
    "too old": ({"header": None}, {}, "stale"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_is_counted_and_said_and_the_next_good_one_answered(
    name: str, bench: Bench, node: NodeProcess
) -> None:
    image_changes, info_changes, reason = BROKEN[name]
    before = int(bench.counters().get(f"dropped/{reason}", 0))
    header = bench.header()
    if "header" in image_changes:
        header.stamp.sec -= 60
        image_changes = {}
    bench.send(image_message(header, **image_changes), info_message(header, **info_changes))
    bench.wait(lambda: int(bench.counters().get(f"dropped/{reason}", 0)) == before + 1)
    assert bench.send_until_answered()
    assert not [m for m in bench.got["sparse_depth"] if m.header.stamp == header.stamp]
    assert len(node.logged(f"frame dropped ({reason})")) == 1


def test_a_camera_that_dies_is_reported_and_its_return_answered(bench: Bench, node: NodeProcess) -> None:
    bench.send_until_answered()
    bench.wait(lambda: node.logged("no frame for more than 1 s"), 10.0)
    assert node.process.poll() is None
    assert bench.send_until_answered()


def test_images_without_camera_info_are_said() -> None:
    with alone("lifecycle.autostart:=true") as (node, bench):
        bench.wait(lambda: bench.state() == "active", 60.0)

        def said() -> list[str]:
            bench.images.publish(image_message(bench.header()))
            return node.logged("none with a CameraInfo")

        assert f"{bench.get_namespace()}/camera_info" in bench.wait(said)[0]


def test_the_newest_frame_wins_and_no_stamp_comes_twice(bench: Bench) -> None:
    bench.got["sparse_depth"].clear()
    sent = []
    for _ in range(60):
        sent.append(bench.send())
        bench.spin(0.01)
    bench.wait_for("sparse_depth", sent[-1])
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in bench.got["sparse_depth"]]
    assert stamps == sorted(set(stamps))
    assert set(stamps) <= {(h.stamp.sec, h.stamp.nanosec) for h in sent}
    newest = bench.got["sparse_depth"][-1]
    assert newest.frames_dropped > 0
    assert newest.frames_in >= newest.frames_answered


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


def test_a_calibration_that_opencv_refuses_harms_neither_the_stream_nor_the_service(
    bench: Bench, node: NodeProcess
) -> None:
    header = bench.header()
    k = [FOCAL, 0.0, 80.0, 0.0, FOCAL, 60.0, 0.0, 0.0, 1.0]
    bench.send(image_message(header), info_message(header, d=[0.0], k=k))
    bench.spin(0.3)
    bench.call(bench.query, QueryDepth.Request(u=[80], v=[60]))
    assert bench.send_until_answered()
    assert node.process.poll() is None


def test_the_sampler_changes_while_the_node_runs(bench: Bench) -> None:
    assert bench.set_parameter("sampling.columns", 5) == (True, "")
    assert len(bench.send_until_answered().u) == 10
    assert bench.set_parameter("sampling.columns", 3) == (True, "")


def test_deactivating_stops_and_activating_resumes(bench: Bench) -> None:
    assert bench.transition(Transition.TRANSITION_DEACTIVATE)
    bench.spin(0.5)
    bench.got["points"].clear()
    for _ in range(5):
        bench.send()
        bench.spin(0.1)
    assert bench.got["points"] == []
    assert not bench.call(bench.query, QueryDepth.Request(u=[80], v=[60])).success
    assert bench.transition(Transition.TRANSITION_CLEANUP)
    assert bench.state() == "unconfigured"
    assert bench.set_parameter("engine.batch_size", 16) == (True, "")
    assert bench.transition(Transition.TRANSITION_CONFIGURE)
    assert bench.transition(Transition.TRANSITION_ACTIVATE)
    assert bench.send_until_answered()


def test_configure_fails_with_a_sentence_when_the_engine_cannot_start() -> None:
    with alone("engine.checkpoint:=/nowhere/at/all") as (node, bench):
        assert not bench.transition(Transition.TRANSITION_CONFIGURE)
        assert bench.state() == "unconfigured"
        assert "/nowhere/at/all" in bench.wait(lambda: node.logged("cannot configure"))[0]


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ("sampling.method:=everything", "sampling.method: expected one of grid, gradient, roi"),
        ("sampling.columns:=0", "sampling.columns"),
        ("engine.batch_size:=many", "engine.batch_size"),
        ("sampling.colums:=3", "did you mean 'sampling.columns'?"),
    ],
)
def test_a_wrong_parameter_ends_the_process_with_the_reason(parameter: str, says: str) -> None:
    node = NodeProcess(parameter, namespace="/wrong")
    assert node.process.wait(60.0) == 2
    node.end()
    assert node.logged(says), "\n".join(node.log)
    assert not node.logged("Traceback"), "\n".join(node.log)


def test_what_was_begun_before_a_deactivation_is_never_published() -> None:
    with alone("lifecycle.autostart:=true", "sampling.columns:=40", "sampling.rows:=30") as (_, bench):
        bench.wait(lambda: bench.state() == "active", 60.0)
        old = bench.send()
        bench.spin(0.7)
        assert bench.transition(Transition.TRANSITION_DEACTIVATE)
        assert bench.set_parameter("sampling.columns", 2)[0]
        assert bench.set_parameter("sampling.rows", 2)[0]
        assert bench.transition(Transition.TRANSITION_ACTIVATE)
        answer = bench.send_until_answered()
        bench.spin(1.0)
        assert answer.header.stamp != old.stamp
        assert not [m for m in bench.got["sparse_depth"] if m.header.stamp == old.stamp]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_query_ends_the_process_cleanly(signum: int) -> None:
    with alone("lifecycle.autostart:=true", "sampling.columns:=1", "sampling.rows:=1") as (node, bench):
        bench.wait(lambda: bench.state() == "active", 60.0)
        bench.send_until_answered()
        bench.send()
        u, v = np.meshgrid(np.arange(20, 140, 2), np.arange(20, 100, 2))
        pending = bench.query.call_async(QueryDepth.Request(u=u.ravel(), v=v.ravel(), timeout_s=60.0))
        bench.spin(0.7)
        assert not pending.done()
        assert node.end(signum) == 0, "\n".join(node.log)
        assert not node.logged("Traceback"), "\n".join(node.log)


def test_a_signal_while_the_engine_loads_ends_the_process_cleanly() -> None:
    with alone("lifecycle.autostart:=true") as (node, bench):
        bench.wait(lambda: node.logged("loading engine"), 60.0)
        assert node.end(signal.SIGINT) == 0, "\n".join(node.log)
        assert not node.logged("configured with")


def test_compressed_images_are_decoded() -> None:
    with alone("lifecycle.autostart:=true", "stream.transport:=compressed") as (_, bench):
        bench.wait(lambda: bench.state() == "active", 60.0)
        ok, png = cv2.imencode(".png", picture()[..., ::-1])
        assert ok

        def answered() -> object:
            header = bench.header()
            bench.infos.publish(info_message(header))
            bench.compressed.publish(CompressedImage(header=header, format="png", data=png.tobytes()))
            bench.spin(1.0)
            return [m for m in bench.got["sparse_depth"] if m.header.stamp == header.stamp]

        assert bench.wait(answered)
        broken = bench.header()
        bench.compressed.publish(CompressedImage(header=broken, format="jpeg", data=b"\xff\xd8no"))
        bench.infos.publish(info_message(broken))
        bench.wait(lambda: bench.counters().get("dropped/bad_image") == "1")
        assert bench.wait(answered)
