"""How the model is told which pixel is meant, and what it is asked: red arrow or coordinates, and the question."""

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


def why_undrawable(pixel: tuple[int, int], size: tuple[int, int], visible: bool) -> str:
    """Why a pixel that cannot be asked cannot be, and what to do.

    Args:
        pixel: The source pixel (u, v).
        size: The source image's (width, height) in pixels.
        visible: Whether the source image shows anything there, see :meth:`~depthlm_ros.camera.PinholeCamera.visible`.
    """
    (u, v), (width, height) = pixel, size
    if not (0 <= u < width and 0 <= v < height):
        why = f"it lies outside of the image of {width}x{height}: name one from (0, 0) to ({width - 1}, {height - 1})"
    elif not visible:
        why = "it lies in the black border that undistortion left: name one where the rectified image shows something"
    else:
        why = f"there is no room for the arrow: name one {MARKER_MARGIN} pixels of the canonical view from its border"
    return f"pixel ({u}, {v}) cannot be asked: {why}"


def marker_paint(x: int, y: int) -> Paint:
    """The arrow that points at canonical pixel (x, y), as pixels to paint.

    The pixel must be :func:`drawable`; this is not checked again here.
    """
    return Paint(tuple((x + dx, y + dy) for dx, dy in MARKER_OFFSETS), MARKER_RGB)


def text_reference(xy: npt.ArrayLike, size: tuple[int, int], steps: int = 2000) -> npt.NDArray[np.int64]:
    """The coordinates that name canonical pixels in words (VLM3, arXiv 2605.30561).

    Each side of the view is divided into ``steps``, whatever its pixels: x steps / width, rounded to the nearest
    integer (ties to even), so pixel (0, 0) is (0, 0). This gives all 100 pairs of VLM3's published
    ``depth_labels.json``. One step is width / steps pixels: a view of up to ``steps`` pixels a side gives every pixel
    coordinates of its own. They stay below ``steps``, as VLM3's range [0, 2000) says; only pixels at the far end of a
    view of twice ``steps`` and more come into reach of that.

    Args:
        xy: Canonical pixels, shape (..., 2), as (x, y).
        size: The view's (width, height) in pixels.
        steps: The checkpoint's ``coordinate_steps``.

    Returns:
        Coordinates of shape (..., 2), int64, in [0, steps).

    Raises:
        ValueError: A pixel lies outside the view.
    """
    points = np.asarray(xy)
    if not _inside(points, size).all():
        raise ValueError(f"expected pixels in a view of {size[0]}x{size[1]}, got {points.tolist()}")
    nearest = np.rint(points * steps / np.asarray(size)).astype(np.int64)
    coordinates: npt.NDArray[np.int64] = np.minimum(nearest, steps - 1)
    return coordinates


def from_text_reference(
    coordinates: npt.ArrayLike, size: tuple[int, int], steps: int = 2000
) -> npt.NDArray[np.float64]:
    """Where in the canonical view coordinates point: the inverse of :func:`text_reference`.

    Args:
        coordinates: Coordinates in [0, steps), shape (..., 2).
        size: The view's (width, height) in pixels.
        steps: The checkpoint's ``coordinate_steps``.

    Returns:
        Positions in pixels, shape (..., 2), float64, the centre of the top-left pixel being (0, 0). At most half a
        step off; rounded, they are the very pixel in a view of up to ``steps`` pixels a side.
    """
    positions: npt.NDArray[np.float64] = np.asarray(coordinates) * (np.asarray(size) / steps)
    return positions


def question_for(profile: CheckpointProfile, x: int, y: int, size: tuple[int, int]) -> str:
    """The user's text for one pixel: the same for all with a marker, with its coordinates filled in otherwise.

    Args:
        profile: What the checkpoint was trained with.
        x: Column of the query in the canonical view.
        y: Row of the query in the canonical view.
        size: The view's (width, height) in pixels.

    Raises:
        ValueError: The pixel lies outside the view (text reference only).
    """
    if profile.pixel_reference == "marker":
        return profile.question
    named_x, named_y = text_reference((x, y), size, profile.coordinate_steps).tolist()
    return profile.question.format(x=named_x, y=named_y)


def askable(xy: npt.ArrayLike, size: tuple[int, int], profile: CheckpointProfile) -> npt.NDArray[np.bool_]:
    """Say which pixels of a canonical view the model can be asked about.

    Args:
        xy: Canonical pixels, shape (..., 2), as (x, y).
        size: The view's (width, height) in pixels.
        profile: What the checkpoint was trained with.

    Returns:
        Booleans of shape (...): where the arrow fits; every pixel of the view where no arrow is drawn.
    """
    return drawable(xy, size) if profile.pixel_reference == "marker" else _inside(xy, size)


def prompt_for(view: RgbImage, x: int, y: int, profile: CheckpointProfile) -> Prompt:
    """Ask for the depth at one pixel of a canonical view, in the way that the checkpoint was trained with.

    Args:
        view: The canonical view, shape (H, W, 3), shared by every prompt of the frame.
        x: Column of the query in the canonical view.
        y: Row of the query in the canonical view.
        profile: What the checkpoint was trained with.

    Returns:
        The prompt, whose image shares ``view``: painted over by nine pixels with a marker, and untouched with a text
        reference, whose prompts differ in nothing but the question's coordinates.

    Raises:
        ValueError: The pixel lies outside the view (text reference only).
    """
    paint = marker_paint(x, y) if profile.pixel_reference == "marker" else None
    return Prompt(
        images=(PromptImage(view, paint),),
        question=question_for(profile, x, y, (view.shape[1], view.shape[0])),
        system=profile.system,
        image_first=profile.image_first,
        prefix=profile.prompt_prefix,
    )


def _inside(xy: npt.ArrayLike, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    points = np.asarray(xy)
    inside: npt.NDArray[np.bool_] = np.all((points >= 0) & (points < np.asarray(size)), axis=-1)
    return inside
