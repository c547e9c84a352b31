"""Which pixels of a frame are asked, in which order. Every sampler returns askable pixels, none twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from depthlm_ros.config import SamplingConfig
from depthlm_ros.engines.base import RgbImage

Pixels = npt.NDArray[np.int64]
"""Source pixels, shape (N, 2), as (u, v)."""

Askable = Callable[[npt.ArrayLike], npt.NDArray[np.bool_]]
"""Says for source pixels of shape (..., 2) whether they can be asked (visible, and the arrow fits)."""

Region = tuple[int, int, int, int]
"""u, v, width, height in source pixels."""


def grid_pixels(columns: int, rows: int, region: Region, askable: Askable) -> Pixels:
    """A regular grid over the askable part of a region, coarse to fine, beginning at the bottom (nearest first).

    However early a budget ends, what was asked covers the region evenly: see :func:`coarse_to_fine`.

    Args:
        columns: Points across.
        rows: Points down.
        region: Where, in source pixels.
        askable: Which pixels can be asked. The grid spans the askable bounding box, so a border that the arrow
            needs does not cost the outer points.

    Returns:
        At most ``columns * rows`` pixels.
    """
    u0, v0, u1, v1 = _askable_box(region, askable)
    if u1 < u0 or v1 < v0:
        return np.empty((0, 2), dtype=np.int64)
    u = np.rint(u0 + (np.arange(columns) + 0.5) * (u1 - u0) / columns)
    v = np.rint(v0 + (np.arange(rows) + 0.5) * (v1 - v0) / rows)[::-1]
    cells = coarse_to_fine(columns, rows)
    return given_pixels(np.stack([u[cells[:, 0]], v[cells[:, 1]]], axis=-1), askable)


@lru_cache(maxsize=8)
def coarse_to_fine(columns: int, rows: int) -> Pixels:
    """The cells of a grid in an order of which every beginning is spread evenly over the grid.

    It is the order in which ordered dithering fills an area with dots (B. E. Bayer, "An optimum method for two-level
    rendition of continuous-tone pictures", 1973), cut to the grid's size.

    Returns:
        Every cell as (column, row) once, shape (columns * rows, 2), the middle of row 0 first; not to be written to.
    """
    side_bits = max(columns - 1, rows - 1, 1).bit_length()
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(columns), np.arange(rows)))
    # The pattern repeats, so that it may begin anywhere: here in the middle of row 0.
    x, y = (column - columns // 2) % (1 << side_bits), row
    rank = np.zeros(columns * rows, dtype=np.int64)
    for bit in range(side_bits):
        rank = rank << 2 | ((x ^ y) >> bit & 1) << 1 | x >> bit & 1
    cells = np.stack([column, row], axis=-1)[np.argsort(rank)]
    cells.flags.writeable = False
    return cells


def gradient_pixels(
    image: RgbImage, points: int, region: Region, askable: Askable, rng: np.random.Generator
) -> Pixels:
    """Pixels drawn without replacement, more where the image has structure, strongest draw first.

    The weight is the gradient's magnitude plus a tenth of its mean, so that plain walls are asked as well.

    Args:
        image: Source image, shape (H, W, 3).
        points: How many pixels; fewer come back where fewer can be asked.
        region: Where, in source pixels.
        askable: Which pixels can be asked.
        rng: Source of randomness; the same state gives the same pixels.
    """
    u0, v0, width, height = region
    grey = cv2.cvtColor(image[v0 : v0 + height, u0 : u0 + width], cv2.COLOR_RGB2GRAY)
    magnitude = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).ravel()
    weight = magnitude + 0.1 * magnitude.mean() + 1e-6
    v, u = np.divmod(np.arange(weight.size), width)
    candidates = np.stack([u + u0, v + v0], axis=-1)
    ok = askable(candidates)
    candidates, weight = candidates[ok], weight[ok].astype(np.float64)
    # Exponential races: the k smallest of Exp(1) / weight are a weighted draw without replacement.
    keys = rng.exponential(size=weight.size) / weight
    return np.asarray(candidates[np.argsort(keys, kind="stable")[:points]], dtype=np.int64)


def given_pixels(pixels: npt.ArrayLike, askable: Askable) -> Pixels:
    """The askable ones of the given pixels, each once, in the order given.

    Args:
        pixels: Source pixels, shape (N, 2).
        askable: Which pixels can be asked.
    """
    points = unique_pixels(pixels)
    return points[askable(points)] if len(points) else points


def unique_pixels(pixels: npt.ArrayLike) -> Pixels:
    """Whole pixels of shape (N, 2), each once, in the order in which they first came."""
    points = np.asarray(pixels).reshape(-1, 2).astype(np.int64)
    _, first = np.unique(points, axis=0, return_index=True)
    return points[np.sort(first)]


def sample_pixels(config: SamplingConfig, image: RgbImage, askable: Askable) -> Pixels:
    """Choose the pixels of a frame as the configuration says.

    Args:
        config: Method and its numbers. ``roi`` limits every method; the ``roi`` method puts the grid into it.
        image: Source image, shape (H, W, 3).
        askable: Which pixels can be asked.

    Returns:
        Askable pixels, none twice; the same for the same image and configuration.
    """
    height, width = image.shape[:2]
    u, v, w, h = config.roi if config.roi[2] else (0, 0, width, height)
    u, v = min(u, width), min(v, height)
    region = (u, v, min(w, width - u), min(h, height - v))
    if region[2] < 1 or region[3] < 1:
        return np.empty((0, 2), dtype=np.int64)
    if config.method == "gradient":
        rng = np.random.default_rng(config.seed)
        return gradient_pixels(image, config.points, region, askable, rng)
    return grid_pixels(config.columns, config.rows, region, askable)


def _askable_box(region: Region, askable: Askable) -> Region:
    """First and last askable column and row, as u0, v0, u1, v1.

    They are looked for along the region's middle lines, and everywhere only where those cannot be asked.
    """
    u0, v0, width, height = region
    columns, rows = np.arange(u0, u0 + width), np.arange(v0, v0 + height)
    across = columns[askable(np.stack([columns, np.full(width, v0 + height // 2)], axis=-1))]
    down = rows[askable(np.stack([np.full(height, u0 + width // 2), rows], axis=-1))]
    if not len(across) or not len(down):
        everywhere = askable(np.stack(np.meshgrid(columns, rows), axis=-1))
        across, down = columns[everywhere.any(axis=0)], rows[everywhere.any(axis=1)]
    if not len(across):
        return (0, 0, -1, -1)
    return int(across[0]), int(down[0]), int(across[-1]), int(down[-1])
