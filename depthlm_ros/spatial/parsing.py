"""From the model's words to the numbers of a spatial task, by the rules of :mod:`depthlm_ros.answers`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from depthlm_ros.answers import AnswerStatus, parse_answer
from depthlm_ros.engines.base import Answer, Finish
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.spatial.request import SpatialRequest
from depthlm_ros.spatial.tasks import TASKS, SpatialTask

_TAG = re.compile(r"<answer>(?P<body>[^<]*)(?P<end></answer>)?", re.IGNORECASE)
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?"
_ANY_NUMBER = re.compile(_NUMBER, re.IGNORECASE)
_UNITS = {
    "m/s": r"m\s?/\s?s(?:ec)?|met(?:er|re)s? per second|mps",
    "s": r"s|secs?|seconds?",
}
_SCALAR = {
    unit: re.compile(rf"\s*(?P<number>{_NUMBER})\s*(?:{words})?\s*\.?\s*", re.IGNORECASE)
    for unit, words in _UNITS.items()
}
_SIX = re.compile(rf"\s*{_NUMBER}(?:\s*[,;\s]\s*{_NUMBER}){{5}}\s*", re.IGNORECASE)
_NOT_FINITE = re.compile(r"\s*[+-]?(?:inf(?:inity)?|nan)\b", re.IGNORECASE)
_FULL_TURN_DEG = 360.0


@dataclass(frozen=True)
class ParsedNumbers:
    """The numbers that an answer names.

    Attributes:
        values: One number in the task's unit, or the six of a camera motion; empty unless ``status`` is ``OK``.
        status: What the parser found.
    """

    values: tuple[float, ...]
    status: AnswerStatus


def parse_spatial(answer: Answer, request: SpatialRequest, profile: CheckpointProfile) -> ParsedNumbers:
    """Read the numbers of a spatial task out of an answer.

    Distances are read as depths are. Where the model reasons first (speed, time) or names several numbers (camera
    motion), only what stands between the answer tags counts.

    Args:
        answer: What the engine returned.
        request: What was asked.
        profile: Gives the largest believable distance.
    """
    template = TASKS[request.task]
    if template.stop != ("</answer>",):
        parsed = parse_answer(answer, profile, prefix=template.prefix)
        ok = parsed.status is AnswerStatus.OK
        return ParsedNumbers((parsed.metres,) if ok else (), parsed.status)
    if answer.finish in (Finish.ERROR, Finish.DEADLINE):
        return _refused(AnswerStatus.ENGINE_ERROR if answer.finish is Finish.ERROR else AnswerStatus.DEADLINE)
    cut = answer.finish is Finish.LENGTH
    tags = list(_TAG.finditer(answer.text))
    if not tags:
        return _refused(AnswerStatus.TRUNCATED if cut else AnswerStatus.NO_NUMBER)
    if cut and not tags[-1]["end"]:
        return _refused(AnswerStatus.TRUNCATED)
    found = {_read(tag["body"], request, profile.max_depth_m) for tag in tags}
    return found.pop() if len(found) == 1 else _refused(AnswerStatus.SEVERAL_NUMBERS)


def _refused(status: AnswerStatus) -> ParsedNumbers:
    return ParsedNumbers((), status)


def _read(body: str, request: SpatialRequest, max_depth_m: float) -> ParsedNumbers:
    numbers = _ANY_NUMBER.findall(body)
    motion = request.task is SpatialTask.CAMERA_MOTION
    expected = 6 if motion else 1
    pattern = _SIX if motion else _SCALAR[TASKS[request.task].unit]
    if not numbers:
        return _refused(AnswerStatus.NOT_FINITE if _NOT_FINITE.match(body) else AnswerStatus.NO_NUMBER)
    if not pattern.fullmatch(body):
        return _refused(AnswerStatus.SEVERAL_NUMBERS if len(numbers) > expected else AnswerStatus.BAD_FORMAT)
    values = tuple(float(number) for number in numbers)
    if not all(map(math.isfinite, values)):
        return _refused(AnswerStatus.NOT_FINITE)
    if motion:
        moved, turned = math.hypot(*values[:3]), math.hypot(*values[3:])
        fits = moved <= max_depth_m and turned <= _FULL_TURN_DEG
    elif values[0] <= 0.0:
        return _refused(AnswerStatus.NOT_POSITIVE)
    else:
        parameter = request.seconds if request.task is SpatialTask.SPEED else request.speed
        fits = values[0] * parameter <= max_depth_m
    return ParsedNumbers(values, AnswerStatus.OK) if fits else _refused(AnswerStatus.OUT_OF_RANGE)
