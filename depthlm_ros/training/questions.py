"""Batches of questions with their answers, from cached views: depth, and the other spatial tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from depthlm_ros.profile import DEPTHLM_ANSWER, DEPTHLM_QUESTION, TEXT_QUESTION
from depthlm_ros.prompting import text_reference
from depthlm_ros.spatial.samples import POINT_TASKS, SpatialSample, motion_sample, point_sample
from depthlm_ros.synthetic import Intrinsics
from depthlm_ros.training.augment import Batch, Limits, Variety, draw_size, vary_look
from depthlm_ros.training.pairs import PairCache
from depthlm_ros.training.views import ViewCache

MARKER, TEXT = "marker", "text"


@dataclass(frozen=True)
class Questions:
    """Questions about views of one size.

    Attributes:
        views: uint8, shape (B, images, H, W, 3).
        questions: The user's texts.
        answers: What to learn.
        depth: The batch behind depth questions, for the losses of stage 1; None for other tasks.
    """

    views: Tensor
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    depth: Batch | None = None


def depth_questions(batch: Batch, reference: str) -> Questions:
    """DepthLM's question about each view of a batch: by the arrow in it, or by coordinates in the text."""
    height, width = batch.views.shape[1:3]
    if reference == MARKER:
        questions = [DEPTHLM_QUESTION] * len(batch.views)
    else:
        named = text_reference(batch.pixel.numpy(), (width, height)).tolist()
        questions = [TEXT_QUESTION.format(x=x, y=y) for x, y in named]
    answers = depth_answers(batch.target)
    return Questions(batch.views[:, None], tuple(questions), answers, batch)


def depth_answers(metres: Tensor) -> tuple[str, ...]:
    """DepthLM's answers in words, for metres of shape (B,)."""
    return tuple(DEPTHLM_ANSWER.format(depth=d) for d in metres.tolist())


def task_questions(
    cache: ViewCache,
    camera_of: Callable[[int], Intrinsics],
    size: int,
    limits: Limits,
    variety: Variety,
    shape_rng: np.random.Generator,
    rng: np.random.Generator,
) -> Questions:
    """One of the tasks about points, asked about whole views of one size.

    Args:
        cache: The training views.
        camera_of: Gives the camera of a view.
        size: Questions in the batch.
        limits: Depths that may be asked about.
        variety: How much the views' look is changed.
        shape_rng: Draws task and size; the workers share it.
        rng: Draws everything else.
    """
    task = POINT_TASKS[int(shape_rng.integers(len(POINT_TASKS)))]
    _, fitting = draw_size(cache.sizes, shape_rng)
    samples: list[SpatialSample] = []
    while len(samples) < size:
        index = int(rng.choice(fitting))
        rgb, depth = cache[index]
        camera = camera_of(index)
        if rng.random() < 0.5:
            rgb, depth, camera = rgb[:, ::-1], depth[:, ::-1], mirrored(camera)
        if rng.random() < variety.look_share:
            rgb = vary_look(np.ascontiguousarray(rgb), rng)
        sample = point_sample(task, rgb, depth, camera, rng, nearest=limits.nearest, farthest=limits.farthest)
        if sample is not None:
            samples.append(sample)
    return _collate(samples)


def motion_questions(
    pairs: PairCache, size: int, variety: Variety, shape_rng: np.random.Generator, rng: np.random.Generator
) -> Questions:
    """How the camera moved between two views of one size.

    Args:
        pairs: The training pairs.
        size: Questions in the batch.
        variety: How much the views' look is changed.
        shape_rng: Draws the size; the workers share it.
        rng: Draws everything else.
    """
    _, fitting = draw_size(pairs.sizes, shape_rng)
    samples = []
    for index in rng.choice(fitting, size):
        first, second, motion = pairs[int(index)]
        if rng.random() < variety.look_share:
            first, second = vary_look(first, rng), vary_look(second, rng)
        samples.append(motion_sample(first, second, motion))
    return _collate(samples)


def mirrored(camera: Intrinsics) -> Intrinsics:
    """The camera of an image that was flipped left to right."""
    return Intrinsics(
        camera.fx, camera.fy, camera.width - 1 - camera.cx, camera.cy, camera.width, camera.height
    )


def _collate(samples: list[SpatialSample]) -> Questions:
    views = np.stack([np.stack(sample.images) for sample in samples])
    return Questions(
        torch.from_numpy(np.ascontiguousarray(views)),
        tuple(sample.question for sample in samples),
        tuple(sample.answer for sample in samples),
    )
