"""How the model is told which pixel is meant, and what it is asked: the marker and the question."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from depthlm_ros.engines.base import Paint, Prompt, PromptImage, RgbImage
from depthlm_ros.profile import CheckpointProfile

MARKER_RGB = (255, 0, 0)
MARKER_MARGIN = 5
"""Canonical pixels that must lie between a query and each border for the arrow to be drawable."""

MARKER_OFFSETS: tuple[tuple[int, int], ...] = (
    *((dx, 0) for dx in range(-5, 0)),
    *((-2, dy) for dy in (-1, 1)),
    *((-3, dy) for dy in (-2, 2)),
)
"""The arrow, relative to its target as (dx, dy): a five-pixel shaft and a head that points right.

The target itself is not painted, so the model sees the surface that it is asked about
(official DepthLM code, ``dataset_eval.extract_image_and_meta``).
"""


def drawable(xy: npt.ArrayLike, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Say where the arrow fits into the canonical view.

    Args:
        xy: Canonical pixels, shape (..., 2), as (x, y).
        size: The canonical view's (width, height) in pixels.

    Returns:
        Booleans of shape (...): 5 <= x < width - 5 and 5 <= y < height - 5.
    """
    points = np.asarray(xy)
    upper = np.asarray(size) - MARKER_MARGIN
    fits: npt.NDArray[np.bool_] = np.all((points >= MARKER_MARGIN) & (points < upper), axis=-1)
    return fits


def marker_paint(x: int, y: int) -> Paint:
    """The arrow that points at canonical pixel (x, y), as pixels to paint.

    The pixel must be :func:`drawable`; this is not checked again here.
    """
    return Paint(tuple((x + dx, y + dy) for dx, dy in MARKER_OFFSETS), MARKER_RGB)


def marker_prompt(view: RgbImage, x: int, y: int, profile: CheckpointProfile) -> Prompt:
    """Ask for the depth at one pixel of a canonical view, marked by the arrow.

    Args:
        view: The canonical view, shape (H, W, 3), shared by every prompt of the frame.
        x: Column of the query in the canonical view.
        y: Row of the query in the canonical view.
        profile: What the checkpoint was trained with.

    Returns:
        The prompt, whose image shares ``view`` and differs from it by nine pixels.
    """
    return Prompt(
        images=(PromptImage(view, marker_paint(x, y)),),
        question=profile.question,
        system=profile.system,
        image_first=profile.image_first,
        prefix=profile.prompt_prefix,
    )
