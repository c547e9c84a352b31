"""What the node gives up is ended on the wire, whatever the reason: the server sees the connections close."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import Bench
from servers.fixtures import engine_of
from servers.holding import Holding
from servers.kinds import Vllm
from servers.scripted import ScriptedModel
from toy_node import inside

from depthlm_ros.engines.openai import OpenAIEngine
from depthlm_ros.ros.node import DepthLMNode
from depthlm_ros.srv import QueryDepth

NAMES = (f"/given_up_{n}" for n in itertools.count())
POINTS = 6
PARAMETERS: dict[str, Any] = {
    "sampling__columns": POINTS,
    "sampling__rows": 1,
    "stream__max_age_s": 600.0,
    "stream__query_timeout_s": 600.0,
}
Reason = Callable[[DepthLMNode], Any]


@pytest.fixture
def server() -> Iterator[Vllm]:
    with Vllm(ScriptedModel()) as server:
        yield server


@pytest.fixture
def engine(server: Vllm) -> OpenAIEngine:
    return engine_of(server, read_timeout_s=600.0)


def hold(server: Vllm, node: DepthLMNode, bench: Bench) -> Holding:
    """Have the server hold requests back once the node has answered and is idle."""
    bench.send_until_answered()
    bench.wait(lambda: node.worker is not None and not node.worker._has_work())
    server.fault = held = Holding()
    return held


@pytest.mark.parametrize("whose", ["frame", "caller"])
@pytest.mark.parametrize(
    "reason",
    [
        pytest.param(lambda node: node.trigger_deactivate(), id="deactivated"),
        pytest.param(lambda node: node.trigger_shutdown(), id="shut down"),
        pytest.param(lambda node: node.close(), id="the process ends"),
        pytest.param(lambda node: node._went_back("jumped"), id="the clock jumped"),
    ],
)
def test_a_frame_or_a_callers_pixels_when_the_node_turns_away(
    server: Vllm, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch, reason: Reason, whose: str
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **PARAMETERS) as (node, bench):
        held = hold(server, node, bench)
        request = QueryDepth.Request(u=[40 + 5 * k for k in range(POINTS)], v=[60] * POINTS)
        asked = bench.query.call_async(request) if whose == "caller" else None
        if asked is None:
            bench.send()
        bench.wait(lambda: held.waiting == POINTS)
        reason(node)
        bench.wait(lambda: held.waiting == 0)
        assert (held.begun, held.deserted) == (POINTS, POINTS)
        if asked is not None:
            bench.wait(asked.done)
            assert not asked.result().success
            assert "deactivated" in asked.result().message or "clock" in asked.result().message


@pytest.mark.parametrize("limit", ["stream__budget_s", "stream__max_age_s"])
def test_a_frame_whose_time_is_over(
    server: Vllm, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **PARAMETERS) as (node, bench):
        held = hold(server, node, bench)
        assert bench.set_parameter(limit.replace("__", "."), 1.5) == (True, "")
        bench.send()
        bench.wait(lambda: held.begun == POINTS)
        bench.wait(lambda: held.waiting == 0)
        assert held.deserted == POINTS


@pytest.mark.parametrize("whose", ["caller's", "frame's"])
def test_a_callers_pixels_when_the_time_is_over(
    server: Vllm, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **PARAMETERS) as (node, bench):
        bench.send_until_answered()
        if whose == "frame's":
            assert bench.set_parameter("stream.max_age_s", 3.0) == (True, "")
        held = hold(server, node, bench)
        timeout_s = 1.5 if whose == "caller's" else 600.0
        request = QueryDepth.Request(u=[40, 60, 80], v=[60] * 3, timeout_s=timeout_s)
        asked = bench.query.call_async(request)
        bench.wait(lambda: held.begun == 3)
        bench.wait(asked.done)
        bench.wait(lambda: held.waiting == 0)
        assert held.deserted == 3


def test_a_frame_that_is_being_asked_is_not_given_up_for_a_newer_one_and_one_that_waits_is_never_sent(
    server: Vllm, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **PARAMETERS) as (node, bench):
        held = hold(server, node, bench)
        asked = bench.send()
        bench.wait(lambda: held.waiting == POINTS)
        dropped = bench.send()
        bench.wait(lambda: node.worker is not None and node.worker._frame is not None)
        newest = bench.send()
        bench.wait(lambda: node.health.total.dropped.get("newer") == 1)
        assert (held.begun, held.deserted) == (POINTS, 0)
        before = len(server.chats)
        held.release()
        bench.wait_for("sparse_depth", newest)
        assert [m.header for m in bench.got["sparse_depth"]][-2:] == [asked, newest]
        assert dropped not in [m.header for m in bench.got["sparse_depth"]]
        assert len(server.chats) == before + POINTS
