"""Clicks in rviz2 and rqt_image_view, on the running node."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from gated import Gated, depth_at
from geometry_msgs.msg import Point, PointStamped, Transform, Vector3
from graph import FOCAL, HEIGHT, WIDTH, Bench, info_message
from std_msgs.msg import Header
from test_heights import tf2_stand_in
from toy_node import inside

from depthlm_ros.engines.base import Prompt
from depthlm_ros.ros.node import DepthLMNode

NAMES = (f"/clicked_{n}" for n in itertools.count())
SMALL = {
    "sampling__columns": 2,
    "sampling__rows": 1,
    "stream__query_timeout_s": 60.0,
    "stream__max_age_s": 600.0,
}


@pytest.fixture
def engine() -> Gated:
    return Gated(batch_size=1000)


class Person:
    """Clicks, and sees what is published."""

    def __init__(self, node: DepthLMNode, bench: Bench) -> None:
        self.node, self.bench = node, bench
        self.points: list[PointStamped] = []
        self.rviz = bench.create_publisher(PointStamped, "/clicked_point", 10)
        bench.create_subscription(PointStamped, "depthlm/clicked/point", self.points.append, 10)
        bench.wait(lambda: self.rviz.get_subscription_count() == 1)
        bench.wait(lambda: node._clicks is not None and node._clicks._answers.get_subscription_count() == 1)

    def view(self, topic: str) -> Any:
        """A publisher as rqt_image_view has it for an image's topic."""
        publisher = self.bench.create_publisher(Point, f"{topic}_mouse_left", 10)
        self.bench.wait(lambda: publisher.get_subscription_count() == 1)
        return publisher

    def click(self, publisher: Any, message: Any) -> None:
        """Click, and wait until it is known what became of it."""
        before = self.node.health.total.clicks.total()
        publisher.publish(message)
        self.bench.wait(lambda: self.node.health.total.clicks.total() == before + 1)
        self.bench.spin(0.1)

    def click_space(self, frame: str, x: float, y: float, z: float) -> None:
        self.click(self.rviz, PointStamped(header=Header(frame_id=frame), point=Point(x=x, y=y, z=z)))


def point_at(u: int, v: int, z: float) -> list[float]:
    return [(u - (WIDTH - 1) / 2) / FOCAL * z, (v - (HEIGHT - 1) / 2) / FOCAL * z, z]


def xyz(answer: PointStamped) -> list[float]:
    return [answer.point.x, answer.point.y, answer.point.z]


def test_a_point_clicked_in_space_is_measured_where_the_camera_sees_it(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **SMALL) as (node, bench):
        person = Person(node, bench)
        header = bench.send()
        bench.wait_for("sparse_depth", header)
        person.click_space("camera_optical_frame", *point_at(100, 80, 5.0))
        (answer,) = person.points
        assert answer.header == header
        assert xyz(answer) == pytest.approx(point_at(100, 80, depth_at(100)))
        assert dict(node.health.total.clicks) == {"ok": 1}
        assert bench.counters()["clicks/ok"] == "1"


def test_a_click_without_an_answer_publishes_nothing_and_is_counted(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **SMALL) as (node, bench):
        person = Person(node, bench)
        person.click_space("camera_optical_frame", *point_at(100, 80, 5.0))
        bench.wait_for("sparse_depth", bench.send())
        person.click_space("camera_optical_frame", 0.0, 0.0, -1.0)
        person.click_space("camera_optical_frame", *point_at(-30, 80, 5.0))
        person.click_space("camera_optical_frame", *point_at(1, 60, 5.0))
        person.click_space("camera_optical_frame", float("nan"), 0.0, 1.0)
        monkeypatch.setitem(sys.modules, "tf2_ros", None)
        person.click_space("map", 1.0, 2.0, 3.0)
        engine._script = lambda _: " far away"
        person.click_space("camera_optical_frame", *point_at(100, 80, 5.0))
        assert person.points == []
        assert dict(node.health.total.clicks) == {
            "no_frame": 1, "behind": 1, "outside": 2, "undrawable": 1, "no_tf2": 1, "no_number": 1,
        }  # fmt: skip
        engine._script = Gated.say
        assert bench.set_parameter("clicks.enabled", False) == (True, "")
        before = node.health.total.clicks.total()
        person.rviz.publish(PointStamped(header=Header(frame_id="map")))
        bench.send_until_answered()
        assert node.health.total.clicks.total() == before


