"""The service ``~/ask``: the paper's other spatial questions."""

from __future__ import annotations

import math
import time

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, Vector3
from scipy.spatial.transform import Rotation  # type: ignore[import-untyped,unused-ignore]

from depthlm_ros.ros import messages
from depthlm_ros.ros.desk import (
    Service,
    Serving,
    answer_between_frames,
    pixels_of,
    require_newest,
    timeout_of,
)
from depthlm_ros.ros.messages import stamp_ns, time_ns
from depthlm_ros.ros.pipeline import Pair
from depthlm_ros.ros.recent import KEPT, RecentFrames
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.request import SpatialAnswer, SpatialRequest
from depthlm_ros.spatial.tasks import SpatialTask
from depthlm_ros.srv import AskSpatial

_TASKS = {getattr(AskSpatial.Request, f"TASK_{task.name}"): task for task in SpatialTask}

HISTORY = 0.5
"""Frames are kept for this share of ``stream.max_age_s``: they must not be too old once it is their turn."""


class AskService(Service):
    """Answers one spatial question."""

    kind, name = AskSpatial, "~/ask"

    def _on_request(self, request: AskSpatial.Request, response: AskSpatial.Response) -> AskSpatial.Response:
        # Messages begin as 0; what is never filled in must look neither like a measurement nor like STATUS_OK.
        response.value = response.confidence = response.sigma = math.nan
        response.motion = _transform(CameraMotion.unknown())
        response.status = AskSpatial.Response.STATUS_REFUSED
        return super()._on_request(request, response)

    def _answer(self, request: AskSpatial.Request, response: AskSpatial.Response, serving: Serving) -> None:
        question = _question(request)
        timeout = timeout_of(request.timeout_s, serving)
        pairs = _pairs(question.task, request, serving.frames, require_newest(serving))
        limit = serving.stream.max_age_s
        answer = answer_between_frames(
            serving,
            timeout,
            lambda pipeline, deadline: pipeline.ask(pairs, question, max_age_s=limit, deadline=deadline),
        )
        self._health.asked_question(answer.status.name.lower())
        for depths in answer.depths:
            self._health.asked_points(depths)
        self._fill(response, answer, pairs)

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


def _pairs(task: SpatialTask, request: AskSpatial.Request, frames: RecentFrames, newest: Pair) -> list[Pair]:
    """The frames that the stamps name, the earlier one first; ``newest`` where the later one is not named."""
    later = _named("stamp", request.stamp, frames, newest)
    if task is not SpatialTask.CAMERA_MOTION:
        if time_ns(request.earlier_stamp):
            raise ValueError(f"earlier_stamp: expected zero, since {task.value} is about one frame")
        return [later]
    earlier = _named("earlier_stamp", request.earlier_stamp, frames, frames.oldest)
    if stamp_ns(earlier.header) >= stamp_ns(later.header):
        raise ValueError("earlier_stamp: expected a frame before that of `stamp`: name an earlier one")
    return [earlier, later]


def _named(field: str, stamp: Time, frames: RecentFrames, otherwise: Pair | None) -> Pair:
    wanted = time_ns(stamp)
    pair = frames.find(wanted) if wanted else otherwise
    if pair is not None:
        return pair
    if wanted:
        raise ValueError(
            f"{field}: no frame of {stamp.sec}.{stamp.nanosec:09d} is kept: name the newest, or one of the last "
            f"{KEPT} that ~/sparse_depth answered within {HISTORY:.0%} of stream.max_age_s, or leave it zero"
        )
    raise ValueError(f"{field}: no frame before the newest was answered yet: wait for one, or name a stamp")


def _transform(motion: CameraMotion) -> Transform:
    x, y, z = motion.translation.tolist()
    turn = np.full(4, np.nan)
    if np.isfinite(motion.rotation).all():
        turn = Rotation.from_rotvec(motion.rotation, degrees=True).as_quat()
    qx, qy, qz, qw = turn.tolist()
    return Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw))
