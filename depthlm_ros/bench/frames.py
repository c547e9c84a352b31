"""The frames of a run: a rendered scene from a camera that distorts, and the same rectified for the official way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.engines.base import RgbImage
from depthlm_ros.estimator import DepthEstimator

FOV_DEG = 70.0
"""Horizontal field of view: that of usual robot cameras."""

_DISTORTION = (-0.06, 0.01, 0.0, 0.0, 0.0)
_RENDERED_WIDTH = 640
"""Scenes are drawn at most this wide and enlarged: drawing is slow, and content does not change the timed work."""


class BenchError(ValueError):
    """What was asked of the bench cannot be done; the message says why."""


@dataclass(frozen=True)
class BenchFrame:
    """One frame as files.

    Attributes:
        raw: The image as the camera gives it, distorted: what ours opens.
        rectified: The same after rectifying: what the official script opens, which does not rectify.
        camera: The calibration of ``raw``.
    """

    raw: Path
    rectified: Path
    camera: PinholeCamera

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """(fx, fy, cx, cy) of the rectified image in pixels."""
        return self.camera.fx, self.camera.fy, self.camera.cx, self.camera.cy


def bench_camera(width: int, height: int) -> PinholeCamera:
    """A camera with a usual field of view and a usual distortion (plumb_bob)."""
    focal = width / 2 / math.tan(math.radians(FOV_DEG) / 2)
    k = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
    return PinholeCamera(
        width, height, k, np.array(_DISTORTION), "plumb_bob", np.eye(3), np.hstack([k, np.zeros((3, 1))])
    )


def scene_image(width: int, height: int, seed: int = 7) -> RgbImage:
    """A rendered room, shape (height, width, 3), uint8, RGB."""
    from depthlm_ros.synthetic import Domain, sample_view

    drawn = min(width, _RENDERED_WIDTH)
    size = (drawn, max(1, round(height * drawn / width)))
    view = sample_view((seed, 0), Domain.ROBOT, size=size, fov_deg=FOV_DEG)
    image = np.asarray(Image.fromarray(view.rgb).resize((width, height)))
    noise = np.random.default_rng(seed).normal(0.0, 2.0, image.shape)  # a sensor's, lost in the enlargement
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def write_frames(folder: Path, width: int, height: int, count: int) -> list[BenchFrame]:
    """Write frames that differ, all of one camera.

    Args:
        folder: Where to; made if missing.
        width: Pixels.
        height: Pixels.
        count: How many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    camera, image = bench_camera(width, height), scene_image(width, height)
    frames = []
    for number in range(count):
        moved = np.roll(image, 16 * number, axis=1)
        raw, rectified = (folder / f"{width}x{height}_{number}_{kind}.png" for kind in ("raw", "rectified"))
        Image.fromarray(moved).save(raw)
        Image.fromarray(camera.rectify(moved)).save(rectified)
        frames.append(BenchFrame(raw, rectified, camera))
    return frames


def pixels_of(
    frame: BenchFrame, estimator: DepthEstimator, image: RgbImage, count: int, seed: int = 11
) -> list[tuple[int, int]]:
    """Distinct pixels that can be asked, at random.

    Args:
        frame: The frame.
        estimator: Says which pixels can be asked; one with a marker is the stricter one.
        image: The frame's raw image.
        count: How many.
        seed: The same seed gives the same pixels.

    Raises:
        BenchError: The image does not have so many.
    """
    camera = frame.camera
    every = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), axis=-1).reshape(-1, 2)
    usable = every[estimator.prepare(image, camera).askable(every)]
    if len(usable) < count:
        raise BenchError(f"{count} points were asked for, but only {len(usable)} pixels can be asked")
    chosen = usable[np.random.default_rng(seed).choice(len(usable), count, replace=False)]
    return [(int(u), int(v)) for u, v in chosen]
