"""Time: simulated, replayed at any speed, jumping back; stamps of zero, from the future, and gone back."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from gated import Gated, rest
from graph import Bench, image_message, info_message
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from test_pipeline import PROFILE
from toy_node import inside, whole

from depthlm_ros.config import CameraConfig, SamplingConfig, StreamConfig
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.ros import clock as clock_module
from depthlm_ros.ros.clock import NodeClock
from depthlm_ros.ros.node import DepthLMNode
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair
from depthlm_ros.srv import QueryDepth

NAMES = (f"/timed_{n}" for n in itertools.count())
SMALL = {"sampling__columns": 2, "sampling__rows": 1, "stream__query_timeout_s": 60.0}
SIMULATED = {**SMALL, "use_sim_time": True}


class Simulation:
    """Publishes /clock, and frames stamped with it."""

    def __init__(self, node: DepthLMNode, bench: Bench) -> None:
        self.node, self.bench = node, bench
        self.clock = bench.create_publisher(Clock, "/clock", 10)

    def be(self, seconds: float) -> None:
        """Let the node's clock say so."""
        bench, node, stamp = self.bench, self.node, stamp_of(seconds)

        def said() -> bool:
            self.clock.publish(Clock(clock=stamp))
            bench.spin(0.02)
            return bool(node.get_clock().now().to_msg() == stamp)

        bench.wait(said)

    def send(self, seconds: float) -> Header:
        """Publish a pair with that stamp until the node has it."""
        header = Header(stamp=stamp_of(seconds), frame_id="optical")
        before = self.node.health.total.frames_in

        def came() -> bool:
            return self.node.health.total.frames_in > before

        self.bench.send(image_message(header), info_message(header))
        self.bench.wait(came)
        return header


def stamp_of(seconds: float) -> Time:
    return Time(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))


def clock_status(bench: Bench) -> DiagnosticStatus:
    bench.got["diagnostics"].clear()
    name = f"{bench.get_namespace()[1:]}/depthlm: clock"

    def own() -> list[DiagnosticStatus]:
        return [s for m in bench.got["diagnostics"] for s in m.status if s.name == name]

    return bench.wait(own)[-1]


def test_a_jump_back_forgets_what_belongs_to_the_time_before(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **SIMULATED) as (node, bench):
        simulation = Simulation(node, bench)
        simulation.be(100.0)
        kept = simulation.send(100.0)
        bench.wait_for("sparse_depth", kept)
        rest(engine, node, bench)
        engine.gate.clear()
        begun = simulation.send(100.1)
        bench.wait(lambda: engine.calls == [2])
        waiting = simulation.send(100.2)
        about_kept = bench.query.call_async(QueryDepth.Request(u=[80], v=[60], stamp=kept.stamp))
        bench.wait(lambda: node._queries is not None and len(node._queries._waiting) == 1)
        seen = node.health.total.images_in
        for k in range(10):  # as many as the synchronizer keeps: these never get their CameraInfo
            bench.images.publish(image_message(Header(stamp=stamp_of(100.3 + k / 100))))
            bench.wait(lambda k=k: node.health.total.images_in == seen + k + 1)

        simulation.be(10.0)
        engine.gate.set()
        bench.wait(about_kept.done)
        assert not about_kept.result().success
        assert "clock" in about_kept.result().message
        answered = simulation.send(10.0)
        bench.wait_for("sparse_depth", answered)
        assert [m.header for m in bench.got["sparse_depth"]] == [kept, answered]
        assert node.health.total.dropped == {"clock_jump": 2}, (begun, waiting)
        again = bench.call(bench.query, QueryDepth.Request(u=[80], v=[60], stamp=kept.stamp))
        assert "is kept" in again.message
        status = clock_status(bench)
        assert status.level == DiagnosticStatus.WARN
        assert "the clock jumped" in status.message
        assert {v.key: v.value for v in status.values}["clock_jumps"] == "1"


@pytest.mark.parametrize("speed", [0.2, 1.0, 20.0])
def test_a_replay_is_answered_at_any_speed(
    speed: float, engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **SIMULATED) as (node, bench):
        simulation, started = Simulation(node, bench), time.monotonic()
        simulation.be(50.0)
        sent: list[Header] = []

        def replayed() -> bool:
            now = 51.0 + (time.monotonic() - started) * speed
            simulation.clock.publish(Clock(clock=stamp_of(now)))
            sent.append(Header(stamp=stamp_of(now), frame_id="optical"))
            bench.send(image_message(sent[-1]), info_message(sent[-1]))
            bench.spin(0.05)
            return len(bench.got["sparse_depth"]) >= 20 and time.monotonic() - started > 2.0

        bench.wait(replayed, 60.0)
        stamps = [m.header for m in bench.got["sparse_depth"]]
        assert all(header in sent for header in stamps)
        assert not set(node.health.total.dropped) - {"newer"}
        assert node.health.total.clock_jumps == 0
        assert node._time.rate() == pytest.approx(speed, rel=0.6)


