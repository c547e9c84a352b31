"""One output per accepted frame, none twice, none stamped anew; and a start without a line that should not be.

In the manner of NVIDIA's Isaac ROS tests: warm the graph up until it answers, then send single pairs and wait for
the output of each. The start is watched for DEPTHLM_STARTUP_S seconds (6 unless set; 30 before a release).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import Bench, NodeProcess, alone, image_message
from rehearsal import ALWAYS, forbidden_lines, forget, settled, stamp, stamps, verdict

STARTUP_S = float(os.environ.get("DEPTHLM_STARTUP_S", "6"))
FRAMES = 30


@pytest.fixture(scope="module")
def graph() -> Iterator[tuple[NodeProcess, Bench]]:
    # Every pair arrives, so the node's own rule alone decides which frames are answered.
    with alone(
        "lifecycle.autostart:=true", "stream.reliability:=reliable", "obstacles.min_confidence:=0.0"
    ) as graph:
        graph[1].send_until_answered(180.0)
        forget(graph[1])
        yield graph


def test_each_frame_that_is_sent_alone_has_one_output_of_each_kind_with_its_header(
    graph: tuple[NodeProcess, Bench],
) -> None:
    _, bench = graph
    forget(bench)
    names = (*ALWAYS, "obstacles", "debug/image")
    sent = []
    for number in range(FRAMES):
        header = bench.header(f"camera_{number}")
        bench.send(image_message(header))
        sent.append(header)
        for name in names:
            assert bench.wait_for(name, header).header == header, name
    bench.spin(0.3)
    for name in names:
        assert stamps(bench, name) == [stamp(header) for header in sent], name
    told = bench.got["sparse_depth"]
    assert [m.frames_answered - told[0].frames_answered for m in told] == list(range(FRAMES))


def test_of_a_burst_each_frame_is_answered_once_or_counted_once(graph: tuple[NodeProcess, Bench]) -> None:
    _, bench = graph
    forget(bench)
    before = settled(bench)
    sent = [stamp(bench.send()) for _ in range(4)]
    for _ in range(20):
        sent += [stamp(bench.send()) for _ in range(3)]
        bench.spin(0.05)
    bench.wait(lambda: sent[-1] in stamps(bench, "sparse_depth"))
    after = settled(bench)
    counted = [key for key in after if key.startswith(("frames_", "dropped/"))]
    grown = {key: int(after[key]) - int(before.get(key, 0)) for key in counted}
    # A burst overruns the subscription's queue of five; what came through it is accounted for.
    assert len(sent) / 3 < grown["frames_in"] <= len(sent)
    assert grown["frames_answered"] + grown["dropped/newer"] == grown["frames_in"], grown
    assert grown["frames_dropped"] == grown["dropped/newer"], grown
    answered = stamps(bench, "sparse_depth")
    assert len(answered) == grown["frames_answered"]
    for name in ALWAYS:
        got = stamps(bench, name)
        assert got == [s for s in sent if s in set(answered)], name


def test_a_frame_that_is_sent_twice_has_one_output_of_each_kind(graph: tuple[NodeProcess, Bench]) -> None:
    node, bench = graph
    forget(bench)
    before = settled(bench)
    sent = []
    for _ in range(5):
        header = bench.header()
        sent.append(stamp(header))
        bench.send(image_message(header))
        bench.send(image_message(header))  # a relay beside the driver, or two bags that overlap
        bench.wait_for("sparse_depth", header)
        bench.send(image_message(header))
    after = bench.wait(lambda: c if int((c := settled(bench)).get("dropped/duplicate", 0)) >= 10 else None)
    bench.spin(0.3)
    for name in ALWAYS:
        assert stamps(bench, name) == sent, name
    grown = {
        key: int(after[key]) - int(before.get(key, 0))
        for key in ("frames_in", "frames_answered", "frames_dropped", "dropped/duplicate")
    }
    assert list(grown.values()) == [15, 5, 10, 10]
    assert len(node.logged("frame dropped (duplicate)")) == 1

    def warned() -> bool:
        bench.send(image_message(header))  # without images the camera is soon said to be silent instead
        level, sentence = verdict(bench, "camera")
        return level in ("WARN", "ERROR") and "frames cannot be used (duplicate)" in sentence

    bench.wait(warned)


def test_a_start_with_a_good_camera_logs_nothing_that_should_not_be() -> None:
    with alone("lifecycle.autostart:=true") as (node, bench):
        began = time.monotonic()
        while time.monotonic() < began + STARTUP_S:
            bench.send()
            bench.spin(0.1)
        assert bench.send_until_answered()
        assert node.end() == 0
        assert forbidden_lines(node.log) == [], "\n".join(node.log)
        assert node.logged("active: waiting for")


def test_a_start_that_waits_for_its_activation_logs_nothing_that_should_not_be() -> None:
    with alone() as (node, bench):
        assert bench.state() == "unconfigured"
        bench.spin(1.5)
        assert node.end() == 0
        assert forbidden_lines(node.log) == [], "\n".join(node.log)
