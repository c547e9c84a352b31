"""The service ``~/ask``: the paper's other spatial questions."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, Vector3
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from scipy.spatial.transform import Rotation  # type: ignore[import-untyped,unused-ignore]

from depthlm_ros.ros import messages
from depthlm_ros.ros.desk import (
    DEACTIVATED,
    Service,
    ServiceDesk,
    Serving,
    answer_between_frames,
    answer_by_model,
    measure,
    measure_all,
    named_frame,
    no_answer_within,
    pixels_of,
    require_newest,
    timeout_of,
)
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.messages import stamp_ns, time_ns
from depthlm_ros.ros.pipeline import FramePipeline, Pair
from depthlm_ros.ros.recent import RecentFrames
from depthlm_ros.spatial.asking import answer_from_depths
from depthlm_ros.spatial.between import SharedPoints
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.request import SpatialAnswer, SpatialRequest
from depthlm_ros.spatial.tasks import SpatialTask
from depthlm_ros.srv import AskSpatial

_TASKS = {getattr(AskSpatial.Request, f"TASK_{task.name}"): task for task in SpatialTask}


class AskService(Service):
    """Answers one spatial question."""

    kind, name = AskSpatial, "~/ask"

    def __init__(self, node: Node, group: CallbackGroup, health: Health, desk: ServiceDesk) -> None:
        self._matching = threading.Lock()
        super().__init__(node, group, health, desk)

    def _on_request(self, request: AskSpatial.Request, response: AskSpatial.Response) -> AskSpatial.Response:
        # Messages begin as 0; what is never filled in must look neither like a measurement nor like STATUS_OK.
        response.value = response.confidence = response.sigma = math.nan
        response.motion = _transform(CameraMotion.unknown())
        response.status = AskSpatial.Response.STATUS_REFUSED
        return super()._on_request(request, response)

    def _answer(self, request: AskSpatial.Request, response: AskSpatial.Response, serving: Serving) -> None:
        question = _question(request)
        timeout = timeout_of(request.timeout_s, serving)
        newest = require_newest(serving)
        if question.task is SpatialTask.CAMERA_MOTION:
            self._answer_motion(request, response, serving, question, newest, timeout)
            return
        pair = _one_frame(question.task, request, serving.frames)
        if serving.pipeline is not None and serving.pipeline.derives(question.task):
            measured = measure(serving, np.array(question.pixels), pair, timeout)
            asked, answer = measured.pair, answer_from_depths(question, measured.sparse)
        else:
            answered = answer_by_model(serving, question, pair, timeout)
            asked, answer = answered.pair, answered.answer
        self._health.asked_question(answer.status.name.lower())
        self._fill(response, answer, [asked])

    def _answer_motion(
        self,
        request: AskSpatial.Request,
        response: AskSpatial.Response,
        serving: Serving,
        question: SpatialRequest,
        newest: Pair,
        timeout: float,
    ) -> None:
        pairs = _two_frames(request, serving.frames, newest)
        stream = serving.stream
        if serving.pipeline is not None and serving.pipeline.derives(question.task):
            answer = self._derive_motion(serving, serving.pipeline, question, pairs, timeout)
        else:
            answer = answer_between_frames(
                serving,
                timeout,
                lambda pipeline, deadline: pipeline.ask(pairs, question, stream, deadline=deadline),
            )
        self._health.asked_question(answer.status.name.lower())
        self._fill(response, answer, pairs)

    def _derive_motion(
        self,
        serving: Serving,
        pipeline: FramePipeline,
        question: SpatialRequest,
        pairs: list[Pair],
        timeout: float,
    ) -> SpatialAnswer:
        """From the depths of both frames, asked as those of any caller: never more than a chunk in one turn."""
        deadline, stream = time.monotonic() + timeout, serving.stream
        frames = answer_between_frames(
            serving, timeout, lambda asked, _: [asked.prepare(pair, stream) for pair in pairs]
        )
        # In this thread, so that the stream goes on; one at a time, since each takes the cores of the machine.
        if not self._matching.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            raise no_answer_within(timeout)
        try:
            if serving.worker is None or serving.worker.stopping:
                raise ValueError(DEACTIVATED)
            shared = SharedPoints.of(*frames)
        finally:
            self._matching.release()
        if not shared.enough:
            return shared.motion(question)
        wanted = list(zip(shared.pixels, pairs, strict=True))
        before, after = measure_all(serving, wanted, timeout, deadline)
        answer = shared.motion(question, before.sparse, after.sparse)
        pipeline.refuse_late(pairs[-1], stream)
        return answer

    def _fill(self, response: AskSpatial.Response, answer: SpatialAnswer, pairs: list[Pair]) -> None:
        response.message, response.text = answer.message, answer.text
        response.header = pairs[-1].header
        if len(pairs) > 1:
            response.earlier_header = pairs[0].header
        response.value, response.unit, response.derived = answer.value, answer.unit, answer.derived
        response.confidence, response.sigma = answer.confidence, answer.sigma
        response.status = int(answer.status)
        if answer.motion is not None:
            response.motion = _transform(answer.motion)
        now, counters = time.monotonic(), self._health.counters()
        response.depths = [
            messages.sparse_depth(depths, pair.header, latency_s=now - pair.arrived, counters=counters)
            for depths, pair in zip(answer.depths, pairs, strict=False)
        ]


def _question(request: AskSpatial.Request) -> SpatialRequest:
    task = _TASKS.get(request.task)
    if task is None:
        names = ", ".join(f"{number} ({known.value})" for number, known in _TASKS.items())
        raise ValueError(f"task: expected one of {names}, got {request.task}")
    pixels = tuple((int(u), int(v)) for u, v in pixels_of(request.u, request.v))
    return SpatialRequest(task, pixels, request.seconds or math.nan, request.speed or math.nan)


def _two_frames(request: AskSpatial.Request, frames: RecentFrames, newest: Pair) -> list[Pair]:
    """The frames that the stamps name, the earlier one first; ``newest`` where the later one is not named."""
    later = named_frame("stamp", request.stamp, frames) or newest
    earlier = named_frame("earlier_stamp", request.earlier_stamp, frames) or frames.oldest
    if earlier is None:
        raise ValueError(
            "earlier_stamp: no frame before the newest was answered yet: wait for one, or name a stamp"
        )
    if stamp_ns(earlier.header) >= stamp_ns(later.header):
        raise ValueError("earlier_stamp: expected a frame before that of `stamp`: name an earlier one")
    return [earlier, later]


def _one_frame(task: SpatialTask, request: AskSpatial.Request, frames: RecentFrames) -> Pair | None:
    """The frame that the stamp names; None for the newest."""
    if time_ns(request.earlier_stamp):
        raise ValueError(f"earlier_stamp: expected zero, since {task.value} is about one frame")
    return named_frame("stamp", request.stamp, frames)


def _transform(motion: CameraMotion) -> Transform:
    x, y, z = motion.translation.tolist()
    turn = np.full(4, np.nan)
    if np.isfinite(motion.rotation).all():
        turn = Rotation.from_rotvec(motion.rotation, degrees=True).as_quat()
    qx, qy, qz, qw = turn.tolist()
    return Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw))