def test_a_point_of_another_frame_is_brought_into_the_cameras_by_tf2(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = Transform(translation=Vector3(x=0.5, y=-0.25, z=2.0))
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_stand_in({("camera_optical_frame", "map"): ahead}))
    with inside(engine, monkeypatch, next(NAMES), **SMALL) as (node, bench):
        person = Person(node, bench)
        bench.wait_for("sparse_depth", bench.send())
        x, y, z = point_at(60, 40, 4.0)
        person.click_space("map", x - 0.5, y + 0.25, z - 2.0)
        person.click_space("odom", 1.0, 1.0, 1.0)
        assert [xyz(answer) for answer in person.points] == [pytest.approx(point_at(60, 40, depth_at(60)))]
        assert dict(node.health.total.clicks) == {"ok": 1, "no_transform": 1}


def test_a_pixel_clicked_in_a_distorted_image_is_that_of_the_rectified_one(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = [-0.3, 0.1, 0.001, -0.002, 0.0]
    k = np.array([[FOCAL, 0.0, (WIDTH - 1) / 2], [0.0, FOCAL, (HEIGHT - 1) / 2], [0.0, 0.0, 1.0]])
    rectified = np.array([[130.0, 100.0]])
    ray = np.append((rectified[0] - k[:2, 2]) / FOCAL, 1.0)
    raw = cv2.projectPoints(ray[None], np.zeros(3), np.zeros(3), k, np.array(d))[0].ravel()
    assert np.abs(raw - rectified[0]).max() > 2.0
    with inside(engine, monkeypatch, next(NAMES), **SMALL) as (node, bench):
        person = Person(node, bench)
        header = bench.send(None, info_message(bench.header(), d=d))
        bench.wait_for("sparse_depth", header)
        person.click(person.view("image"), Point(x=float(round(raw[0])), y=float(round(raw[1]))))
        person.click(person.view("depthlm/debug/image"), Point(x=130.0, y=100.0))
        person.click(person.view("depthlm/depth/image"), Point(x=130.0, y=100.0))
        in_raw, in_debug, in_depth = map(xyz, person.points)
        u, v = np.array(in_raw[:2]) / in_raw[2] * FOCAL + k[:2, 2]
        assert np.hypot(u - 130, v - 100) < 1.5  # the raw pixel was rounded
        assert in_debug == in_depth == pytest.approx(point_at(130, 100, depth_at(130)))


def test_the_right_and_lower_border_as_rqt_image_view_rounds_them_belong_to_the_image(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **SMALL) as (node, bench):
        person = Person(node, bench)
        bench.wait_for("sparse_depth", bench.send())
        person.click(person.view("image"), Point(x=float(WIDTH), y=float(HEIGHT)))
        assert dict(node.health.total.clicks) == {
            "undrawable": 1
        }  # no room for the arrow, but no other image


def test_a_click_that_is_answered_while_the_node_deactivates_is_not_published(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    click = PointStamped(header=Header(frame_id="camera_optical_frame"), point=Point(z=5.0))
    with inside(engine, monkeypatch, next(NAMES), **SMALL) as (node, bench):
        person = Person(node, bench)
        bench.wait_for("sparse_depth", bench.send())
        bench.wait(lambda: node.worker is not None and not node.worker._has_work())
        engine.calls.clear()
        engine.gate.clear()
        person.rviz.publish(click)
        bench.wait(lambda: engine.calls == [1])
        worker, queries = node.worker, node._queries
        assert worker is not None
        assert queries is not None
        stop = worker.stop

        def finish_and_stop(*args: Any, **kwargs: Any) -> bool:
            engine.gate.set()  # what is under way ends well before the publishers fall silent
            bench.wait(lambda: not queries._waiting)
            return stop(*args, **kwargs)

        monkeypatch.setattr(worker, "stop", finish_and_stop)
        node.trigger_deactivate()
        bench.spin(0.2)
        assert person.points == []
        assert dict(node.health.total.clicks) == {}
        node.trigger_activate()
        bench.wait(lambda: person.rviz.get_subscription_count() == 1)
        bench.wait_for("sparse_depth", bench.send())
        person.click_space("camera_optical_frame", 0.0, 0.0, 5.0)
        assert len(person.points) == 1


def test_a_click_whose_frame_grows_too_old_while_it_is_measured_publishes_nothing(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(engine, monkeypatch, next(NAMES), **SMALL) as (node, bench):
        person = Person(node, bench)
        bench.wait_for("sparse_depth", bench.send())
        bench.wait(lambda: node.worker is not None and not node.worker._has_work())

        def say(prompt: Prompt) -> str:
            assert node._pipeline is not None
            node._pipeline._age_s = lambda _: 600.1
            return Gated.say(prompt)

        engine._script = say
        person.click_space("camera_optical_frame", 0.0, 0.0, 5.0)
        assert person.points == []
        assert dict(node.health.total.clicks) == {"late": 1}
