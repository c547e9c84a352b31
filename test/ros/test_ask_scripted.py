"""The parts of the service ``~/ask`` against scripted answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import FOCAL
from toy_node import pair_at

from depthlm_ros.config import CameraConfig, StreamConfig
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.msg import SparseDepth
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.ros.ask import AskService
from depthlm_ros.ros.desk import MAX_WAITING, ServiceDesk, Serving
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair
from depthlm_ros.ros.recent import RecentFrames
from depthlm_ros.ros.shared_queries import SharedQueries
from depthlm_ros.ros.shared_questions import SharedQuestions
from depthlm_ros.ros.worker import NewestFirstWorker
from depthlm_ros.spatial.between import SharedPoints
from depthlm_ros.spatial.request import SpatialRequest
from depthlm_ros.spatial.tasks import SpatialTask
from depthlm_ros.srv import AskSpatial

Request = AskSpatial.Request
AHEAD, APART = Request.TASK_PRINCIPAL_AXIS_DISTANCE, Request.TASK_TWO_POINT_DISTANCE


def pipeline(engine: FakeEngine, *tasks: SpatialTask) -> FramePipeline:
    names = tuple(task.value for task in tasks)
    profile = CheckpointProfile("test", FOCAL / 2, max_new_tokens=20, spatial_tasks=names)
    return FramePipeline(DepthEstimator(engine, profile), CameraConfig(), lambda _: 0.0)


def test_a_motion_whose_turn_to_be_matched_comes_after_a_deactivation_is_not_matched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = RecentFrames()
    frames.keep(pair_at(1.0, time.monotonic()), 60.0)
    frames.see(pair_at(2.0, time.monotonic()))
    matched: list[Any] = []
    monkeypatch.setattr(SharedPoints, "of", lambda *both: matched.append(both))
    monkeypatch.setattr(NewestFirstWorker, "stopping", True)
    with FakeEngine(lambda _: " 2.00 meters") as engine, served(engine, Health(print), frames) as call:
        answer = call(Request(task=Request.TASK_CAMERA_MOTION))
    assert not answer.success
    assert "deactivated" in answer.message
    assert not matched


def test_a_trained_checkpoint_is_asked_in_the_tasks_words() -> None:
    said = " 0.50 meters. </think>\n\n<answer> 0.30 0.00 0.40 0.0 5.0 0.0 </answer>"
    with FakeEngine(lambda _: said) as engine:
        answer = pipeline(engine, SpatialTask.CAMERA_MOTION).ask(
            [pair_at(1.0, 0.0), pair_at(2.0, 1.0)],
            SpatialRequest(SpatialTask.CAMERA_MOTION),
            StreamConfig(),
            deadline=time.monotonic() + 9,
        )
    assert not answer.derived
    assert answer.value == pytest.approx(0.5)
    assert len(engine.prompts) == 1
    assert len(engine.prompts[0].images) == 2


def test_a_pixel_outside_the_first_image_is_refused_before_anything_is_asked() -> None:
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        with pytest.raises(FrameRefusedError, match=r"\(160, 3\) is outside the image of 160x120"):
            pipeline(engine).ask(
                [pair_at(1.0, 0.0)],
                SpatialRequest(SpatialTask.PRINCIPAL_AXIS_DISTANCE, ((160, 3),)),
                StreamConfig(),
                deadline=time.monotonic() + 9,
            )
        assert engine.prompts == []


class Offering:
    """In the node's place: keeps the callback of the service that is offered."""

    def create_service(self, kind: Any, name: str, callback: Any, **_: Any) -> None:
        assert (kind, name) == (AskSpatial, "~/ask")
        self.callback = callback


@contextmanager
def served(
    engine: FakeEngine, health: Health, frames: RecentFrames, *tasks: SpatialTask
) -> Iterator[Callable[[AskSpatial.Request], AskSpatial.Response]]:
    """The service's callback over a pipeline whose engine is scripted."""
    failed: list[BaseException] = []
    worker: NewestFirstWorker[Pair] = NewestFirstWorker(lambda _: iter(()), failed.append)
    worker.start()
    asked = pipeline(engine, *tasks)
    queries, questions = SharedQueries(worker, asked, frames, health), SharedQuestions(worker, asked, frames)
    serving = Serving(worker, asked, frames, StreamConfig(), queries, questions)
    offering = Offering()
    AskService(offering, None, health, ServiceDesk(health, lambda: serving))  # type: ignore[arg-type]
    yield lambda request: offering.callback(request, AskSpatial.Response())
    assert worker.stop(5.0)
    assert not failed


