"""Turns of the stream and its callers, budgets, and a camera faster than the engine, on the running node."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from gated import Gated, clients, depth_at, gated_node, hold
from toy_node import inside

from depthlm_ros.engines.base import Answer, Prompt
from depthlm_ros.msg import SparseDepth
from depthlm_ros.ros.messages import stamp_ns
from depthlm_ros.srv import QueryDepth

NAMES = (f"/turns_{n}" for n in itertools.count())
OK, OVER_BUDGET = SparseDepth.STATUS_OK, 11  # the message's own number: see test_messages.py


def test_only_the_first_points_are_asked_where_the_budget_is_points(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"sampling__columns": 4, "sampling__rows": 3, "stream__budget_points": 5}
    with inside(engine, monkeypatch, next(NAMES), **parameters) as (node, bench):
        sparse = bench.send_until_answered()
        assert list(sparse.status) == [OK] * 5 + [OVER_BUDGET] * 7
        assert np.isfinite(sparse.depth[:5]).all()
        assert np.isnan(sparse.depth[5:]).all()
        assert np.isnan(sparse.sigma[5:]).all()
        assert node.health.total.failed_points["over_budget"] % 7 == 0
        assert node.health.total.points_asked == 5 * node.health.total.frames_answered
        assert bench.set_parameter("stream.budget_points", 0) == (True, "")
        assert list(bench.send_until_answered().status) == [OK] * 12


def test_what_is_answered_when_the_seconds_are_over_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Gated(batch_size=1000, delay_s=0.2)
    parameters = {
        "sampling__columns": 8,
        "sampling__rows": 5,
        "stream__budget_s": 0.5,
        "stream__chunk_points": 4,
    }
    with inside(slow, monkeypatch, next(NAMES), **parameters) as (_, bench):
        status = np.asarray(bench.send_until_answered().status)
        answered = int((status == OK).sum())
        # Of ten chunks of 0.2 s no more than two can end within 0.5 s, and the first is always asked.
        assert answered in (4, 8)
        assert (status[:answered] == OK).all()
        assert (status[answered:] == OVER_BUDGET).all()
        assert set(slow.calls) == {4}
        assert bench.counters()["failed_points/over_budget"]


def test_a_camera_ten_times_faster_than_the_engine_makes_frames_neither_old_nor_many(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {
        "sampling__columns": 4,
        "sampling__rows": 3,
        "stream__chunk_points": 4,
        "stream__max_age_s": 600.0,
    }
    arrived: list[int] = []
    begun: list[int] = []

    class Paced(Gated):
        """Each of a frame's three calls lasts until four more frames have come: twelve a frame."""

        def generate(self, prompts: Sequence[Prompt], **kwargs: Any) -> list[Answer]:
            came, until = threading.Event(), len(arrived) + 4
            while not self._cancelled.is_set() and len(arrived) < until:
                came.wait(0.001)
            return super().generate(prompts, **kwargs)

    with inside(Paced(batch_size=1000), monkeypatch, next(NAMES), **parameters) as (node, bench):
        see = node.frames.see
        monkeypatch.setattr(
            node.frames, "see", lambda pair: (arrived.append(stamp_ns(pair.header)), see(pair))
        )
        assert node._pipeline is not None
        estimate = node._pipeline.estimate

        def begin(*args: Any) -> Any:
            begun.append(len(arrived))
            return estimate(*args)

        monkeypatch.setattr(node._pipeline, "estimate", begin)
        got: list[tuple[int, int]] = []

        def enough() -> bool:
            bench.send()
            for msg in bench.got["sparse_depth"][len(got) :]:
                got.append((stamp_ns(msg.header), len(arrived)))
            return len(got) >= 8

        bench.wait(enough, 120.0)
        order = [arrived.index(stamp) for stamp, _ in got]
        assert order == sorted(set(order))
        for number, (index, (_, now)) in enumerate(zip(order, got, strict=True)):
            # What is begun is the newest there is, but for the one that is just arriving.
            assert begun[number] - index <= 2
            # And it is out before the camera has sent much more than the engine needs for one frame.
            assert now - index <= 12 + 6
        total = node.health.total
        assert set(total.dropped) == {"newer"}
        assert 0 <= total.frames_in - total.frames_answered - total.dropped["newer"] <= 2
        assert total.dropped["newer"] > 8 * 9


def test_a_caller_has_its_turn_between_two_chunks_of_a_frame(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"sampling__columns": 4, "sampling__rows": 3, "stream__chunk_points": 4}
    with gated_node(engine, monkeypatch, **parameters) as (node, bench):
        header = hold(engine, bench)
        assert engine.calls == [4]
        future = bench.query.call_async(QueryDepth.Request(u=[80], v=[60], timeout_s=30.0))
        bench.wait(lambda: node._queries is not None and len(node._queries._waiting) == 1)
        engine.gate.set()
        sparse = bench.wait_for("sparse_depth", header)
        bench.wait(future.done)
        assert engine.calls == [4, 1, 4, 4]
        assert list(sparse.status) == [OK] * 12
        assert future.result().result.depth[0] == pytest.approx(depth_at(80))
        assert future.result().result.header == header


def test_callers_that_never_pause_starve_neither_the_stream_nor_each_other(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"sampling__columns": 8, "sampling__rows": 8, "stream__chunk_points": 8}
    with gated_node(engine, monkeypatch, **parameters) as (_, bench):
        bench.got["sparse_depth"].clear()
        callers = clients(bench, 10)
        answered = [0] * len(callers)
        pending: list[Any] = [None] * len(callers)
        u, v = np.meshgrid(np.arange(20, 140, 4), np.arange(20, 100, 4))
        much = QueryDepth.Request(u=u.ravel(), v=v.ravel(), timeout_s=60.0)  # 600 pixels: 75 turns

        def all_served() -> bool:
            bench.send()
            for k, client in enumerate(callers):
                if pending[k] is None or pending[k].done():
                    if pending[k] is not None:
                        assert pending[k].result().success, pending[k].result().message
                        answered[k] += 1
                    little = QueryDepth.Request(u=[20 + k], v=[60], timeout_s=60.0)
                    pending[k] = client.call_async(much if k == 0 else little)
            return len(bench.got["sparse_depth"]) >= 3 and min(answered[1:]) >= 2

        bench.wait(all_served, 120.0)
