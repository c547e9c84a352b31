"""Rehearsed at the running node: cameras without calibration, that change, stall, race, or stamp nonsense."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import FOCAL, HEIGHT, WIDTH, Bench, NodeProcess, alone, image_message, info_message, picture
from rehearsal import (
    ALWAYS,
    dropped,
    forget,
    nothing_was_published,
    settled,
    stamp,
    stamps,
    verdict,
    wait_for_verdict,
)
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from depthlm_ros.srv import QueryDepth


@pytest.fixture(scope="module")
def graph() -> Iterator[tuple[NodeProcess, Bench]]:
    with alone(
        "lifecycle.autostart:=true", "stream.stall_s:=0.5", "diagnostics.stall_error_s:=2.5",
        "diagnostics.window_s:=3.0",
    ) as graph:  # fmt: skip
        yield graph


def test_without_a_camera_info_nothing_is_published_until_it_comes(bench: Bench, node: NodeProcess) -> None:
    bench.wait(lambda: bench.state() == "active", 60.0)
    sent: list[Header] = []

    def said() -> list[str]:
        sent.append(bench.header())
        bench.images.publish(image_message(sent[-1]))
        return node.logged("none with a CameraInfo")

    bench.wait(said)
    assert "with a CameraInfo" in wait_for_verdict(bench, "camera", "ERROR", "no image with a CameraInfo")
    told = bench.counters()
    assert int(told["images_in"]) > 0
    assert told["frames_in"] == "0"
    nothing_was_published(bench, sent)
    assert bench.send_until_answered()


def sized(header: Header, width: int, height: int) -> tuple[Image, CameraInfo]:
    image = Image(header=header, width=width, height=height, encoding="rgb8", step=3 * width)
    image.data.frombytes(picture(1, width, height).tobytes())
    cx, cy = (width - 1) / 2, (height - 1) / 2
    info = info_message(
        header, width=width, height=height, k=[FOCAL, 0.0, cx, 0.0, FOCAL, cy, 0.0, 0.0, 1.0],
        p=[FOCAL, 0.0, cx, 0.0, 0.0, FOCAL, cy, 0.0, 0.0, 0.0, 1.0, 0.0], d=[-0.1, 0.01, 0.0, 0.0, 0.0],
    )  # fmt: skip
    return image, info


def test_a_new_resolution_in_mid_stream_is_answered_in_its_own_size(bench: Bench) -> None:
    for width, height in ((WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT), (HEIGHT, WIDTH), (WIDTH, HEIGHT)):
        header = bench.header()
        bench.send(*sized(header, width, height))
        sparse = bench.wait_for("sparse_depth", header)
        depth, info = bench.wait_for("depth/image", header), bench.wait_for("depth/camera_info", header)
        assert {(m.width, m.height) for m in (sparse, depth, info)} == {(width, height)}
        assert info.p[2] == (width - 1) / 2
        assert np.frombuffer(depth.data, "<f4").size == width * height
        assert max(sparse.u) > width / 2
        assert max(sparse.v) > height / 2


def test_a_new_resolution_with_the_old_camera_info_is_refused_until_that_comes_too(bench: Bench) -> None:
    before = dropped(bench, "size_mismatch")
    header = bench.header()
    image, _ = sized(header, 2 * WIDTH, 2 * HEIGHT)
    bench.send(image, info_message(header))
    bench.wait(lambda: dropped(bench, "size_mismatch") == before + 1)
    nothing_was_published(bench, [header])
    header = bench.header()
    bench.send(*sized(header, 2 * WIDTH, 2 * HEIGHT))
    assert bench.wait_for("sparse_depth", header).width == 2 * WIDTH


@pytest.mark.parametrize(("sec", "nanosec"), [(-5, 0), (-(2**31), 2**32 - 1), (2**31 - 1, 2**32 - 1)])
def test_a_stamp_that_is_no_time_is_counted_and_harms_nothing(
    sec: int, nanosec: int, bench: Bench, node: NodeProcess
) -> None:
    before = int(bench.counters()["bad_stamps"])
    header = bench.header()
    header.stamp.sec, header.stamp.nanosec = sec, nanosec
    bench.send(image_message(header))
    bench.wait(
        lambda: int(bench.counters()["bad_stamps"]) == before + 2
    )  # of the image, and of its CameraInfo
    assert verdict(bench, "clock")[0] == "WARN"
    assert bench.send_until_answered()
    assert node.logged("message dropped (bad_stamp)")
    nothing_was_published(bench, [header])


def test_a_stall_warns_becomes_an_error_and_ends_with_the_next_frame(bench: Bench) -> None:
    bench.send_until_answered()
    wait_for_verdict(bench, "camera", "WARN", "no image")
    assert verdict(bench, "depth") == ("WARN", "no frames from the camera")
    wait_for_verdict(bench, "camera", "ERROR", "no image")
    forget(bench)
    assert bench.send_until_answered()

    def well() -> bool:
        bench.send()
        return verdict(bench, "camera")[0] == verdict(bench, "depth")[0] == "OK"

    bench.wait(well)


def test_a_camera_of_200_hz_neither_chokes_the_node_nor_its_services(bench: Bench, node: NodeProcess) -> None:
    forget(bench)
    sent: list[Header] = []
    enough = threading.Event()

    def race() -> None:
        began = time.monotonic()
        while not enough.is_set():
            sent.append(bench.send())
            time.sleep(max(0.0, began + len(sent) / 200.0 - time.monotonic()))

    camera = threading.Thread(target=race)
    camera.start()
    bench.wait(lambda: bench.got["sparse_depth"])
    asked = bench.call(bench.query, QueryDepth.Request(u=[80], v=[60], timeout_s=20.0))
    assert asked.success, asked.message
    rate = bench.wait(lambda: (r := bench.counters()["frame_rate_hz"]) != "unknown" and float(r))
    try:
        bench.wait(lambda: min(len(bench.got[name]) for name in ALWAYS) > 8, 60.0)
    finally:
        enough.set()
        camera.join()
    assert bench.send_until_answered()
    told = settled(bench)
    assert rate > 20.0  # best effort, so how many of the 200 come through is the machine's matter
    assert int(told["dropped/newer"]) > 100
    known = {stamp(header) for header in sent}
    for name in ALWAYS:
        got = [s for s in stamps(bench, name) if s in known]
        assert got == sorted(set(got)), name
        assert len(got) > 5, name
    assert node.process.poll() is None
    assert not node.logged("Traceback")
