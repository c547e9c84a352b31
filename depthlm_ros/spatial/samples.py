"""Training and test samples of the spatial tasks, from rendered views with exact geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depthlm_ros.engines.base import PromptImage, RgbImage
from depthlm_ros.geometry import Pinhole, backproject
from depthlm_ros.prompting import MARKER_MARGIN
from depthlm_ros.spatial.arrows import arrows_paint, uncovered
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.tasks import TASKS, SpatialTask, number_text, signed_text

Depth = npt.NDArray[np.float32]

POINT_TASKS = tuple(task for task, template in TASKS.items() if template.points)
"""The tasks about pixels of one image."""

SECONDS = (1.0, 20.0)
"""Times that samples ask about, drawn log-uniformly, in tenths as in the paper [s]."""
SPEEDS = (0.2, 10.0)
"""Speeds that samples ask about, drawn log-uniformly, in tenths as in the paper [m/s]."""
APART = 0.05
"""Points that are nearer to each other are not asked about: two decimals would not tell them [m]."""

_TRIES = 20


@dataclass(frozen=True, eq=False)
class SpatialSample:
    """One question with its exact answer.

    Attributes:
        task: What is asked.
        images: What the model sees, each (H, W, 3), uint8; the arrows are painted.
        question: The user's text.
        prefix: The start of the answer that inference gives.
        answer: The whole answer to learn, which begins with ``prefix``.
        value: The exact value in the template's unit; of a camera motion, the metres moved.
        pixels: What the arrows point at, as (x, y), shape (N, 2), int64.
        seconds: The time that the question states [s]; NaN where it states none.
        speed: The speed that the question states [m/s]; NaN where it states none.
        motion: The exact camera motion; None for the other tasks.
    """

    task: SpatialTask
    images: tuple[RgbImage, ...]
    question: str
    prefix: str
    answer: str
    value: float
    pixels: npt.NDArray[np.int64]
    seconds: float = float("nan")
    speed: float = float("nan")
    motion: CameraMotion | None = None


def point_sample(
    task: SpatialTask,
    rgb: RgbImage,
    z_depth: Depth,
    camera: Pinhole,
    rng: np.random.Generator,
    *,
    nearest: float = 0.1,
    farthest: float = 100.0,
) -> SpatialSample | None:
    """Draw a question about one or two pixels of a view.

    Args:
        task: One of ``POINT_TASKS``.
        rgb: The view at the canonical focal length, shape (H, W, 3), uint8; not written to.
        z_depth: Metres along the optical axis, shape (H, W); inf for the sky.
        camera: The view's intrinsics, in its pixels (after crops and flips).
        rng: Source of randomness.
        nearest: Least z-depth of an asked pixel in metres.
        farthest: Greatest z-depth of an asked pixel in metres.

    Returns:
        The sample, or None where the view has no such pixels.

    Raises:
        ValueError: The task is not about pixels.
    """
    if task not in POINT_TASKS:
        raise ValueError(f"expected one of {[t.value for t in POINT_TASKS]}, got {task.value!r}")
    pixels = _draw_pixels(TASKS[task].points, z_depth, rng, nearest, farthest)
    if pixels is None:
        return None
    points = backproject(pixels, z_depth[pixels[:, 1], pixels[:, 0]], camera).astype(np.float64)
    seconds = tenths(rng, SECONDS) if task is SpatialTask.SPEED else float("nan")
    speed = tenths(rng, SPEEDS) if task is SpatialTask.TIME else float("nan")
    value, text = point_value(task, points, seconds=seconds, speed=speed)
    if task is SpatialTask.TWO_POINT_DISTANCE and value < APART:
        return None
    return SpatialSample(
        task,
        (PromptImage(rgb, arrows_paint(pixels)).pixels(),),
        TASKS[task].ask(seconds=seconds, speed=speed),
        TASKS[task].prefix,
        text,
        value,
        pixels,
        seconds,
        speed,
    )


def point_value(
    task: SpatialTask, points: npt.ArrayLike, *, seconds: float = float("nan"), speed: float = float("nan")
) -> tuple[float, str]:
    """The exact value of a task about points, and the answer that says it.

    Speed and time are those of a straight move from the camera to the point (along its ray), so they rest on the
    Euclidean distance. The written answer divides the distance as written, so that its arithmetic is right.

    Args:
        task: One of ``POINT_TASKS``.
        points: The points in the optical frame in metres, shape (1, 3) or (2, 3).
        seconds: The given time in seconds, for speed.
        speed: The given speed in m/s, for time.

    Returns:
        The value in the task's unit and the whole answer.
    """
    xyz = np.asarray(points, dtype=np.float64)
    distance = float(np.linalg.norm(xyz[0]))
    if task is SpatialTask.PRINCIPAL_AXIS_DISTANCE:
        value = written = float(xyz[0, 2])
    elif task is SpatialTask.TWO_POINT_DISTANCE:
        value = written = float(np.linalg.norm(xyz[0] - xyz[1]))
    else:
        divisor = seconds if task is SpatialTask.SPEED else speed
        value, written = distance / divisor, round(distance, 2) / divisor
    text = TASKS[task].answer.format(
        value=written, distance=distance, seconds=number_text(seconds), speed=number_text(speed)
    )
    return value, text


def motion_sample(first: RgbImage, second: RgbImage, motion: CameraMotion) -> SpatialSample:
    """The question how the camera moved between two views.

    Args:
        first: The first view at the canonical focal length, shape (H, W, 3), uint8.
        second: The second view; its size may differ.
        motion: The exact motion; :meth:`CameraMotion.between` makes it from poses.
    """
    template = TASKS[SpatialTask.CAMERA_MOTION]
    numbers = [signed_text(x, 2) for x in motion.translation] + [signed_text(x, 1) for x in motion.rotation]
    answer = template.answer.format(value=motion.distance, numbers=" ".join(numbers))
    none = np.zeros((0, 2), dtype=np.int64)
    return SpatialSample(
        SpatialTask.CAMERA_MOTION,
        (first, second),
        template.ask(),
        template.prefix,
        answer,
        motion.distance,
        none,
        motion=motion,
    )


def _draw_pixels(
    count: int, z_depth: Depth, rng: np.random.Generator, nearest: float, farthest: float
) -> npt.NDArray[np.int64] | None:
    """Pixels whose arrows fit, leave each other's targets visible, and whose depth may be asked about."""
    height, width = z_depth.shape
    low, high = np.full(2, MARKER_MARGIN), np.array([width, height]) - MARKER_MARGIN
    if (high <= low).any():
        return None
    for _ in range(_TRIES):
        pixels = rng.integers(low, high, (count, 2))
        z = z_depth[pixels[:, 1], pixels[:, 0]]
        if (z >= nearest).all() and (z <= farthest).all() and uncovered(pixels):
            return pixels.astype(np.int64)
    return None


def tenths(rng: np.random.Generator, between: tuple[float, float]) -> float:
    """Draw a given time or speed, log-uniformly between two bounds, in tenths."""
    low, high = np.log(between)
    return float(np.round(np.exp(rng.uniform(low, high)), 1))
