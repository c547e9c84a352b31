"""Ask a spatial question: of the model where it was trained for it, else by geometry from its depths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.engines.base import EngineError, Finish, Prompt, PromptImage
from depthlm_ros.estimator import DepthEstimator, PreparedFrame
from depthlm_ros.geometry import SparseDepth, rays
from depthlm_ros.prompting import MARKER_MARGIN, drawable
from depthlm_ros.spatial.arrows import arrows_paint, uncovered
from depthlm_ros.spatial.derive import derive, normal_confidence
from depthlm_ros.spatial.matching import LEAST_MATCHES, Matches, match_images, spread
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.parsing import parse_spatial
from depthlm_ros.spatial.pose import Points, estimate_motion
from depthlm_ros.spatial.request import SpatialAnswer, SpatialRequest, SpatialRequestError, SpatialStatus
from depthlm_ros.spatial.tasks import TASKS, SpatialTask

MOST_POINTS = 24
"""Depth queries per image for a camera motion."""


def ask_spatial(
    estimator: DepthEstimator,
    frames: Sequence[PreparedFrame],
    request: SpatialRequest,
    *,
    deadline: float | None = None,
    direct: bool | None = None,
) -> SpatialAnswer:
    """Answer one spatial question.

    Args:
        estimator: Prepared the frames.
        frames: The image, or for a camera motion the two images, the earlier one first.
        request: The question.
        deadline: ``time.monotonic()`` seconds after which no further batch is begun.
        direct: Whether to ask the model in the task's own words; None does so exactly if its checkpoint was trained
            for the task. Else the answer is computed from depth queries, and says so.

    Returns:
        The answer; NaN with its status and reason where there is none.

    Raises:
        SpatialRequestError: The number of frames is not the task's.
        EngineError: The engine as a whole failed.
    """
    template = TASKS[request.task]
    if len(frames) != template.images:
        raise SpatialRequestError(
            f"{request.task.value}: expected {template.images} image(s), got {len(frames)}: give exactly as many"
        )
    if direct is None:
        direct = request.task.value in estimator.profile.spatial_tasks
    if direct:
        answer = _ask_model(estimator, frames, request, deadline)
    elif request.task is SpatialTask.CAMERA_MOTION:
        answer = _derive_motion(estimator, frames, request, deadline)
    else:
        answer = _derive(estimator, frames[0], request, deadline)
    return replace(answer, model=estimator.engine.model_name)


def _nothing(request: SpatialRequest, derived: bool, status: int, message: str) -> SpatialAnswer:
    motion = CameraMotion.unknown() if request.task is SpatialTask.CAMERA_MOTION else None
    return SpatialAnswer(
        request,
        float("nan"),
        TASKS[request.task].unit,
        derived,
        SpatialStatus(status),
        message,
        motion=motion,
    )


def _ask_model(
    estimator: DepthEstimator,
    frames: Sequence[PreparedFrame],
    request: SpatialRequest,
    deadline: float | None,
) -> SpatialAnswer:
    template, profile, first = TASKS[request.task], estimator.profile, frames[0]
    pixels = np.asarray(request.pixels, dtype=np.int64).reshape(-1, 2)
    targets = first.view.to_canonical(pixels)
    fits = drawable(targets, first.view.size) & first.camera.visible(pixels)
    if not fits.all():
        bad = request.pixels[int(np.argmin(fits))]
        return _nothing(request, False, SpatialStatus.UNDRAWABLE, _no_room(bad))
    if not uncovered(targets):
        why = "one arrow hides what the other points at: choose pixels that lie further apart"
        return _nothing(request, False, SpatialStatus.UNDRAWABLE, why)
    marked = PromptImage(first.view.image, arrows_paint(targets))
    images = (marked, *(PromptImage(frame.view.image) for frame in frames[1:]))
    prompt = Prompt(
        images=images,
        question=template.ask(seconds=request.seconds, speed=request.speed),
        system=profile.system,
        image_first=profile.image_first,
        prefix=template.prefix,
    )
    answers = estimator.engine.generate(
        [prompt], max_new_tokens=template.max_new_tokens, stop=template.stop, deadline=deadline
    )
    if len(answers) != 1:
        raise EngineError(f"{estimator.engine.model_name} gave {len(answers)} answers to 1 prompt")
    answer, text = answers[0], template.prefix + answers[0].text
    parsed = parse_spatial(answer, request, profile)
    if parsed.status is not AnswerStatus.OK:
        what = answer.error if answer.finish is Finish.ERROR else f"the model answered {text!r}"
        why = f"{parsed.status.name.lower()}: {what}"
        return replace(_nothing(request, False, parsed.status, why), text=text)
    motion = None
    value = parsed.values[0]
    if request.task is SpatialTask.CAMERA_MOTION:
        motion = CameraMotion(np.array(parsed.values[:3]), np.array(parsed.values[3:]))
        value = motion.distance
    return SpatialAnswer(request, value, template.unit, False, SpatialStatus.OK, text=text, motion=motion)


def _no_room(pixel: tuple[int, int]) -> str:
    return (
        f"pixel {pixel} cannot be asked: expected one inside the image, where it shows something, and more than "
        f"{MARKER_MARGIN} pixels of the canonical view from its border"
    )


def _derive(
    estimator: DepthEstimator, frame: PreparedFrame, request: SpatialRequest, deadline: float | None
) -> SpatialAnswer:
    depths = estimator.ask(frame, request.pixels, deadline=deadline).at(request.pixels)
    failed = np.flatnonzero(~depths.answered)
    if len(failed):
        pixel, status = request.pixels[failed[0]], AnswerStatus(int(depths.status[failed[0]]))
        why = f"no depth at pixel {pixel}: {status.name.lower()} {depths.error}".rstrip()
        if status is AnswerStatus.UNDRAWABLE:
            why = _no_room(pixel)
        return replace(_nothing(request, True, status, why), depths=(depths,))
    measured = derive(request, depths)
    return SpatialAnswer(
        request,
        measured.value,
        TASKS[request.task].unit,
        True,
        SpatialStatus.OK,
        confidence=measured.confidence,
        sigma=measured.sigma,
        depths=(depths,),
    )


def _derive_motion(
    estimator: DepthEstimator,
    frames: Sequence[PreparedFrame],
    request: SpatialRequest,
    deadline: float | None,
) -> SpatialAnswer:
    first, second = frames
    matches = _askable(match_images(first.source, second.source, first.camera, second.camera), first, second)
    matches = spread(matches, first.camera.width, MOST_POINTS)
    if len(matches) < LEAST_MATCHES:
        why = (
            f"expected {LEAST_MATCHES} or more points that both images show, found {len(matches)}: take images with "
            "more texture and more overlap"
        )
        return replace(_nothing(request, True, SpatialStatus.FEW_MATCHES, why), matches=len(matches))
    before, first_points = _points(estimator, first, matches.first, deadline)
    after, second_points = _points(estimator, second, matches.second, deadline)
    found = estimate_motion(first_points, second_points)
    if not (before.answered.any() or after.answered.any()):
        failed = AnswerStatus(int(before.status[0]))
        why = (
            f"no depth at any of {len(matches)} matched points: {failed.name.lower()} {before.error}".rstrip()
        )
        answer = _nothing(request, True, failed, why)
    elif found.status is not SpatialStatus.OK:
        answer = _nothing(request, True, found.status, found.message)
    else:
        distance = found.motion.distance
        answer = SpatialAnswer(
            request,
            distance,
            TASKS[request.task].unit,
            True,
            SpatialStatus.OK,
            confidence=normal_confidence(distance, found.sigma),
            sigma=found.sigma,
            motion=found.motion,
        )
    return replace(answer, depths=(before, after), matches=len(matches), inliers=found.inliers)


def _askable(matches: Matches, first: PreparedFrame, second: PreparedFrame) -> Matches:
    return matches.take(
        first.askable(_whole(matches.first, first)) & second.askable(_whole(matches.second, second))
    )


def _whole(points: npt.NDArray[np.float64], frame: PreparedFrame) -> npt.NDArray[np.int64]:
    last = (frame.camera.width - 1, frame.camera.height - 1)
    return np.asarray(np.clip(np.rint(points), 0, last), dtype=np.int64)


def _points(
    estimator: DepthEstimator,
    frame: PreparedFrame,
    positions: npt.NDArray[np.float64],
    deadline: float | None,
) -> tuple[SparseDepth, Points]:
    """Ask for the depths at matched positions; the rays are those of the exact positions."""
    pixels = _whole(positions, frame)
    depths = estimator.ask(frame, pixels, deadline=deadline).at(pixels)
    where = Points(
        rays(positions, frame.camera), depths.depth.astype(np.float64), depths.sigma.astype(np.float64)
    )
    return depths, where
