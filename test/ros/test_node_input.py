"""The running node and what comes in: crops, broken frames, cameras that die, bursts, compressed images."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import FOCAL, HEIGHT, WIDTH, Bench, NodeProcess, alone, image_message, info_message, picture
from sensor_msgs.msg import CompressedImage, RegionOfInterest

from depthlm_ros.srv import QueryDepth


@pytest.fixture(scope="module")
def graph() -> Iterator[tuple[NodeProcess, Bench]]:
    with alone("lifecycle.autostart:=true", "stream.stall_s:=1.0") as graph:
        graph[1].send_until_answered()
        yield graph


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
