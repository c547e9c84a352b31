"""From a label to a training sample: canonical focal length first, then crop and mirror, then the question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depthlm_ros.canonical import CanonicalView, fill_grid
from depthlm_ros.engines.base import Prompt, RgbImage
from depthlm_ros.evaluation.benchmark import LabelledImage
from depthlm_ros.geometry import z_per_metre_of_range
from depthlm_ros.images import read_image
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.prompting import MARKER_MARGIN, askable, prompt_for
from depthlm_ros.training.finetune.config import AugmentConfig

MAX_MEGAPIXELS = 50.0


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """A question and its true answer.

    Attributes:
        prompt: The question as the engine asks it.
        metres: The true depth in the profile's convention (z, or range along the ray).
        xy: The asked pixel in the prompt's image.
    """

    prompt: Prompt
    metres: float
    xy: tuple[int, int]


def make_sample(
    image: LabelledImage,
    label: int,
    profile: CheckpointProfile,
    augment: AugmentConfig,
    rng: np.random.Generator,
) -> TrainingSample | None:
    """Make the sample of one label.

    The order is the paper's (intrinsic-conditioned augmentation): the image is resized to the canonical focal
    length, and only then cropped, so that a metre at a depth has the same size in pixels in every crop.

    Args:
        image: The labelled image.
        label: Index of its label.
        profile: Focal length, pixel reference and words.
        augment: How views are varied.
        rng: Draws the crop and the mirror.

    Returns:
        The sample; None where the pixel cannot be asked about (outside the crop, or no room for the arrow).

    Raises:
        ImageError: The image cannot be read.
        CameraError: It does not fit its intrinsics.
        CanonicalError: It cannot be resized.
    """
    camera = image.camera()
    source = camera.rectify(read_image(image.path, max_megapixels=MAX_MEGAPIXELS))
    view = CanonicalView(
        source, camera.fx, camera.fy, profile.canonical_focal_px, max_pixels=MAX_MEGAPIXELS * 1e6
    )
    uv = image.pixels[label]
    x, y = view.to_canonical(uv).tolist()
    if not askable((x, y), view.size, profile) or not camera.visible(uv):
        return None
    cropped, (x, y) = random_crop(view.image, (x, y), augment, rng)
    if not askable((x, y), (cropped.shape[1], cropped.shape[0]), profile):
        return None
    if rng.random() < augment.flip_share:
        cropped, x = np.ascontiguousarray(cropped[:, ::-1]), cropped.shape[1] - 1 - x
    metres = float(image.depth[label])
    if profile.depth_convention == "range":
        metres /= float(z_per_metre_of_range(uv[None], camera)[0])
    seen = fill_grid(cropped, profile.patch_grid_px)
    return TrainingSample(prompt_for(seen, x, y, profile), metres, (x, y))


def random_crop(
    view: RgbImage, xy: tuple[int, int], augment: AugmentConfig, rng: np.random.Generator
) -> tuple[RgbImage, tuple[int, int]]:
    """Cut a window of random size out of a view: the official script's "random center crop", or one anywhere.

    Args:
        view: The canonical view, shape (H, W, 3).
        xy: The asked pixel, with room for the arrow in the view where the model needs it.
        augment: Least and most size, and where the window lies.
        rng: Draws size and place.

    Returns:
        The window, and the asked pixel relative to its corner: outside of it where a window in the middle does not
        hold the pixel.
    """
    height, width = view.shape[:2]
    around = xy if augment.crop_place == "anywhere" else (None, None)
    left, columns = _window(width, around[0], augment.crop_width_px, rng)
    top, rows = _window(height, around[1], augment.crop_height_px, rng)
    window = np.ascontiguousarray(view[top : top + rows, left : left + columns])
    return window, (xy[0] - left, xy[1] - top)


def _window(size: int, at: int | None, limits: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    """Start and length of a window along one side: in the middle, or with ``at`` and its arrow anywhere in it."""
    wanted = int(rng.integers(limits[0], limits[1] + 1)) or size
    if at is None:
        length = min(size, wanted)
        return (size - length) // 2, length
    length = min(size, max(wanted, 2 * MARKER_MARGIN + 1))
    margin = min(MARKER_MARGIN, at, size - 1 - at)
    first = max(0, at + margin + 1 - length)
    last = min(size - length, at - margin)
    return int(rng.integers(first, last + 1)), length
