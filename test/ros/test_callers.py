"""Callers of the services: what they share, which frame they ask, and what they are told, on the running node."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from gated import Gated, clients, depth_at, gated_node, hold, rest
from graph import FOCAL, HEIGHT, WIDTH, image_message
from toy_node import PROFILE

from depthlm_ros.engines.base import Prompt
from depthlm_ros.msg import SparseDepth
from depthlm_ros.srv import AskSpatial, QueryDepth

OK = SparseDepth.STATUS_OK


def test_forty_callers_share_batches_and_each_gets_its_own_answer(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated_node(engine, monkeypatch) as (node, bench):
        callers = clients(bench, 8)
        hold(engine, bench)
        pixels = [(20 + 2 * k, 30 + k) for k in range(40)]
        futures = [
            callers[k % 8].call_async(QueryDepth.Request(u=[u, 140], v=[v, 60]))
            for k, (u, v) in enumerate(pixels)
        ]
        bench.wait(lambda: node._queries is not None and len(node._queries._waiting) == 40)
        engine.gate.set()
        bench.wait(lambda: all(future.done() for future in futures))
        for (u, _), future in zip(pixels, futures, strict=True):
            response = future.result()
            assert response.success, response.message
            assert list(response.result.depth) == pytest.approx([depth_at(u), depth_at(140)])
        # 40 pixels of their own and one that all named, 32 at a time, after the two of the stream.
        assert engine.calls == [2, 32, 9]


def test_questions_computed_from_depth_share_the_batch_of_query_depth(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated_node(engine, monkeypatch) as (node, bench):
        (asking,) = clients(bench, 1, AskSpatial, "ask")
        header = hold(engine, bench)
        depth = bench.query.call_async(QueryDepth.Request(u=[40], v=[60]))
        task = AskSpatial.Request.TASK_TWO_POINT_DISTANCE
        apart = asking.call_async(AskSpatial.Request(task=task, u=[40, 100], v=[60, 60]))
        bench.wait(lambda: node._queries is not None and len(node._queries._waiting) == 2)
        engine.gate.set()
        bench.wait(lambda: depth.done() and apart.done())
        assert engine.calls == [2, 2]
        answer = apart.result()
        assert answer.success, answer.message
        assert answer.header == depth.result().result.header == header
        z0, z1 = depth_at(40), depth_at(100)
        a = np.array([(40 - (WIDTH - 1) / 2) / FOCAL * z0, (60 - (HEIGHT - 1) / 2) / FOCAL * z0, z0])
        b = np.array([(100 - (WIDTH - 1) / 2) / FOCAL * z1, (60 - (HEIGHT - 1) / 2) / FOCAL * z1, z1])
        assert answer.value == pytest.approx(float(np.linalg.norm(a - b)), rel=1e-5)


def test_questions_that_the_model_answers_itself_share_a_call_with_those_of_their_task(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = replace(PROFILE, spatial_tasks=("principal_axis_distance", "time"))
    with gated_node(engine, monkeypatch, trained) as (node, bench):
        asking = clients(bench, 4, AskSpatial, "ask")
        header = hold(engine, bench)
        ahead = AskSpatial.Request.TASK_PRINCIPAL_AXIS_DISTANCE
        futures = [
            asking[k % 4].call_async(AskSpatial.Request(task=ahead, u=[20 + 2 * k], v=[60]))
            for k in range(12)
        ]
        waiting = lambda: 0 if node._questions is None else len(node._questions._waiting)  # noqa: E731
        bench.wait(lambda: waiting() == 12)
        other = asking[0].call_async(
            AskSpatial.Request(task=AskSpatial.Request.TASK_TIME, u=[40], v=[60], speed=1.0)
        )
        outside = asking[1].call_async(AskSpatial.Request(task=ahead, u=[4000], v=[60]))
        bench.wait(lambda: waiting() == 14)
        engine.gate.set()
        bench.wait(lambda: all(future.done() for future in (*futures, other, outside)))
        assert engine.calls == [2, 12, 1]
        for k, future in enumerate(futures):
            answer = future.result()
            assert answer.success, answer.message
            assert (answer.header, answer.derived) == (header, False)
            assert answer.value == pytest.approx(depth_at(20 + 2 * k))
        assert "outside the image" in outside.result().message


def test_a_camera_motion_is_asked_a_chunk_a_turn_as_all_else_is(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"sampling__columns": 4, "stream__chunk_points": 4, "stream__max_age_s": 600.0}
    with gated_node(engine, monkeypatch, **parameters) as (node, bench):
        (asking,) = clients(bench, 1, AskSpatial, "ask")
        blocks = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        textured = blocks.repeat(8, axis=0).repeat(8, axis=1).tobytes()
        earlier = bench.send(image_message(bench.header(), data=textured))
        bench.wait_for("sparse_depth", earlier)
        rest(engine, node, bench)
        total = node.health.total
        asked, answered = total.points_asked, total.points_answered
        header = hold(engine, bench, image_message(bench.header(), data=textured))
        motion = AskSpatial.Request(
            task=AskSpatial.Request.TASK_CAMERA_MOTION, earlier_stamp=earlier.stamp, timeout_s=30.0
        )
        future = asking.call_async(motion)
        bench.spin(0.3)
        engine.gate.set()
        bench.wait(future.done)
        answer = future.result()
        assert answer.success, answer.message
        assert answer.derived
        assert (answer.earlier_header, answer.header) == (earlier, header)
        assert [depths.header for depths in answer.depths] == [earlier, header]
        bench.wait_for("sparse_depth", header)
        # Up to 24 points of either image, each of which shows what the other does: they agree on standing still.
        points = sum(len({*zip(depths.u, depths.v, strict=True)}) for depths in answer.depths)
        assert points >= 16
        assert answer.status == OK, answer.message
        assert answer.value == pytest.approx(0.0, abs=0.01)
        assert max(engine.calls) == 4
        assert sum(engine.calls) == 4 + points
        assert (total.points_asked - asked, total.points_answered - answered) == (4 + points, 4 + points)
        assert total.questions_asked == 1


def test_a_stamped_frame_is_asked_though_it_is_not_the_newest(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated_node(engine, monkeypatch, stream__max_age_s=600.0) as (_, bench):
        old = bench.send_until_answered().header
        new = bench.send()
        bench.wait_for("sparse_depth", new)
        request = QueryDepth.Request(u=[80], v=[60], stamp=old.stamp, timeout_s=30.0)
        response = bench.call(bench.query, request)
        assert response.success, response.message
        assert response.result.header == old
        request.stamp.sec -= 1
        refused = bench.call(bench.query, request)
        assert not refused.success
        assert "is kept" in refused.message


def test_whoever_waits_is_told_when_the_node_is_deactivated(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated_node(engine, monkeypatch) as (node, bench):
        hold(engine, bench)
        futures = [bench.query.call_async(QueryDepth.Request(u=[40 + k], v=[60])) for k in range(5)]
        bench.wait(lambda: node._queries is not None and len(node._queries._waiting) == 5)
        threading.Timer(0.1, engine.gate.set).start()
        node.trigger_deactivate()
        bench.wait(lambda: all(future.done() for future in futures))
        assert {future.result().success for future in futures} == {False}
        assert all("deactivated" in future.result().message for future in futures)


def test_what_was_answered_before_the_frame_grew_too_old_is_handed_over(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated_node(engine, monkeypatch, stream__chunk_points=2) as (node, bench):
        bench.wait_for("sparse_depth", bench.send())
        rest(engine, node, bench)

        def say(prompt: Prompt) -> str:
            assert node._pipeline is not None
            node._pipeline._age_s = lambda _: 100.0 if len(engine.calls) > 1 else 0.0
            return Gated.say(prompt)

        engine._script = say
        response = bench.call(
            bench.query, QueryDepth.Request(u=[40, 60, 80, 100, 120], v=[60] * 5, timeout_s=30.0)
        )
        assert response.success, response.message
        assert engine.calls == [2, 2]
        result = response.result
        # The frame grew too old during the second call.
        assert list(result.status) == [OK] * 2 + [result.STATUS_DEADLINE] * 3
        assert list(result.depth[:2]) == pytest.approx([depth_at(u) for u in (40, 60)])
        assert np.isnan(result.depth[2:]).all()
        refused = bench.call(bench.query, QueryDepth.Request(u=[40], v=[60], timeout_s=30.0))
        assert not refused.success
        assert "100.000 s old" in refused.message


def test_what_is_answered_is_handed_over_though_a_chunk_of_the_stream_lasts_longer_than_the_caller_waits(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(prompt: Prompt) -> str:
        if len(engine.calls) == 2:  # the caller's chunk: the stream's next one waits for the test
            engine.gate.clear()
        return Gated.say(prompt)

    parameters = {"sampling__rows": 2, "stream__chunk_points": 2, "stream__max_age_s": 600.0}
    with gated_node(engine, monkeypatch, **parameters) as (node, bench):
        engine._script = say
        header = hold(engine, bench)
        request = QueryDepth.Request(u=[40, 60, 80, 100, 120], v=[60] * 5, timeout_s=0.5)
        future = bench.query.call_async(request)
        bench.wait(lambda: node._queries is not None and len(node._queries._waiting) == 1)
        engine.gate.set()
        bench.wait(future.done)
        assert not engine.gate.is_set(), "the chunk of the stream has not ended"
        assert engine.calls == [2, 2, 2]
        response = future.result()
        assert response.success, response.message
        result = response.result
        assert list(result.status) == [OK] * 2 + [result.STATUS_DEADLINE] * 3
        assert list(result.depth[:2]) == pytest.approx([depth_at(u) for u in (40, 60)])
        assert np.isnan(result.depth[2:]).all()
        assert node.health.total.failed_points == {"deadline": 3}
        engine.gate.set()
        assert list(bench.wait_for("sparse_depth", header).status) == [OK] * 4
        assert engine.calls == [2, 2, 2]


def test_pixels_not_asked_in_the_callers_time_are_nan_and_say_so(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(prompt: Prompt) -> str:
        engine.gate.clear()  # the next chunk waits for the test
        return Gated.say(prompt)

    with gated_node(engine, monkeypatch, stream__chunk_points=2) as (_, bench):
        engine._script = say
        request = QueryDepth.Request(u=[40, 60, 80, 100, 120], v=[60] * 5, timeout_s=1.5)
        future = bench.query.call_async(request)
        bench.wait(lambda: engine.calls == [2, 2])
        bench.spin(1.6)
        engine.gate.set()
        bench.wait(future.done)
        result = future.result().result
        assert future.result().success, future.result().message
        late = result.STATUS_DEADLINE
        assert list(result.status) == [OK, OK, late, late, late]
        assert [math.isnan(z) for z in result.depth] == [False, False, True, True, True]
