"""What is asked and what is answered: the types of a spatial question, without any model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.tasks import TASKS, SpatialTask

LEAST, MOST = 0.01, 10_000.0
"""Bounds of a given time in seconds and of a given speed in m/s; beyond them a question makes no sense."""


class SpatialRequestError(ValueError):
    """A question cannot be asked as it stands; the message says what was expected, what came, and what to do."""


class SpatialStatus(IntEnum):
    """What became of a spatial question: all but ``OK`` leave its value NaN. The numbers are those of AskSpatial.srv.

    Up to 31 they are those of :class:`~depthlm_ros.answers.AnswerStatus`.
    """

    OK = AnswerStatus.OK
    UNDRAWABLE = AnswerStatus.UNDRAWABLE
    NO_NUMBER = AnswerStatus.NO_NUMBER
    SEVERAL_NUMBERS = AnswerStatus.SEVERAL_NUMBERS
    NOT_POSITIVE = AnswerStatus.NOT_POSITIVE
    NOT_FINITE = AnswerStatus.NOT_FINITE
    OUT_OF_RANGE = AnswerStatus.OUT_OF_RANGE
    TRUNCATED = AnswerStatus.TRUNCATED
    DEADLINE = AnswerStatus.DEADLINE
    ENGINE_ERROR = AnswerStatus.ENGINE_ERROR
    BAD_FORMAT = AnswerStatus.BAD_FORMAT
    OVER_BUDGET = AnswerStatus.OVER_BUDGET
    FEW_MATCHES = 32
    """The two images share too few features to compute a motion from."""
    FEW_INLIERS = 33
    """Too few matched points agree on one motion."""
    INCONSISTENT = 34
    """The depths of the first image and those of the second give different motions."""


@dataclass(frozen=True)
class SpatialRequest:
    """One spatial question.

    Attributes:
        task: What is asked.
        pixels: Source pixels (u, v) of the first image, as many as the task is about.
        seconds: The given time in seconds, for ``SPEED`` alone; NaN otherwise.
        speed: The given speed in m/s, for ``TIME`` alone; NaN otherwise.

    Raises:
        SpatialRequestError: Something is missing, too much, or makes no sense.
    """

    task: SpatialTask
    pixels: tuple[tuple[int, int], ...] = ()
    seconds: float = math.nan
    speed: float = math.nan

    def __post_init__(self) -> None:
        template, name = TASKS[self.task], self.task.value
        if len(self.pixels) != template.points:
            raise SpatialRequestError(
                f"{name}: expected {template.points} pixels, got {len(self.pixels)}: name exactly as many"
            )
        if len(set(self.pixels)) != len(self.pixels):
            raise SpatialRequestError(
                f"{name}: expected different pixels, got {self.pixels[0]} twice: choose another one"
            )
        for parameter, unit in (("seconds", "s"), ("speed", "m/s")):
            value = getattr(self, parameter)
            if parameter != template.parameter:
                if not math.isnan(value):
                    raise SpatialRequestError(f"{name}: expected no {parameter}, got {value:g}: leave it out")
            elif not LEAST <= value <= MOST:
                came = "none" if math.isnan(value) else f"{value:g}"
                raise SpatialRequestError(
                    f"{name}: expected {parameter} from {LEAST:g} to {MOST:g} {unit}, got {came}: give one"
                )


@dataclass(frozen=True, eq=False)
class SpatialAnswer:
    """The answer to one spatial question.

    Attributes:
        request: The question.
        value: The number in ``unit``; of a camera motion, the metres moved. NaN unless ``status`` is ``OK``.
        unit: ``m``, ``m/s`` or ``s``.
        derived: True where the value was computed from depth queries by geometry, False where the model said it.
        status: What became of the question.
        message: Why there is no value, in words; empty where there is one.
        text: What the model said, the given prefix included; empty where the value is derived.
        confidence: Probability that the value is within 25 % of the truth; NaN where unknown (docs/spatial.md).
        sigma: 1-sigma uncertainty in ``unit``; NaN where unknown.
        motion: The camera motion; None for the other tasks, all NaN where there is none.
        depths: The depth queries that a derived value rests on, one entry per image that was asked.
        matches: Features matched between the two images; 0 for the other tasks and for a direct answer.
        inliers: Matched points that agree on the motion; likewise.
        model: Name of what answered.
    """

    request: SpatialRequest
    value: float
    unit: str
    derived: bool
    status: SpatialStatus
    message: str = ""
    text: str = ""
    confidence: float = math.nan
    sigma: float = math.nan
    motion: CameraMotion | None = None
    depths: tuple[SparseDepth, ...] = ()
    matches: int = 0
    inliers: int = 0
    model: str = ""


def without_value(request: SpatialRequest, derived: bool, status: int, message: str) -> SpatialAnswer:
    """The answer to a question that got no value.

    Args:
        request: The question.
        derived: Whether depths were to be asked, not the model in words.
        status: Why, a :class:`SpatialStatus`.
        message: Why, in words.
    """
    motion = CameraMotion.unknown() if request.task is SpatialTask.CAMERA_MOTION else None
    unit = TASKS[request.task].unit
    return SpatialAnswer(request, math.nan, unit, derived, SpatialStatus(status), message, motion=motion)
