"""From cached views to training batches: crop, flip, look, arrow, and the processor's resize."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from depthlm_ros.canonical import fill_grid
from depthlm_ros.prompting import MARKER_MARGIN, MARKER_OFFSETS, MARKER_RGB
from depthlm_ros.training.views import ViewCache

_TOKEN_PX = 16
_SMALLEST_PX = 64
_OFFSETS = np.asarray(MARKER_OFFSETS)

RgbArray = npt.NDArray[np.uint8]
DepthArray = npt.NDArray[np.float32]
Sample = tuple[RgbArray, DepthArray, tuple[int, int], float]
"""A marked view, its depth, the asked pixel in it, and the metres at that pixel."""


@dataclass(frozen=True)
class Batch:
    """Views of one size, each with one arrow.

    Attributes:
        views: uint8, shape (B, H, W, 3).
        depth: Metres along z per pixel, inf for the sky, shape (B, H, W).
        pixel: The asked pixels in the views as (x, y), shape (B, 2).
        target: Metres at exactly the asked pixel, shape (B,).
    """

    views: Tensor
    depth: Tensor
    pixel: Tensor
    target: Tensor


@dataclass(frozen=True)
class Limits:
    """Depths in metres that may be asked about."""

    nearest: float
    farthest: float


@dataclass(frozen=True)
class Variety:
    """How training samples are drawn from rendered views.

    Attributes:
        crop_share: Share of batches that are random crops; the others are whole views.
        look_share: Share of views whose exposure, colour, sharpness, noise or compression is changed.
        marked: Whether the arrow is drawn.
        filled: Whether views lose up to a token's side and are filled up again with black.
        labels_per_view: Pixels per view, and per its mirror image, that are ever asked about; 0 for all.
    """

    crop_share: float
    look_share: float
    marked: bool = True
    filled: bool = False
    labels_per_view: int = 0


def training_batch(
    cache: ViewCache,
    size: int,
    limits: Limits,
    variety: Variety,
    shape_rng: np.random.Generator,
    rng: np.random.Generator,
) -> Batch:
    """Draw one batch.

    Args:
        cache: The training views.
        size: Views in the batch.
        limits: Depths that may be asked about.
        variety: How much is changed.
        shape_rng: Draws the canvas; workers that share it work on equal sizes and wait less for each other.
        rng: Draws everything else.
    """
    if shape_rng.random() < variety.crop_share:
        height, width = draw_canvas(cache, shape_rng, whole=variety.filled)
        fitting = np.nonzero((cache.sizes[:, 0] >= height) & (cache.sizes[:, 1] >= width))[0]
    else:
        (height, width), fitting = draw_size(cache.sizes, shape_rng)
    samples: list[Sample] = []
    while len(samples) < size:
        index = int(rng.choice(fitting))
        rgb, depth = cache[index]
        query_rng = rng
        if variety.labels_per_view:
            query_rng = np.random.default_rng([index, int(rng.integers(variety.labels_per_view))])
        size_px = trimmed(height, width, rng) if variety.filled else (height, width)
        sample = training_sample(rgb, depth, size_px, limits, variety, rng, query_rng)
        if sample is not None:
            samples.append(sample)
    return collate(samples)


def draw_size(
    sizes: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[tuple[int, int], npt.NDArray[np.intp]]:
    """A size (height, width), each as often as it comes in ``sizes`` (N, 2), and the indices of all that have it."""
    size = sizes[rng.integers(len(sizes))]
    return (int(size[0]), int(size[1])), np.nonzero((sizes == size).all(axis=1))[0]


def draw_canvas(cache: ViewCache, rng: np.random.Generator, *, whole: bool = False) -> tuple[int, int]:
    """Height and width of a crop: the size of some view or some tokens less, not always whole tokens.

    Views whose sides are no multiples of a token are resized by the image processor, arrow and all; half of
    the batches go through that, unless only ``whole`` tokens are wanted.
    """
    height, width = (int(x) for x in cache.sizes[rng.integers(len(cache))])
    if rng.random() < 0.6:
        height = max(_SMALLEST_PX, height - _TOKEN_PX * int(rng.integers(0, 3)))
        width = max(_SMALLEST_PX, width - _TOKEN_PX * int(rng.integers(0, 4)))
    if not whole and rng.random() < 0.5:
        height = max(_SMALLEST_PX, height - int(rng.integers(0, _TOKEN_PX)))
        width = max(_SMALLEST_PX, width - int(rng.integers(0, _TOKEN_PX)))
    return height, width


def trimmed(height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    """A size that takes as many tokens, such as the views of cameras have, whose sides are anything."""
    return height - int(rng.integers(_TOKEN_PX)), width - int(rng.integers(_TOKEN_PX))


def training_sample(
    rgb: RgbArray,
    depth: DepthArray,
    size: tuple[int, int],
    limits: Limits,
    variety: Variety,
    rng: np.random.Generator,
    query_rng: np.random.Generator,
) -> Sample | None:
    """Crop, flip, change the look of, and mark one view; None where nothing in it may be asked about."""
    height, width = size
    top, left = (_crop_start(have - want, rng) for have, want in zip(depth.shape, size, strict=True))
    rgb = rgb[top : top + height, left : left + width]
    depth = depth[top : top + height, left : left + width]
    if rng.random() < 0.5:  # before the arrow, which always comes from the left
        rgb, depth = rgb[:, ::-1], depth[:, ::-1]
    pixel = draw_query(depth, limits, query_rng)
    if pixel is None:
        return None
    if rng.random() < variety.look_share:
        rgb = vary_look(np.ascontiguousarray(rgb), rng)
    view = np.array(rgb, order="C")
    return marked_sample(view, depth, pixel, marked=variety.marked, filled=variety.filled)


def marked_sample(
    rgb: RgbArray, depth: DepthArray, pixel: tuple[int, int], *, marked: bool = True, filled: bool = False
) -> Sample:
    """Draw the arrow, and resize to whole tokens as the image processor does or fill up to them.

    Args:
        rgb: The view, shape (H, W, 3); painted over.
        depth: Its depth, shape (H, W).
        pixel: The asked pixel (x, y).
        marked: False leaves the arrow out (text reference).
        filled: Whether whole tokens are reached by black, whose depth is inf, at the right and at the bottom.

    Returns:
        The view and its depth on whole tokens, the asked pixel there, and the depth at exactly that pixel.
    """
    x, y = pixel
    target = float(depth[y, x])
    if marked:
        rgb[y + _OFFSETS[:, 1], x + _OFFSETS[:, 0]] = MARKER_RGB
    if filled:
        more = [(0, -side % _TOKEN_PX) for side in depth.shape]
        return fill_grid(rgb, _TOKEN_PX), np.pad(depth, more, constant_values=np.inf), pixel, target
    height, width = depth.shape
    rows, columns = (max(1, round(side / _TOKEN_PX)) * _TOKEN_PX for side in (height, width))
    if (rows, columns) == (height, width):
        return rgb, np.ascontiguousarray(depth), pixel, target
    resized = np.asarray(Image.fromarray(rgb).resize((columns, rows), Image.Resampling.BICUBIC))
    lines = ((np.arange(rows) + 0.5) * height / rows).astype(np.intp)
    samples = ((np.arange(columns) + 0.5) * width / columns).astype(np.intp)
    moved = (int((x + 0.5) * columns / width), int((y + 0.5) * rows / height))
    return resized, depth[np.ix_(lines, samples)], moved, target


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of one size."""
    views, depths, pixels, targets = zip(*samples, strict=True)
    return Batch(
        torch.from_numpy(np.stack(views)),
        torch.from_numpy(np.stack(depths)),
        torch.tensor(pixels),
        torch.tensor(targets, dtype=torch.float32),
    )


