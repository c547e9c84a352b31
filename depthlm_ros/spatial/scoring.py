"""How good spatial answers are: rendered held-out questions with exact answers, beside trivial predictors."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.estimator import DepthEstimator, PreparedFrame
from depthlm_ros.evaluation.confidence import sigma_figures
from depthlm_ros.evaluation.metrics import interval95, median_interval95, within_delta1
from depthlm_ros.evaluation.trivial import best_constant
from depthlm_ros.geometry import backproject
from depthlm_ros.spatial.arrows import uncovered
from depthlm_ros.spatial.asking import ask_spatial
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.pairs import pair_motion, sample_pair
from depthlm_ros.spatial.request import SpatialAnswer, SpatialRequest
from depthlm_ros.spatial.samples import APART, SECONDS, SPEEDS, point_value, tenths
from depthlm_ros.spatial.tasks import TASKS, SpatialTask
from depthlm_ros.synthetic import Domain, View, sample_pixels, sample_view

SCORES_FILE = "spatial.json"
_TRIES = 20


@dataclass(frozen=True, eq=False)
class Question:
    """A question about rendered views with its exact answer.

    Attributes:
        request: What is asked.
        value: The exact value in the task's unit; of a camera motion, the metres moved.
        motion: The exact camera motion; None for the other tasks.
    """

    request: SpatialRequest
    value: float
    motion: CameraMotion | None = None

    @property
    def distance_share(self) -> float:
        """What the value is per metre of distance to the point: for trivial predictors that divide."""
        given = self.request.seconds if self.request.task is SpatialTask.SPEED else self.request.speed
        return 1.0 if math.isnan(given) else 1.0 / given


Drawn = tuple[Question, tuple[PreparedFrame, ...]]
"""A question and the frames that it is about."""


def questions(
    estimator: DepthEstimator, task: SpatialTask, count: int, seed: int, domain: Domain
) -> Iterator[Drawn]:
    """Draw questions: one per rendered scene, each with a camera of its own; the same seed, the same questions.

    Args:
        estimator: Prepares the views.
        task: What to ask.
        count: How many.
        seed: Question i draws from (seed, i).
        domain: What to draw.
    """
    index = made = 0
    while made < count:
        rng = np.random.default_rng((seed, index, 1))
        if task is SpatialTask.CAMERA_MOTION:
            views = sample_pair((seed, index), domain)
            motion = pair_motion(*views)
            frames = tuple(_prepare(estimator, view) for view in views)
            drawn: Drawn | None = (Question(SpatialRequest(task), motion.distance, motion), frames)
        else:
            drawn = _about_points(estimator, task, sample_view((seed, index), domain), rng)
        index += 1
        if drawn is not None:
            made += 1
            yield drawn


def _prepare(estimator: DepthEstimator, view: View) -> PreparedFrame:
    i = view.intrinsics
    camera = PinholeCamera.from_intrinsics(i.fx, i.fy, i.cx, i.cy, i.width, i.height)
    return estimator.prepare(view.rgb, camera)


def _about_points(
    estimator: DepthEstimator, task: SpatialTask, view: View, rng: np.random.Generator
) -> Drawn | None:
    frame = _prepare(estimator, view)
    seconds = tenths(rng, SECONDS) if task is SpatialTask.SPEED else math.nan
    speed = tenths(rng, SPEEDS) if task is SpatialTask.TIME else math.nan
    for _ in range(_TRIES):
        pixels = sample_pixels(rng, view, TASKS[task].points)
        targets = frame.view.to_canonical(pixels)
        if len(pixels) < TASKS[task].points or not frame.askable(pixels).all() or not uncovered(targets):
            continue
        points = backproject(pixels, view.z_depth[pixels[:, 1], pixels[:, 0]], view.intrinsics)
        value, _ = point_value(task, points, seconds=seconds, speed=speed)
        if task is SpatialTask.TWO_POINT_DISTANCE and value < APART:
            continue
        named = tuple((int(u), int(v)) for u, v in pixels)
        return Question(SpatialRequest(task, named, seconds, speed), value), (frame,)
    return None


def score_task(
    estimator: DepthEstimator,
    drawn: Iterable[Drawn],
    ways: Sequence[str],
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Ask questions of one task and compare the answers with the truth.

    Args:
        estimator: Answers.
        drawn: The questions, at least one.
        ways: ``direct`` asks the model in the task's words, ``derived`` computes from its depths; one or both.
        advance: Called after each question.

    Returns:
        Per way what :func:`scores` says, with ``status`` (how many answers ended how), ``sigma``
        (:func:`~depthlm_ros.evaluation.confidence.sigma_figures`: how many errors are within it) and, for camera
        motions, ``no_motion`` (the scores of "it stood still" on the pairs that were answered); and ``trivial``, see
        :func:`trivial_scores`.
    """
    asked: list[Question] = []
    answers: dict[str, list[SpatialAnswer]] = {way: [] for way in ways}
    for question, frames in drawn:
        asked.append(question)
        for way in ways:
            direct = way == "direct"
            answers[way].append(ask_spatial(estimator, frames, question.request, direct=direct))
        advance()
    return {
        **{way: _way_scores(asked, given) for way, given in answers.items()},
        "trivial": trivial_scores(asked),
    }


