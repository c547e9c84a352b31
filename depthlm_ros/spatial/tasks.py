"""The spatial tasks of the paper and their words: the one table that training and inference read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class SpatialTask(Enum):
    """What can be asked (DepthLM, figure of the multi-task model)."""

    PRINCIPAL_AXIS_DISTANCE = "principal_axis_distance"
    """How far a point lies ahead, along the optical axis: its z-depth."""
    TWO_POINT_DISTANCE = "two_point_distance"
    """How far two points of one image are from each other."""
    SPEED = "speed"
    """How fast one must move straight towards a point to reach it in a given time."""
    TIME = "time"
    """How long it takes to reach a point, moving straight towards it at a given speed."""
    CAMERA_MOTION = "camera_motion"
    """How the camera moved from one image to another."""


@dataclass(frozen=True)
class TaskTemplate:
    """How one task is asked and answered.

    Attributes:
        unit: Unit of the answered number.
        points: Pixels that are asked about; each is marked by one red arrow, all of them alike, as in the paper.
        images: Images that are shown.
        parameter: What the question states, ``seconds`` or ``speed``; empty without one.
        paper: The paper's words in the question, with ``{seconds}`` or ``{speed}`` where a number stands.
        question: The whole question, a template of the same fields.
        answer: The whole answer, a template of ``value`` and, where the paper reasons, ``distance``, ``seconds``
            and ``speed``; ``numbers`` are the six of a camera motion.
        prefix: The start of the answer that is given to the model.
        stop: Strings that end decoding.
        max_new_tokens: The most tokens that an answer may take after the prefix.
    """

    unit: str
    points: int
    images: int
    parameter: str
    paper: str
    question: str
    answer: str
    prefix: str
    stop: tuple[str, ...]
    max_new_tokens: int

    def ask(self, *, seconds: float = float("nan"), speed: float = float("nan")) -> str:
        """The question about given seconds or a given speed in m/s."""
        return self.question.format(seconds=number_text(seconds), speed=number_text(speed))


_POINT = "The red arrow in this image points at one point. "
_POINTS = "The 2 red arrows in this image point at 2 points. "
_FORMAT = (
    " Output the thinking process in <think> </think> and final answer ({what}) in <answer> </answer> tags."
)
"""After the official depth question's last sentence."""
_METRES = _FORMAT.format(what="the meter number only, without the unit")
_TAGGED = " </think>\n\n<answer> {value:.2f} </answer>"

_AHEAD = "How far is this point from the camera in the forward backward direction?"
_APART = "How far are these 2 points from each other?"
_SPEED = (
    "How many meters per second should we move in order to reach this point in exactly {seconds} seconds?"
)
_TIME = "How many seconds do we need to reach this point if we move towards it with the speed of {speed}m/s?"
_MOTION = "How many meters has the camera moved between these 2 images?"

TASKS: Mapping[SpatialTask, TaskTemplate] = MappingProxyType(
    {
        SpatialTask.PRINCIPAL_AXIS_DISTANCE: TaskTemplate(
            unit="m",
            points=1,
            images=1,
            parameter="",
            paper=_AHEAD,
            question=_POINT + _AHEAD + _METRES,
            answer=(
                "<think> The point is around {value:.2f} meters from the camera in the forward backward direction."
                + _TAGGED
            ),
            prefix="<think> The point is around",
            stop=(" meters",),
            max_new_tokens=12,
        ),
        SpatialTask.TWO_POINT_DISTANCE: TaskTemplate(
            unit="m",
            points=2,
            images=1,
            parameter="",
            paper=_APART,
            question=_POINTS + _APART + _METRES,
            answer="<think> The 2 points are around {value:.2f} meters from each other." + _TAGGED,
            prefix="<think> The 2 points are around",
            stop=(" meters",),
            max_new_tokens=12,
        ),
        SpatialTask.SPEED: TaskTemplate(
            unit="m/s",
            points=1,
            images=1,
            parameter="seconds",
            paper=_SPEED,
            question=_POINT
            + _SPEED
            + _FORMAT.format(what="the number of meters per second only, without the unit"),
            answer=(
                "<think> The point is around {distance:.2f} meters away. "
                "Hence, the speed should be around {distance:.2f} / {seconds} = {value:.2f}m/s." + _TAGGED
            ),
            prefix="<think> The point is around",
            stop=("</answer>",),
            max_new_tokens=160,
        ),
        SpatialTask.TIME: TaskTemplate(
            unit="s",
            points=1,
            images=1,
            parameter="speed",
            paper=_TIME,
            question=_POINT + _TIME + _FORMAT.format(what="the number of seconds only, without the unit"),
            answer=(
                "<think> The point is around {distance:.2f} meters away. "
                "Hence, we need around {distance:.2f} / {speed} = {value:.2f}s." + _TAGGED
            ),
            prefix="<think> The point is around",
            stop=("</answer>",),
            max_new_tokens=160,
        ),
        SpatialTask.CAMERA_MOTION: TaskTemplate(
            unit="m",
            points=0,
            images=2,
            parameter="",
            paper=_MOTION,
            question=(
                _MOTION
                + " Seen from the first image's camera, how far to the right, down and forward did it move (in "
                "meters), and by which rotation vector about these axes did it turn (in degrees)?"
                + _FORMAT.format(what="these 6 numbers only, without the units")
            ),
            answer=(
                "<think> The camera has moved around {value:.2f} meters. </think>\n\n<answer> {numbers} </answer>"
            ),
            prefix="<think> The camera has moved around",
            stop=("</answer>",),
            max_new_tokens=160,
        ),
    }
)
"""Every task's template. Which words are the paper's and which are ours: docs/spatial.md."""


def number_text(value: float) -> str:
    """A number as questions state it: at least one decimal as in the paper (``4.0``), at most three."""
    text = f"{value:.3f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def signed_text(value: float, decimals: int) -> str:
    """A number with its sign where it is negative, but never ``-0.00``."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"