def test_what_became_of_a_direct_question_is_counted() -> None:
    health, frames = Health(print), RecentFrames()
    frames.see(pair_at(1.0, time.monotonic()))
    said = iter([" far away", " 2.00 meters", " 0.00 meters", " far away"])
    question = Request(task=AHEAD, u=[80], v=[60])
    with (
        FakeEngine(lambda _: next(said)) as engine,
        served(engine, health, frames, SpatialTask.PRINCIPAL_AXIS_DISTANCE) as call,
    ):
        answers = [call(question) for _ in range(4)]
    assert [answer.status for answer in answers] == [
        SparseDepth.STATUS_NO_NUMBER,
        SparseDepth.STATUS_OK,
        SparseDepth.STATUS_NOT_POSITIVE,
        SparseDepth.STATUS_NO_NUMBER,
    ]
    assert all(answer.success and not answer.derived and math.isnan(answer.confidence) for answer in answers)
    assert health.total.questions_asked == 4
    assert health.total.failed_questions == {"no_number": 2, "not_positive": 1}
    assert health.total.points_asked == 0  # no depth was asked


def test_a_derived_question_is_counted_beside_its_points() -> None:
    health, frames = Health(print), RecentFrames()
    frames.see(pair_at(1.0, time.monotonic()))
    with FakeEngine(lambda _: " 2.00 meters") as engine, served(engine, health, frames) as call:
        assert call(Request(task=APART, u=[40, 100], v=[50, 80])).status == SparseDepth.STATUS_OK
        assert call(Request(task=AHEAD, u=[40], v=[50], seconds=3.0)).status == 255  # refused: never asked
    assert (health.total.questions_asked, dict(health.total.failed_questions)) == (1, {})
    assert (health.counters()["points_asked"], health.counters()["points_answered"]) == (2, 2)


@pytest.mark.parametrize("trained", [(), (SpatialTask.PRINCIPAL_AXIS_DISTANCE,)])
def test_frames_that_are_forgotten_before_a_callers_turn_are_told(trained: tuple[SpatialTask, ...]) -> None:
    class Forgetting(RecentFrames):
        @property
        def newest(self) -> Pair | None:
            pair = super().newest
            self.clear()
            return pair

    frames = Forgetting()
    frames.see(pair_at(1.0, time.monotonic()))
    with (
        FakeEngine(lambda _: " 2.00 meters") as engine,
        served(engine, Health(print), frames, *trained) as call,
    ):
        answer = call(Request(task=AHEAD, u=[80], v=[60]))
        assert not answer.success
        assert "no frame is kept any more" in answer.message
        assert "no frame has arrived yet" in call(Request(task=AHEAD, u=[80], v=[60])).message


def test_no_exception_leaves_the_desk_and_places_are_given_back() -> None:
    said: list[str] = []
    desk = ServiceDesk(Health(said.append), lambda: None)  # type: ignore[arg-type,return-value]

    def fails(_: Any) -> None:
        raise KeyError("surprise")

    for _ in range(MAX_WAITING + 1):
        response = desk.serve("~/ask", AskSpatial.Response(success=True), fails)
        assert not response.success
        assert "internal error: KeyError" in response.message
    assert len(said) == 1

    def nested(depth: int) -> AskSpatial.Response:
        inner: list[AskSpatial.Response] = []
        work = (lambda _: inner.append(nested(depth - 1))) if depth else (lambda _: None)
        response = desk.serve("~/ask", AskSpatial.Response(), work)
        return inner[-1] if inner else response

    assert nested(MAX_WAITING - 1).success
    full = nested(MAX_WAITING)
    assert not full.success
    assert f"{MAX_WAITING} queries wait already" in full.message
