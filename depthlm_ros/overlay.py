"""Pictures of depth for people: coloured points on the image, the view from above, dense maps.

Colours run from red (near) to blue (far) on a logarithmic scale, so that an equal relative error is an equal step.
Everything is drawn by OpenCV in milliseconds, fit for a debug topic.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from depthlm_ros.engines.base import RgbImage
from depthlm_ros.geometry import SparseDepth

_BACKGROUND = (24, 24, 28)
_GRID = (70, 70, 76)
_TEXT = (235, 235, 235)
_UNANSWERED = (150, 150, 150)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TURBO = cv2.applyColorMap(np.linspace(25, 245, 256).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO)[
    :, 0, ::-1
]
"""The colour scale, from blue to red, shape (256, 3), RGB; without the dark ends, as black means no depth."""


def depth_limits(depth: npt.ArrayLike) -> tuple[float, float]:
    """Near and far ends of a colour scale that suits some depths.

    Args:
        depth: Metres, any shape; what is not finite or not above 0 is ignored.

    Returns:
        The 2nd and 98th percentile in metres, at least 10 % apart; (1, 10) without any depth.
    """
    z = np.asarray(depth, dtype=np.float64)
    z = z[np.isfinite(z) & (z > 0)]
    if not z.size:
        return 1.0, 10.0
    near, far = (float(x) for x in np.percentile(z, (2, 98)))
    return near, max(far, near * 1.1)


def colours(depth: npt.ArrayLike, near: float, far: float) -> npt.NDArray[np.uint8]:
    """Colour of each depth.

    Args:
        depth: Metres, any shape; those outside near to far take the colour of the end.
        near: Metres at the red end, above 0.
        far: Metres at the blue end, above ``near``.

    Returns:
        RGB, the shape of ``depth`` and (3,); black where the depth is not finite or not above 0.

    Raises:
        ValueError: The limits are not 0 < near < far.
    """
    if not 0.0 < near < far < math.inf:
        raise ValueError(f"expected 0 < near < far in metres, got {near} and {far}")
    z = np.asarray(depth, dtype=np.float64)
    valid = np.isfinite(z) & (z > 0)
    share = np.log(np.where(valid, z, near) / near) / math.log(far / near)
    levels = np.rint(255 * (1.0 - np.clip(share, 0.0, 1.0))).astype(np.uint8)
    rgb = _TURBO[levels]
    rgb[~valid] = 0
    return np.asarray(rgb, dtype=np.uint8)


def colourise_depth(depth: npt.ArrayLike, near: float, far: float) -> RgbImage:
    """A dense depth map in colours.

    Args:
        depth: Metres, shape (H, W).
        near: Metres at the red end.
        far: Metres at the blue end.

    Returns:
        Shape (H, W, 3), uint8; black where there is no depth.
    """
    return colours(depth, near, far)


def draw_overlay(
    image: RgbImage, sparse: SparseDepth, *, near: float | None = None, far: float | None = None
) -> RgbImage:
    """The asked pixels on the image: dots coloured by depth, grey crosses where there is no answer.

    Args:
        image: The (rectified) source image, shape (H, W, 3), uint8; not written to.
        sparse: What was asked and answered.
        near: Metres at the red end; None suits the depths.
        far: Metres at the blue end; None suits the depths.

    Returns:
        The picture, of the image's shape, with a legend in metres where there is room.
    """
    picture: RgbImage = image.copy()
    low, high = _limits(sparse, near, far)
    radius = max(2, round(min(image.shape[:2]) / 120))
    rgb = colours(sparse.depth, low, high)
    for (u, v), colour, ok in zip(
        sparse.pixels.tolist(), rgb.tolist(), sparse.answered.tolist(), strict=True
    ):
        if ok:
            cv2.circle(picture, (u, v), radius + 1, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(picture, (u, v), radius, colour, -1, cv2.LINE_AA)
        elif max(abs(u), abs(v)) < 32767:  # OpenCV's fixed-point lines overflow beyond
            cv2.drawMarker(picture, (u, v), _UNANSWERED, cv2.MARKER_TILTED_CROSS, 2 * radius + 1, 1)
    if sparse.answered.any():
        _draw_legend(picture, low, high)
    return picture


def top_view(
    sparse: SparseDepth,
    *,
    obstacles: npt.NDArray[np.bool_] | None = None,
    size: tuple[int, int] = (480, 480),
    max_range_m: float | None = None,
    near: float | None = None,
    far: float | None = None,
) -> RgbImage:
    """The answered points from above: the camera at the bottom middle looks up, x to the right.

    Args:
        sparse: The points.
        obstacles: Which of the points count as obstacles, shape (N,); the others are grey. None colours all.
        size: Width and height of the picture in pixels.
        max_range_m: Metres from the bottom to the top; None suits the depths. Farther points are left out.
        near: Metres at the red end of the colours; None suits the depths.
        far: Metres at the blue end of the colours; None suits the depths.

    Returns:
        Shape (height, width, 3), uint8, with rings of equal distance and their metres.
    """
    width, height = size
    low, high = _limits(sparse, near, far)
    reach = max_range_m or 1.15 * max(high, float(np.nanmax(sparse.depth, initial=0.0)))
    scale = height / reach
    picture = np.full((height, width, 3), _BACKGROUND, dtype=np.uint8)
    camera = (width // 2, height - 1)
    step = _round_step(reach / 4)
    for ring in range(1, int(math.hypot(reach, reach) / step) + 1):
        cv2.circle(picture, camera, round(ring * step * scale), _GRID, 1, cv2.LINE_AA)
        if ring * step < reach:
            place = (camera[0] + 3, camera[1] - round(ring * step * scale) - 3)
            cv2.putText(picture, f"{ring * step:g} m", place, _FONT, 0.4, _TEXT, 1, cv2.LINE_AA)
    for edge in (0, sparse.camera.width - 1):
        slope = (edge - sparse.camera.cx) / sparse.camera.fx
        far_end = (round(camera[0] + slope * height), camera[1] - height)
        cv2.line(picture, camera, far_end, _GRID, 1, cv2.LINE_AA)
    ok = sparse.answered
    ok = ok & (np.where(ok, sparse.depth, 0.0) <= reach)
    rgb = colours(sparse.depth[ok], low, high)
    if obstacles is not None:
        rgb[~obstacles[ok]] = _UNANSWERED
    for (x, _, z), colour in zip(sparse.points()[ok].tolist(), rgb.tolist(), strict=True):
        place = (round(camera[0] + x * scale), round(camera[1] - z * scale))
        if abs(place[0]) < 32767:
            cv2.circle(picture, place, 3, colour, -1, cv2.LINE_AA)
    return picture


def _limits(sparse: SparseDepth, near: float | None, far: float | None) -> tuple[float, float]:
    low, high = depth_limits(sparse.depth)
    low = low if near is None else near
    return low, (max(high, low * 1.1) if far is None else far)


def _draw_legend(picture: RgbImage, near: float, far: float) -> None:
    """Draw the colour scale into the lower right corner, unless the picture is too small to read it."""
    height, width = picture.shape[:2]
    bar, thick = min(220, width - 20), 10
    if bar < 120 or height < 60:
        return
    left, top = width - bar - 10, height - thick - 10
    panel = picture[top - 22 : top + thick + 5, left - 6 : left + bar + 6]
    panel[:] = panel // 3
    ramp = np.geomspace(near, far, bar)
    picture[top : top + thick, left : left + bar] = colours(ramp, near, far)[None]
    for share in (0.0, 0.5, 1.0):
        text = f"{near * (far / near) ** share:.3g} m"
        (text_width, _), _ = cv2.getTextSize(text, _FONT, 0.4, 1)
        place = (round(left + share * (bar - text_width)), top - 6)
        cv2.putText(picture, text, place, _FONT, 0.4, _TEXT, 1, cv2.LINE_AA)


def _round_step(value: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above ``value``."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(m for m in (power, 2 * power, 5 * power) if m <= value * (1 + 1e-9))
