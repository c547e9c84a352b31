"""Rehearsed at the running node: storms of parameters, of service calls and of transitions, while frames come."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

import rclpy
from graph import Bench, NodeProcess, alone
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rehearsal import ALWAYS, forget, settled, stamp, stamps, wait_for_verdict

from depthlm_ros.ros.main import spin
from depthlm_ros.srv import AskSpatial, QueryDepth

STORM = 100
"""Calls of a storm, nearly at once."""


@pytest.fixture(scope="module")
def graph() -> Iterator[tuple[NodeProcess, Bench]]:
    with alone("lifecycle.autostart:=true", "stream.max_age_s:=20.0") as graph:
        bench = graph[1]
        bench.read = bench.create_client(GetParameters, "depthlm/get_parameters")  # type: ignore[attr-defined]
        bench.send_until_answered(180.0)
        yield graph


def check_outputs(bench: Bench, sent: set[tuple[int, int]]) -> None:
    """Every output belongs to a frame that was sent, none came twice or out of order, none is empty."""
    for name in ALWAYS:
        got = stamps(bench, name)
        assert got == sorted(set(got)), name
        assert set(got) <= sent, name
    assert all(cloud.width for cloud in bench.got["points"])


CHANGES: tuple[tuple[str, Any, bool], ...] = (
    ("sampling.columns", 4, True),
    ("sampling.columns", 0, False),
    ("engine.batch_size", 3, False),
    ("stream.max_age_s", 15.0, True),
    ("sampling.method", "nonsense", False),
    ("sampling.columns", 2, True),
    ("obstacles.min_range_m", 9e3, False),
    ("diagnostics.failed_warn", 0.5, True),
    ("sampling.columns", "three", False),
    ("sampling.roi", [10, 10, 0, 5], False),
    ("stream.max_age_s", 20.0, True),
    ("no.such_parameter", 1, False),
)


def test_a_storm_of_parameters_leaves_the_node_with_those_that_it_accepted(
    bench: Bench, node: NodeProcess
) -> None:
    forget(bench)
    pending, sent, storm = [], set(), itertools.cycle(CHANGES)
    for number in range(20 * len(CHANGES)):
        name, value, accepted = next(storm)
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        pending.append((name, value, accepted, bench._set.call_async(request)))
        if number % 8 == 0:
            sent.add(stamp(bench.send()))
            bench.spin(0.01)
    bench.wait(lambda: all(future.done() for *_, future in pending), 60.0)
    for name, value, accepted, future in pending:
        result = future.result().results[0]
        assert result.successful is accepted, (name, value, result.reason)
        assert accepted or result.reason, (name, value)
    names = ["sampling.columns", "engine.batch_size", "stream.max_age_s", "sampling.method"]
    now = bench.call(bench.read, GetParameters.Request(names=names)).values  # type: ignore[attr-defined]
    assert (now[0].integer_value, now[1].integer_value) == (2, 32)
    assert (now[2].double_value, now[3].string_value) == (20.0, "grid")
    settled(bench)
    check_outputs(bench, sent)
    # What it says it has is what it works with.
    assert len(bench.send_until_answered().u) == 2 * 2
    assert not node.logged("Traceback")


def test_several_parameters_of_one_request_are_judged_together_and_all_or_none_apply(bench: Bench) -> None:
    client = bench.create_client(SetParametersAtomically, "depthlm/set_parameters_atomically")
    both = [Parameter("sampling.columns", value=5), Parameter("sampling.rows", value=0)]
    request = SetParametersAtomically.Request(parameters=[p.to_parameter_msg() for p in both])
    result = bench.call(client, request).result
    assert not result.successful
    assert len(bench.send_until_answered().u) == 2 * 2
    # A range of obstacles that is possible only when both ends move.
    both = [Parameter("obstacles.min_range_m", value=10.0), Parameter("obstacles.max_range_m", value=20.0)]
    request = SetParametersAtomically.Request(parameters=[p.to_parameter_msg() for p in both])
    result = bench.call(client, request).result
    assert result.successful, result.reason


def test_in_a_storm_of_services_every_call_is_answered_and_the_stream_goes_on(
    bench: Bench, node: NodeProcess
) -> None:
    forget(bench)
    sent = {stamp(bench.send())}
    # A caller that sends so much at once must also keep that many answers.
    kept = QoSProfile(depth=STORM)
    querying = [bench.create_client(QueryDepth, "depthlm/query_depth", qos_profile=kept) for _ in range(3)]
    asking = bench.create_client(AskSpatial, "depthlm/ask", qos_profile=kept)
    bench.wait(lambda: all(client.service_is_ready() for client in (*querying, asking)))
    pending, motions = [], []
    for number in range(STORM):
        query = QueryDepth.Request(u=[40 + number % 60], v=[60], timeout_s=20.0)
        pending.append(querying[number % 3].call_async(query))
        if number % 3 == 0:
            question = AskSpatial.Request(task=0, u=[40], v=[60], timeout_s=20.0)
            pending.append(asking.call_async(question))
        if number % 25 == 0:  # before the places are taken, and after
            motion = AskSpatial.Request(task=AskSpatial.Request.TASK_CAMERA_MOTION, timeout_s=20.0)
            motions.append(asking.call_async(motion))
        if number % 10 == 0:
            sent.add(stamp(bench.send()))
            bench.spin(0.01)
    answered_before = len(bench.got["sparse_depth"])

    def done() -> bool:
        sent.add(stamp(bench.send()))
        bench.spin(0.05)
        return all(future.done() for future in (*pending, *motions))

    bench.wait(done, 60.0)
    moved = [future.result() for future in motions]
    assert any(answer.success for answer in moved), [answer.message for answer in moved]
    answers = [future.result() for future in pending] + moved
    told = Counter(answer.success or answer.message.split(":")[0] for answer in answers)
    assert told[True] > 0, told
    assert all(answer.success or answer.message for answer in answers)
    for answer in answers:
        if answer.success and hasattr(answer, "result"):
            assert answer.result.depth[0] > 0.0
    assert bench.send_until_answered()
    assert len(bench.got["sparse_depth"]) > answered_before
    check_outputs(bench, {*sent, *stamps(bench, "sparse_depth")[-1:]})
    assert not node.logged("Traceback")


def test_a_storm_of_transitions_ends_in_the_state_that_was_asked_for(bench: Bench, node: NodeProcess) -> None:
    for _ in range(20):
        for _ in range(3):
            bench.send()
        assert bench.transition(Transition.TRANSITION_DEACTIVATE)
        assert not bench.call(bench.query, QueryDepth.Request(u=[80], v=[60])).success
        assert bench.transition(Transition.TRANSITION_ACTIVATE)
    assert not bench.transition(Transition.TRANSITION_CONFIGURE)  # it is active
    assert bench.state() == "active"
    assert bench.send_until_answered()
    wait_for_verdict(bench, "engine", "OK", "ready")
    assert not node.logged("Traceback")


class Racing(SingleThreadedExecutor):
    """Meets what a transition has just destroyed, twice; then ROS ends."""

    def __init__(self, context: rclpy.Context) -> None:
        super().__init__(context=context)
        self.turns = 0

    def spin_once(self, timeout_sec: float | None = None) -> None:
        self.turns += 1
        if self.turns < 3:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")
        self.context.shutdown()


def test_an_executor_that_meets_what_was_just_destroyed_spins_on() -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = Racing(context)
    spin(executor, threading.Event())
    assert executor.turns == 3
