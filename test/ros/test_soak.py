"""The node at full load for a while: its memory stays flat, it answers to the end, every frame is accounted for.

DEPTHLM_SOAK_S says how long: 15 s unless set; 600 before a release, with ``-s`` to see a line every 30 s.
"""

from __future__ import annotations

import gc
import itertools
import os
import statistics
import threading
import time

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import Bench, NodeProcess, alone, image_message
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rehearsal import ALWAYS, rss_mb, settled, stamps, wait_for_verdict
from toy_node import inside

from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.srv import QueryDepth

SOAK_S = float(os.environ.get("DEPTHLM_SOAK_S", "15"))
WARM_UP_S = max(6.0, SOAK_S / 5.0)
CAMERA_HZ = 60.0
MAX_GROWTH = 0.05
FRAMES = 60
ROUNDS = 10


class Camera(threading.Thread):
    """Sends far more frames than can be answered, every tenth of them broken."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(daemon=True)
        self.bench, self.sent, self.stopping = bench, 0, threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        for number in itertools.count():
            if self.stopping.is_set():
                return
            header = self.bench.header()
            broken = {"encoding": "32FC1"} if number % 10 == 0 else {}
            self.bench.send(image_message(header, **broken))
            self.sent += 1
            time.sleep(max(0.0, began + number / CAMERA_HZ - time.monotonic()))


def load(node: NodeProcess, bench: Bench) -> list[tuple[float, float]]:
    """Everything at once; returns (seconds, MB of the node's process), once a second."""
    camera, memory, pending = Camera(bench), [], []
    camera.start()
    began = said = time.monotonic()
    twice: list[str] = []
    while (now := time.monotonic()) < began + SOAK_S:
        assert node.process.poll() is None, "\n".join(node.log[-30:])
        memory.append((now - began, rss_mb(node.process.pid)))
        if len(pending) < 8:
            query = QueryDepth.Request(u=[40, 80, 120], v=[60, 60, 60], timeout_s=10.0)
            pending.append(bench.query.call_async(query))
        pending = [future for future in pending if not future.done()]
        bench._set.call_async(columns_request(2 + len(memory) % 3))
        bench.spin(1.0)
        for name in ALWAYS:
            twice += [name] if len(set(stamps(bench, name))) != len(bench.got[name]) else []
            if name != "sparse_depth":
                bench.got[name].clear()
        for name in ("obstacles", "debug/image", "diagnostics"):
            bench.got[name].clear()
        newest = bench.got["sparse_depth"][-1:]
        if newest and now - said > 30.0:
            said, told = now, newest[0]
            print(
                f"{now - began:5.0f} s  {memory[-1][1]:7.1f} MB  frames: {camera.sent} sent  {told.frames_in} in  "
                f"{told.frames_answered} answered  {told.frames_dropped} dropped  points: {told.points_answered}",
                flush=True,
            )
        bench.got["sparse_depth"][:-1] = []
    camera.stopping.set()
    camera.join()
    assert not twice
    return memory


def columns_request(columns: int) -> SetParameters.Request:
    change = Parameter("sampling.columns", value=columns).to_parameter_msg()
    return SetParameters.Request(parameters=[change])


@pytest.mark.timeout(SOAK_S + 300.0)
def test_memory_stays_flat_at_full_load_and_the_node_answers_to_the_end() -> None:
    with alone("lifecycle.autostart:=true") as (node, bench):
        bench.send_until_answered(180.0)
        memory = load(node, bench)
        warm = [mb for second, mb in memory if second >= WARM_UP_S]
        part = max(3, len(warm) // 5)
        before, after = statistics.median(warm[:part]), statistics.median(warm[-part:])
        told = settled(bench)
        rates = {key: int(told[key]) / SOAK_S for key in ("frames_in", "frames_answered", "points_answered")}
        print(
            f"{SOAK_S:.0f} s: {before:.1f} MB after {WARM_UP_S:.0f} s, {after:.1f} MB at the end "
            f"({100 * (after / before - 1):+.2f} %); per second: "
            + ", ".join(f"{value:.1f} {key}" for key, value in rates.items())
        )
        assert after < before * (1.0 + MAX_GROWTH), memory
        assert int(told["frames_answered"]) > SOAK_S / 10
        assert int(told["dropped/bad_image"]) > 0
        assert int(told["dropped/newer"]) > 0
        assert bench.send_until_answered()
        wait_for_verdict(bench, "engine", "OK", "ready")
        assert not node.logged("Traceback"), "\n".join(node.log)


def test_no_python_object_is_left_behind_by_a_frame_a_query_or_a_parameter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = FakeEngine(lambda _: " 2.00 meters")
    few = {"sampling__columns": 3, "sampling__rows": 2, "diagnostics__window_s": 1.0}
    with inside(engine, monkeypatch, "/counted", **few) as (_, bench):

        def work(frames: int) -> int:
            """Objects that are left after some frames, with what this test itself keeps forgotten."""
            for number in range(frames):
                header = bench.send()
                bench.wait_for("sparse_depth", header)
                if number % 5 == 0:
                    query = QueryDepth.Request(u=[50], v=[60], timeout_s=20.0)
                    assert bench.call(bench.query, query).success
                    assert bench.set_parameter("sampling.columns", 2 + number % 3)[0]
                engine.prompts.clear()
                for messages in bench.got.values():
                    messages.clear()
            gc.collect()
            return len(gc.get_objects())

        bench.send_until_answered()
        grown: list[int] = []
        # What each frame leaves behind shows in every round. What does not: a thread that the executor starts as it
        # meets more to do at once, and messages that are on their way while objects are counted.
        while len(grown) < ROUNDS and not (grown and grown[-1] < FRAMES / 4):
            before = work(20)
            grown.append(work(FRAMES) - before)
        assert min(grown) < FRAMES / 4, f"something is kept of every few frames: {grown}"
