"""Ask a spatial question: of the model where it was trained for it, else by geometry from its depths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt, PromptImage
from depthlm_ros.estimator import DepthEstimator, PreparedFrame
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.prompting import drawable, why_undrawable
from depthlm_ros.spatial.arrows import arrows_paint, uncovered
from depthlm_ros.spatial.between import SharedPoints
from depthlm_ros.spatial.derive import derive
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.parsing import parse_spatial
from depthlm_ros.spatial.request import (
    SpatialAnswer,
    SpatialRequest,
    SpatialRequestError,
    SpatialStatus,
    without_value,
)
from depthlm_ros.spatial.tasks import TASKS, SpatialTask


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
        (answer,) = ask_model(estimator, frames, [request], deadline=deadline)
    elif request.task is SpatialTask.CAMERA_MOTION:
        answer = _derive_motion(estimator, frames, request, deadline)
    else:
        answer = _derive(estimator, frames[0], request, deadline)
    return replace(answer, model=estimator.engine.model_name)


def ask_model(
    estimator: DepthEstimator,
    frames: Sequence[PreparedFrame],
    requests: Sequence[SpatialRequest],
    *,
    deadline: float | None = None,
) -> list[SpatialAnswer]:
    """Ask the model in the task's own words, several questions about the same image or images in one call.

    Args:
        estimator: Its checkpoint should be trained for the task.
        frames: The image, or the two images.
        requests: The questions, all of one task.
        deadline: ``time.monotonic()`` seconds after which no further batch is begun.

    Returns:
        One answer per question.

    Raises:
        EngineError: The engine as a whole failed.
    """
    template = TASKS[requests[0].task]
    asked = [_prompt(estimator, frames, request) for request in requests]
    prompts = [prompt for prompt in asked if isinstance(prompt, Prompt)]
    said: list[Answer] = []
    if prompts:
        said = estimator.engine.generate(
            prompts, max_new_tokens=template.max_new_tokens, stop=template.stop, deadline=deadline
        )
    if len(said) != len(prompts):
        raise EngineError(f"{estimator.engine.model_name} gave {len(said)} answers to {len(prompts)} prompts")
    each = iter(said)
    answers = [
        _read(estimator, request, next(each)) if isinstance(prompt, Prompt) else prompt
        for request, prompt in zip(requests, asked, strict=True)
    ]
    return [replace(answer, model=estimator.engine.model_name) for answer in answers]


def _prompt(
    estimator: DepthEstimator, frames: Sequence[PreparedFrame], request: SpatialRequest
) -> Prompt | SpatialAnswer:
    """The prompt of a question, or the answer to one that cannot be asked."""
    template, profile, first = TASKS[request.task], estimator.profile, frames[0]
    pixels = np.asarray(request.pixels, dtype=np.int64).reshape(-1, 2)
    targets = first.view.to_canonical(pixels)
    fits = drawable(targets, first.view.size) & first.camera.visible(pixels)
    if not fits.all():
        bad = request.pixels[int(np.argmin(fits))]
        return without_value(request, False, SpatialStatus.UNDRAWABLE, _why_undrawable(bad, first.camera))
    if not uncovered(targets):
        why = "one arrow hides what the other points at: choose pixels that lie further apart"
        return without_value(request, False, SpatialStatus.UNDRAWABLE, why)
    marked = PromptImage(first.view.image, arrows_paint(targets))
    return Prompt(
        images=(marked, *(PromptImage(frame.view.image) for frame in frames[1:])),
        question=template.ask(seconds=request.seconds, speed=request.speed),
        system=profile.system,
        image_first=profile.image_first,
        prefix=template.prefix,
    )


def _read(estimator: DepthEstimator, request: SpatialRequest, answer: Answer) -> SpatialAnswer:
    template = TASKS[request.task]
    text = template.prefix + answer.text
    parsed = parse_spatial(answer, request, estimator.profile)
    if parsed.status is not AnswerStatus.OK:
        what = answer.error if answer.finish is Finish.ERROR else f"the model answered {text!r}"
        why = f"{parsed.status.name.lower()}: {what}"
        return replace(without_value(request, False, parsed.status, why), text=text)
    motion = None
    value = parsed.values[0]
    if request.task is SpatialTask.CAMERA_MOTION:
        motion = CameraMotion(np.array(parsed.values[:3]), np.array(parsed.values[3:]))
        value = motion.distance
    return SpatialAnswer(request, value, template.unit, False, SpatialStatus.OK, text=text, motion=motion)


def _why_undrawable(pixel: tuple[int, int], camera: PinholeCamera) -> str:
    return why_undrawable(pixel, (camera.width, camera.height), bool(camera.visible(pixel)))


def _derive(
    estimator: DepthEstimator, frame: PreparedFrame, request: SpatialRequest, deadline: float | None
) -> SpatialAnswer:
    depths = estimator.ask(frame, request.pixels, deadline=deadline)
    return answer_from_depths(request, depths)


def answer_from_depths(request: SpatialRequest, depths: SparseDepth) -> SpatialAnswer:
    """Compute the answer to a question about one frame from the depths that were measured at its pixels.

    Args:
        request: A question of any task but the camera's motion.
        depths: Holds all of its pixels.
    """
    depths = depths.at(request.pixels)
    failed = np.flatnonzero(~depths.answered)
    if len(failed):
        pixel, status = request.pixels[failed[0]], AnswerStatus(int(depths.status[failed[0]]))
        why = f"no depth at pixel {pixel}: {status.name.lower()} {depths.error}".rstrip()
        if status is AnswerStatus.UNDRAWABLE:
            why = _why_undrawable(pixel, depths.camera)
        return replace(without_value(request, True, status, why), depths=(depths,))
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
        model=depths.model,
    )


def _derive_motion(
    estimator: DepthEstimator,
    frames: Sequence[PreparedFrame],
    request: SpatialRequest,
    deadline: float | None,
) -> SpatialAnswer:
    shared = SharedPoints.of(*frames)
    if not shared.enough:
        return shared.motion(request)
    before, after = (
        estimator.ask(frame, pixels, deadline=deadline)
        for frame, pixels in zip(frames, shared.pixels, strict=True)
    )
    return shared.motion(request, before, after)
