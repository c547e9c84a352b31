"""What several callers share, where it fails: whoever comes next is answered all the same."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import image_message, info_message
from std_msgs.msg import Header
from toy_node import PROFILE

from depthlm_ros.config import CameraConfig, StreamConfig
from depthlm_ros.engines.base import Answer, EngineError
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair
from depthlm_ros.ros.recent import RecentFrames
from depthlm_ros.ros.shared_queries import Query, SharedQueries
from depthlm_ros.ros.shared_questions import Question, SharedQuestions
from depthlm_ros.ros.worker import NewestFirstWorker
from depthlm_ros.spatial.request import SpatialRequest
from depthlm_ros.spatial.tasks import SpatialTask

TRAINED = replace(PROFILE, spatial_tasks=(SpatialTask.CAMERA_MOTION.value,))
INSIDE, OUTSIDE = (80, 60), (4000, 60)


class Failing(FakeEngine):
    """Raises what it is given, once for each, and answers 2 m from then on."""

    def __init__(self) -> None:
        super().__init__(lambda _: " 2.00 meters")
        self.errors: list[Exception] = []

    def generate(self, *args: Any, **kwargs: Any) -> list[Answer]:
        if self.errors:
            raise self.errors.pop()
        return super().generate(*args, **kwargs)


@pytest.fixture
def engine() -> Iterator[Failing]:
    with Failing() as engine:
        yield engine


@pytest.fixture
def worker() -> Iterator[NewestFirstWorker[Pair]]:
    worker: NewestFirstWorker[Pair] = NewestFirstWorker(lambda _: iter(()), print)
    yield worker  # not started yet: so a test can have several callers wait for one turn
    assert worker.stop(5.0)


def shared_parts(engine: FakeEngine) -> tuple[FramePipeline, RecentFrames]:
    header = Header(frame_id="camera_optical_frame")
    frames = RecentFrames()
    frames.see(Pair(image_message(header), info_message(header), time.monotonic()))
    return FramePipeline(DepthEstimator(engine, TRAINED), CameraConfig(), lambda _: 0.0), frames


def query(pixel: tuple[int, int]) -> Query:
    return Query(None, math.inf, StreamConfig(), np.array([pixel]))


def question(pixel: tuple[int, int]) -> Question:
    ahead = SpatialRequest(SpatialTask.PRINCIPAL_AXIS_DISTANCE, (pixel,), math.nan, math.nan)
    return Question(None, math.inf, StreamConfig(), ahead)


def test_a_question_that_was_refused_before_its_call_failed_keeps_nobody_waiting(
    engine: Failing, worker: NewestFirstWorker[Pair]
) -> None:
    shared = SharedQuestions(worker, *shared_parts(engine))
    engine.errors = [EngineError("the server is gone")]
    refused, failed = question(OUTSIDE), question(INSIDE)
    shared.ask(refused)
    shared.ask(failed)
    worker.start()
    with pytest.raises(ValueError, match="outside the image"):
        refused.result.result(5.0)
    with pytest.raises(EngineError, match="the server is gone"):
        failed.result.result(5.0)
    following = question(INSIDE)
    shared.ask(following)
    assert following.result.result(5.0).answer.value == pytest.approx(2.0)


def test_a_query_that_was_refused_before_an_unforeseen_error_keeps_nobody_waiting(
    engine: Failing, worker: NewestFirstWorker[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, frames = shared_parts(engine)
    shared = SharedQueries(worker, pipeline, frames, Health(print))
    refused, failed = query(OUTSIDE), query(INSIDE)
    shared.ask(refused)
    shared.ask(failed)

    def surprise(*_: Any, **__: Any) -> Any:
        raise KeyError("surprise")

    with monkeypatch.context() as broken:
        broken.setattr(pipeline, "measure", surprise)
        worker.start()
        with pytest.raises(ValueError, match="outside the image"):
            refused.result.result(5.0)
        with pytest.raises(KeyError, match="surprise"):
            failed.result.result(5.0)
    following = query(INSIDE)
    shared.ask(following)
    assert following.result.result(5.0).sparse.depth[0] == pytest.approx(2.0)


class Halting(FakeEngine):
    """Answers 2 m; its second call waits for the test."""

    def __init__(self) -> None:
        super().__init__(lambda _: " 2.00 meters")
        self.halted, self.go_on = threading.Event(), threading.Event()

    def generate(self, *args: Any, **kwargs: Any) -> list[Answer]:
        if self.batches:
            self.halted.set()
            assert self.go_on.wait(20.0)
        return super().generate(*args, **kwargs)


@pytest.fixture
def halting(
    worker: NewestFirstWorker[Pair],
) -> Iterator[tuple[Halting, FramePipeline, SharedQueries, Health]]:
    """An engine that halts at the second chunk of a pixel each."""
    with Halting() as engine:
        (pipeline, frames), health = shared_parts(engine), Health(print)
        worker.start()
        yield engine, pipeline, SharedQueries(worker, pipeline, frames, health), health
        engine.go_on.set()


def one_by_one() -> Query:
    return Query(None, math.inf, StreamConfig(chunk_points=1), np.array([INSIDE, (90, 60), (100, 60)]))


def test_a_caller_whose_time_is_over_gets_what_is_answered_and_each_point_is_counted_once(
    halting: tuple[Halting, FramePipeline, SharedQueries, Health],
) -> None:
    engine, _, shared, health = halting
    asked = one_by_one()
    shared.ask(asked)
    assert engine.halted.wait(5.0)
    shared.hand_over(asked)
    shared.hand_over(asked)
    sparse = asked.result.result(0.0).sparse
    assert sparse.reasons() == {"ok": 1, "deadline": 2}
    assert sparse.answered[0]
    following = query((110, 60))
    shared.ask(following)
    engine.go_on.set()
    assert following.result.result(5.0).sparse.answered.all()
    # Two of the first caller's were asked, though it did not wait for the second, and one of the next caller's.
    assert len(engine.prompts) == 3
    assert (health.total.points_asked, health.total.points_answered) == (4, 3)
    assert health.total.failed_points == {"deadline": 1}


def test_a_caller_whose_time_is_over_after_a_clock_jump_is_refused(
    halting: tuple[Halting, FramePipeline, SharedQueries, Health],
) -> None:
    engine, pipeline, shared, _ = halting
    asked = one_by_one()
    shared.ask(asked)
    assert engine.halted.wait(5.0)
    pipeline.forget()
    shared.hand_over(asked)
    with pytest.raises(FrameRefusedError, match="clock went backwards"):
        asked.result.result(0.0)


def test_a_caller_whose_time_is_over_before_anything_is_answered_waits_on(
    halting: tuple[Halting, FramePipeline, SharedQueries, Health],
) -> None:
    engine, _, shared, _ = halting
    first, asked = query(INSIDE), query((90, 60))
    shared.ask(first)
    assert first.result.result(5.0).sparse.answered.all()
    shared.ask(asked)
    assert engine.halted.wait(5.0)
    shared.hand_over(asked)
    assert not asked.result.done()
    engine.go_on.set()
    assert asked.result.result(5.0).sparse.answered.all()


class Aging(FakeEngine):
    """Answers 2 m; tells the test of each call before it returns."""

    def __init__(self) -> None:
        super().__init__(lambda _: " 2.00 meters")
        self.answered: Callable[[], None] = lambda: None

    def generate(self, *args: Any, **kwargs: Any) -> list[Answer]:
        answers = super().generate(*args, **kwargs)
        self.answered()
        return answers


AGED = {"late": "older than stream.max_age_s", "clock_jump": "clock went backwards"}


@pytest.fixture(params=AGED)
def reason(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def aging(reason: str) -> Iterator[tuple[FramePipeline, RecentFrames]]:
    """A pipeline whose frame grows too old, or loses its time, while it is asked."""
    with Aging() as engine:
        pipeline, frames = shared_parts(engine)

        def age() -> None:
            if reason == "late":
                pipeline._age_s = lambda _: StreamConfig().max_age_s + 0.1
            else:
                pipeline.forget()

        engine.answered = age
        yield pipeline, frames


def refuses_aged(asked: Query | Question, reason: str) -> None:
    with pytest.raises(FrameRefusedError, match=AGED[reason]) as refused:
        asked.result.result(5.0)
    assert refused.value.reason == reason


def test_pixels_that_are_answered_when_their_frame_may_no_longer_be_used_are_refused(
    aging: tuple[FramePipeline, RecentFrames], worker: NewestFirstWorker[Pair], reason: str
) -> None:
    asked = query(INSIDE)
    SharedQueries(worker, *aging, Health(print)).ask(asked)
    worker.start()
    refuses_aged(asked, reason)


def test_what_was_answered_before_a_clock_jump_is_refused_with_the_rest(
    worker: NewestFirstWorker[Pair],
) -> None:
    with Aging() as engine:
        pipeline, frames = shared_parts(engine)
        shared = SharedQueries(worker, pipeline, frames, Health(print))
        engine.answered = lambda: pipeline.forget() if len(engine.prompts) == 2 else None
        both = Query(None, math.inf, StreamConfig(chunk_points=1), np.array([INSIDE, (90, 60)]))
        shared.ask(both)
        worker.start()
        with pytest.raises(FrameRefusedError, match=AGED["clock_jump"]):
            both.result.result(5.0)
        assert len(engine.prompts) == 2


def test_a_question_that_is_answered_when_its_frame_may_no_longer_be_used_is_refused(
    aging: tuple[FramePipeline, RecentFrames], worker: NewestFirstWorker[Pair], reason: str
) -> None:
    asked = question(INSIDE)
    SharedQuestions(worker, *aging).ask(asked)
    worker.start()
    refuses_aged(asked, reason)


def test_a_question_about_two_frames_is_refused_where_the_later_may_no_longer_be_used(
    aging: tuple[FramePipeline, RecentFrames], reason: str
) -> None:
    pipeline, frames = aging
    later = frames.newest
    assert later is not None
    earlier = Pair(later.image, later.info, later.arrived)
    motion = SpatialRequest(SpatialTask.CAMERA_MOTION, (), math.nan, math.nan)
    with pytest.raises(FrameRefusedError, match=AGED[reason]) as refused:
        pipeline.ask([earlier, later], motion, StreamConfig(), deadline=math.inf)
    assert refused.value.reason == reason