def _way_scores(asked: Sequence[Question], answers: Sequence[SpatialAnswer]) -> dict[str, Any]:
    counts = Counter(answer.status.name.lower() for answer in answers)
    motions = [answer.motion for answer in answers if answer.motion is not None]
    values = np.array([answer.value for answer in answers], dtype=np.float64)
    record = scores(asked, values, motions)
    record["status"] = dict(sorted(counts.items()))
    sigmas = np.array([answer.sigma for answer in answers], dtype=np.float64)
    record["sigma"] = sigma_figures(_truth(asked), values, sigmas)
    answered = [q for q, a in zip(asked, answers, strict=True) if math.isfinite(a.value)]
    if motions and answered:
        record |= trivial_scores(answered)
    return record


def scores(
    asked: Sequence[Question], values: npt.ArrayLike, motions: Sequence[CameraMotion] = ()
) -> dict[str, Any]:
    """Compare answers with the truth.

    Args:
        asked: The questions.
        values: One answer each, in the task's unit; NaN where there is none.
        motions: For camera motions, one each.

    Returns:
        ``n``; ``answered``, the share of questions with a value. Of the ``n_above_0`` questions whose truth is not 0:
        ``within_25``, the share whose value is within a factor of 1.25 of it, and ``median_relative_error`` of the
        answered ones. For camera motions ``median_translation_error_m`` and ``median_rotation_error_deg`` of the
        answered ones. Of shares within 25 % and medians also ``..._interval95``, [low, high] of the bootstrap over
        questions, None for fewer than two.
    """
    truth, said = _truth(asked), np.asarray(values, dtype=np.float64)
    answered = np.isfinite(said)
    # A camera that turned on the spot has moved 0 m, and nothing is a ratio of that.
    apart = truth > 0.0
    hit = within_delta1(truth[apart], said[apart])
    known = answered & apart
    record: dict[str, Any] = {
        "n": len(asked),
        "n_above_0": int(apart.sum()),
        "answered": float(answered.mean()),
        "within_25": float(hit.mean()) if len(hit) else math.nan,
        "within_25_interval95": interval95(list(hit[:, None])),
        **_median("median_relative_error", np.abs(said - truth)[known] / truth[known]),
    }
    if motions:
        errors = [
            (motion.translation_error(question.motion), motion.rotation_error(question.motion))
            for motion, question in zip(motions, asked, strict=True)
            if question.motion is not None and math.isfinite(motion.distance)
        ]
        shift, turn = np.array(errors).reshape(-1, 2).T
        record |= _median("median_translation_error_m", shift) | _median("median_rotation_error_deg", turn)
    return record


def _truth(asked: Sequence[Question]) -> npt.NDArray[np.float64]:
    return np.array([question.value for question in asked], dtype=np.float64)


def trivial_scores(asked: Sequence[Question]) -> dict[str, dict[str, Any]]:
    """What predictors that look at no image reach on the same questions.

    Returns:
        ``no_motion`` for camera motions. Otherwise ``best_constant``, an oracle that knows the one distance with the
        highest share within 25 % on these very questions (and divides it by the given time or speed).
    """
    if asked[0].motion is not None:
        still = [CameraMotion(np.zeros(3), np.zeros(3))] * len(asked)
        return {"no_motion": scores(asked, np.zeros(len(asked)), still)}
    per_metre = np.array([question.distance_share for question in asked])
    distance = best_constant(_truth(asked) / per_metre)
    return {"best_constant": scores(asked, distance * per_metre)}


def write_scores(record: dict[str, Any], out: Path) -> Path:
    """Write a record of scores as JSON, undefined numbers as null.

    Args:
        record: What was measured, per task and way.
        out: Directory, created when absent.

    Returns:
        The file.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / SCORES_FILE
    path.write_text(json.dumps(_without_nan(record), indent=1) + "\n", encoding="utf-8")
    return path


def _median(name: str, errors: npt.NDArray[np.float64]) -> dict[str, Any]:
    middle = float(np.median(errors)) if len(errors) else math.nan
    return {name: middle, f"{name}_interval95": median_interval95(errors)}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