def draw_query(depth: DepthArray, limits: Limits, rng: np.random.Generator) -> tuple[int, int] | None:
    """A pixel (x, y) whose arrow fits and whose depth may be asked about, or None."""
    height, width = depth.shape
    for _ in range(20):
        x = int(rng.integers(MARKER_MARGIN, width - MARKER_MARGIN))
        y = int(rng.integers(MARKER_MARGIN, height - MARKER_MARGIN))
        if limits.nearest <= depth[y, x] <= limits.farthest:
            return x, y
    return None


def _crop_start(slack: int, rng: np.random.Generator) -> int:
    # Half the crops stay near the middle, since cameras have their principal point there.
    if slack <= 0:
        return 0
    if rng.random() < 0.5:
        return int(np.clip(slack // 2 + rng.integers(-4, 5), 0, slack))
    return int(rng.integers(0, slack + 1))


def vary_look(rgb: RgbArray, rng: np.random.Generator) -> RgbArray:
    """Change exposure, colour, sharpness, noise and compression of a view; the geometry stays."""
    if rng.random() < 0.8:
        levels = np.linspace(0.0, 1.0, 256)[:, None] ** np.exp(rng.normal(0.0, 0.25))
        levels = (levels - 0.5) * rng.uniform(0.7, 1.25) + 0.5 + rng.uniform(-0.12, 0.12)
        levels = levels * np.exp(rng.normal(0.0, 0.05, 3))
        rgb = cv2.LUT(rgb, np.clip(levels * 255.0, 0, 255).astype(np.uint8).reshape(256, 1, 3)).astype(
            np.uint8
        )
    height, width = rgb.shape[:2]
    kind = rng.random()
    if kind < 0.25:  # a camera of lower resolution than the canonical view
        share = rng.uniform(0.45, 0.95)
        small = cv2.resize(rgb, (int(width * share), int(height * share)), interpolation=cv2.INTER_AREA)
        rgb = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    elif kind < 0.5:
        rgb = cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(0.3, 1.2))).astype(np.uint8)
    elif kind < 0.65:  # sharpening, which cameras apply
        soft = cv2.GaussianBlur(rgb, (0, 0), 1.0)
        gain = float(rng.uniform(0.2, 1.0))
        rgb = cv2.addWeighted(rgb, 1.0 + gain, soft, -gain, 0.0).astype(np.uint8)
    if rng.random() < 0.5:
        noise = rng.standard_normal(rgb.shape, dtype=np.float32) * np.float32(rng.uniform(0.0, 8.0))
        rgb = np.clip(rgb + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))]
        _, data = cv2.imencode(".jpg", rgb[..., ::-1], quality)
        rgb = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1].astype(np.uint8)
    return np.array(rgb, order="C")
