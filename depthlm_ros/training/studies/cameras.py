"""Mixed cameras from cached views: centre crops, at the canonical scale or resized to one canvas."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from depthlm_ros.prompting import MARKER_MARGIN
from depthlm_ros.training.augment import DepthArray, Limits, RgbArray, Sample, draw_query, marked_sample
from depthlm_ros.training.validation import Queries
from depthlm_ros.training.views import ViewCache

CANONICAL, NONE = "canonical", "none"
CANVAS = (80, 112)
"""Height and width that a model without intrinsics gets every image at: about as many tokens as crops have."""
LEAST = (96, 128)
"""Height and width of the smallest view that is cropped; smaller ones leave no room for other cameras."""

_TOKEN_PX = 16
_SMALLEST_ROWS = 3
_TRIES = 40


class Views(Protocol):
    """What a :class:`~depthlm_ros.training.views.ViewCache` offers."""

    sizes: npt.NDArray[np.int64]
    robot: npt.NDArray[np.bool_]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[RgbArray, DepthArray]: ...


def crop_sizes(sizes: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """A camera of narrower view for each view: its height log-uniform, its shape near 4:3, whole tokens.

    Args:
        sizes: (height, width) of the views in pixels, shape (N, 2).
        seed: Of the draw; the same for both arms.

    Returns:
        (height, width) of the centre crops, shape (N, 2); from 48 rows to what the view holds.
    """
    rng = np.random.default_rng(seed)
    chosen = np.empty_like(sizes)
    shape = CANVAS[1] / CANVAS[0]
    for k, (height, width) in enumerate(sizes // _TOKEN_PX):
        most = max(
            rows for rows in range(_SMALLEST_ROWS, height + 1)
            if rows == _SMALLEST_ROWS or round(rows * shape) <= width
        )  # fmt: skip
        rows = round(float(np.exp(rng.uniform(np.log(_SMALLEST_ROWS), np.log(most)))))
        chosen[k] = (rows * _TOKEN_PX, round(rows * shape) * _TOKEN_PX)
    return chosen


class MixedCameras(ViewCache):
    """The centre crops of a cache's views, as one of two arms sees them.

    Both arms see the same part of the same scene. At the canonical scale an object's size in pixels tells its
    distance, and the canvas varies; on one canvas the focal length varies with the crop and is not known.

    Args:
        views: The cached views, all of one focal length.
        arm: ``canonical`` or ``none``.
        seed: Of the crops.
    """

    def __init__(self, views: Views, arm: str, seed: int) -> None:
        if arm not in (CANONICAL, NONE):
            raise ValueError(f"arm: expected {CANONICAL} or {NONE}, got {arm!r}")
        self._views, self._arm = views, arm
        self._kept = np.flatnonzero((views.sizes >= LEAST).all(axis=1))
        self.crops = crop_sizes(views.sizes[self._kept], seed)
        self.robot = views.robot[self._kept]
        self.sizes = self.crops if arm == CANONICAL else np.tile(np.array(CANVAS), (len(self.crops), 1))

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> tuple[RgbArray, DepthArray]:
        rgb, depth = self.crop(index)
        return (rgb, depth) if self._arm == CANONICAL else on_canvas(rgb, depth)

    def crop(self, index: int) -> tuple[RgbArray, DepthArray]:
        """The crop at the canonical scale, whatever the arm."""
        rgb, depth = self._views[int(self._kept[index])]
        height, width = (int(side) for side in self.crops[index])
        top, left = (depth.shape[0] - height) // 2, (depth.shape[1] - width) // 2
        part = (slice(top, top + height), slice(left, left + width))
        return np.array(rgb[part], order="C"), np.array(depth[part], order="C")

    @property
    def tokens(self) -> float:
        """Image tokens of a view, on average."""
        return float((self.sizes // _TOKEN_PX).prod(axis=1).mean())


def canvas_lines(height: int, width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Row and column of a crop that each row and column of the canvas shows the middle of."""
    rows = ((np.arange(CANVAS[0]) + 0.5) * height / CANVAS[0]).astype(np.intp)
    columns = ((np.arange(CANVAS[1]) + 0.5) * width / CANVAS[1]).astype(np.intp)
    return rows, columns


def on_canvas(rgb: RgbArray, depth: DepthArray) -> tuple[RgbArray, DepthArray]:
    """A crop on the one canvas: colours bicubic as the canonical resize, depths those of the nearest pixels."""
    resized = Image.fromarray(rgb).resize((CANVAS[1], CANVAS[0]), Image.Resampling.BICUBIC)
    return np.array(resized), depth[np.ix_(*canvas_lines(*depth.shape))]


def paired_queries(cameras: MixedCameras, count: int, limits: Limits, seed: int) -> Queries:
    """The same points of the same scenes with the same truth for both arms, marked as each arm sees them.

    A point is drawn on the canvas and taken to the crop, where it shows a pixel of exactly that depth.
    """
    samples: list[Sample] = []
    for k in range(_TRIES * count):
        if len(samples) == count:
            break
        rgb, depth = cameras.crop(k % len(cameras))
        drawn = _draw(depth, limits, np.random.default_rng([seed, k]))
        if drawn is None:
            continue
        there, here = drawn
        if cameras.sizes is cameras.crops:
            samples.append(marked_sample(rgb, depth, there))
        else:
            samples.append(marked_sample(*on_canvas(rgb, depth), here))
    if len(samples) < count:
        raise ValueError(f"{len(samples)} points can be asked in {len(cameras)} views, {count} were wanted")
    return Queries(tuple(samples), np.array([sample[3] for sample in samples]))


def _draw(
    depth: DepthArray, limits: Limits, rng: np.random.Generator
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """A point whose arrow fits in both arms, as (x, y) of the crop and of the canvas; None without one."""
    height, width = depth.shape
    rows, columns = canvas_lines(height, width)
    for _ in range(_TRIES):
        here = draw_query(depth[np.ix_(rows, columns)], limits, rng)
        if here is None:
            return None
        x, y = int(columns[here[0]]), int(rows[here[1]])
        inside_x = MARKER_MARGIN <= x < width - MARKER_MARGIN
        if inside_x and MARKER_MARGIN <= y < height - MARKER_MARGIN:
            return (x, y), here
    return None
