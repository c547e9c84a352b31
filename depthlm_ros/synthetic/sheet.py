"""A picture for people: some of a data set's images beside their depth, on one colour scale."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from depthlm_ros.engines.base import RgbImage
from depthlm_ros.overlay import colourise_depth, colours
from depthlm_ros.synthetic.views import View

NEAR_M, FAR_M = 0.3, 30.0
"""Ends of the colour scale; always the same, so that sheets can be compared."""
TILES = 12
"""Images on a sheet."""

_TILE = (496, 184)
_PAD = 8
_PICTURE = (238, 150)
_COLUMNS = 3
_TICKS_M = (0.3, 1.0, 3.0, 10.0, 30.0)
_SCALE_HEIGHT = 34
_INK, _PAPER = (235, 235, 235), (24, 24, 28)


def tile(view: View) -> RgbImage:
    """A view and its depth side by side above a line that says what it is, shape (184, 496, 3), uint8, RGB."""
    canvas = _paper(_TILE)
    camera = view.intrinsics
    shrink = min(_PICTURE[0] / camera.width, _PICTURE[1] / camera.height)
    size = (round(camera.width * shrink), round(camera.height * shrink))
    picture = cv2.resize(view.rgb, size, interpolation=cv2.INTER_AREA if shrink < 1 else cv2.INTER_LINEAR)
    # Depth is sampled, never averaged: a mean of two surfaces is a depth where nothing is.
    depth = cv2.resize(view.z_depth, size, interpolation=cv2.INTER_NEAREST)
    for left, content in (
        (_PAD, picture),
        (_PAD + size[0] + 4, colourise_depth(depth, NEAR_M, FAR_M)),
    ):
        canvas[_PAD : _PAD + size[1], left : left + size[0]] = content
    fov = np.degrees(2 * np.arctan(camera.width / (2 * camera.fx)))
    caption = (
        f"{view.kind}, {camera.width}x{camera.height}, {fov:.0f} deg, camera {view.pose.z:.2f} m high, "
        f"nearest {view.z_depth.min():.2f} m"
    )
    _write(canvas, caption, (_PAD, _PAD + size[1] + 16))
    return canvas


def contact_sheet(tiles: Sequence[RgbImage]) -> RgbImage:
    """Join tiles into a sheet with the colour scale in metres below.

    Args:
        tiles: What `tile` gave, at least one.

    Returns:
        RGB image, uint8, three tiles wide.
    """
    blanks = [_paper(_TILE)] * (-len(tiles) % _COLUMNS)
    all_tiles = [*tiles, *blanks]
    rows = [np.hstack(all_tiles[k : k + _COLUMNS]) for k in range(0, len(all_tiles), _COLUMNS)]
    sheet: RgbImage = np.vstack([*rows, _scale(_COLUMNS * _TILE[0])])
    return sheet


def _scale(width: int) -> RgbImage:
    """The colour bar, near on the left; the sky, which has no depth, is black."""
    bar = _paper((width, _SCALE_HEIGHT))
    left, right = width // 4, 3 * width // 4
    depths = np.geomspace(NEAR_M, FAR_M, right - left)
    bar[4:16, left:right] = colours(depths, NEAR_M, FAR_M)
    for metres in _TICKS_M:
        share = np.log(metres / NEAR_M) / np.log(FAR_M / NEAR_M)
        x = left + round(float(share) * (right - left - 1))
        bar[16:20, x] = _INK
        _write(bar, f"{metres:g} m", (x - 12, _SCALE_HEIGHT - 4))
    return bar


def _paper(size: tuple[int, int]) -> RgbImage:
    return np.full((size[1], size[0], 3), _PAPER, dtype=np.uint8)


def _write(canvas: RgbImage, text: str, at: tuple[int, int]) -> None:
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, _INK, 1, cv2.LINE_AA)