def test_in_a_fast_replay_a_frame_is_not_asked_until_it_is_too_old() -> None:
    engine = FakeEngine(lambda _: " 2.00 meters", batch_size=1000, delay_s=0.05)
    sampling, stream = SamplingConfig(columns=4, rows=4), StreamConfig(max_age_s=5.0, chunk_points=4)
    header = Header(stamp=Time(sec=1), frame_id="optical")

    def estimate(rate: float) -> Any:
        engine.batches = 0
        pair = Pair(image_message(header), info_message(header), time.monotonic())
        # Each batch takes 2 s of the replay's time: the third would make the frame 6 s old.
        pipeline = FramePipeline(
            DepthEstimator(engine, PROFILE), CameraConfig(), lambda _: 2.0 * engine.batches, lambda: rate
        )
        return whole(pipeline.estimate(pair, sampling, stream))

    with engine:
        sparse, _ = estimate(rate=40.0)
        assert int(sparse.answered.sum()) in (4, 8)
        assert np.isnan(sparse.depth[~sparse.answered]).all()
        with pytest.raises(FrameRefusedError, match="older than"):
            estimate(rate=1.0)


def test_a_stamp_of_zero_is_none_and_one_of_the_future_is_refused(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **SIMULATED) as (node, bench):
        simulation = Simulation(node, bench)
        simulation.be(100.0)
        bench.images.publish(image_message(Header()))
        bench.infos.publish(info_message(Header()))
        bench.wait(lambda: node.health.total.bad_stamps == 2)
        ahead = simulation.send(102.0)
        bench.wait(lambda: node.health.total.dropped["future"] == 1)
        slightly = simulation.send(100.3)
        bench.wait_for("sparse_depth", slightly)
        assert ahead not in [m.header for m in bench.got["sparse_depth"]]
        assert bench.set_parameter("stream.max_ahead_s", 3.0) == (True, "")
        bench.wait_for("sparse_depth", simulation.send(102.1))
        assert {v.key: v.value for v in clock_status(bench).values}["bad_stamps"] == "2"


def test_simulated_time_that_never_comes_is_said_and_so_is_all_else(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **SIMULATED, stream__stall_s=0.5) as (node, bench):
        complaints: list[str] = []
        monkeypatch.setattr(node.health, "_complain", complaints.append)
        bench.wait(lambda: any("nothing came on /clock" in said for said in complaints))
        values = {v.key: v.value for v in clock_status(bench).values}
        assert values["clock"] == "simulated, but nothing came on /clock"
        bench.send()
        bench.wait(lambda: node.health.total.dropped["future"] == 1)
        simulation = Simulation(node, bench)
        simulation.be(5.0)
        bench.wait_for("sparse_depth", simulation.send(5.0))


def test_another_clock_at_run_time_is_a_jump(engine: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    with inside(engine, monkeypatch, next(NAMES), **SMALL) as (node, bench):
        bench.send_until_answered()
        node.set_parameters([Parameter("use_sim_time", value=True)])
        simulation = Simulation(node, bench)
        simulation.be(5.0)
        assert node.health.total.clock_jumps == 1
        bench.wait_for("sparse_depth", simulation.send(5.0))
        node.set_parameters([Parameter("use_sim_time", value=False)])
        assert node.health.total.clock_jumps == 2
        assert bench.send_until_answered()


def test_a_camera_whose_clock_was_set_back_is_paired_again(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **SMALL) as (node, bench):
        bench.send_until_answered()
        seen = node.health.total.images_in
        for k in range(10):
            header = bench.header()
            header.stamp.sec += 3600
            bench.images.publish(image_message(header))
            bench.wait(lambda k=k: node.health.total.images_in == seen + k + 1)
        first, second = bench.header(), bench.header()
        bench.infos.publish(info_message(first))
        bench.spin(0.3)  # it waits in the queue while its image makes known that the time went back
        bench.images.publish(image_message(first))
        bench.wait(lambda: node.health.total.images_in == seen + 11)
        bench.images.publish(image_message(second))  # alone in the queue until its CameraInfo comes
        bench.wait(lambda: node.health.total.images_in == seen + 12)
        bench.infos.publish(info_message(second))
        assert bench.wait_for("sparse_depth", first)
        assert bench.wait_for("sparse_depth", second)


class Hands:
    """A system clock and a steady one that the test sets; in the node's place as well."""

    def __init__(self) -> None:
        self.system, self.steady = 1000.0, 5.0
        self.ros_time_is_active = False

    def now(self) -> Any:
        return SimpleNamespace(nanoseconds=round(self.system * 1e9))

    def monotonic(self) -> float:
        return self.steady

    def get_clock(self) -> Hands:
        return self

    def create_jump_callback(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(unregister=lambda: None)


def test_a_system_clock_that_is_set_back_is_noticed_and_one_that_is_slewed_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hands, said = Hands(), list[str]()
    monkeypatch.setattr(clock_module, "time", hands)
    watched = NodeClock(hands, said.append)  # type: ignore[arg-type]
    for system, steady, jumps in (
        (1001.0, 6.0, 0),
        (1001.99, 7.0, 0),  # slewed
        (1005.0, 8.0, 0),  # set forward: frames are merely older
        (1005.5, 9.0, 1),  # half a second behind
        (1006.5, 10.0, 1),
        (900.0, 11.0, 2),
    ):
        hands.system, hands.steady = system, steady
        watched.look()
        assert len(said) == jumps, (system, said)
    assert "set back by 0.500 s" in said[0]
