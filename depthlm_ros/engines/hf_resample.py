"""Pillow's bicubic resize, for a small window of the result.

A marker of nine pixels changes a few dozen pixels of a resized image; resizing all of it for every query costs
more than the query's text. The arithmetic is that of Pillow's 8-bit resampling (two passes with 22-bit
fixed-point weights), so a window equals that of ``Image.resize`` bit for bit. Which pass comes first depends on
the sizes and on Pillow's version: it is found out from Pillow itself, once for each size.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from depthlm_ros.engines.base import RgbImage

_BITS = 22
_SUPPORT = 2.0


def _bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * a if x < 2.0 else 0.0


class _Axis:
    """Which source pixels make each pixel of the result along one axis, and with what weights."""

    def __init__(self, size_in: int, size_out: int) -> None:
        if size_in == size_out:  # Pillow leaves this pass out
            self.first = np.arange(size_out)
            self.count = np.ones(size_out, dtype=np.intp)
            self.index = self.first[:, None]
            self.weight = np.full((size_out, 1), 1 << _BITS, dtype=np.int64)
            return
        scale = size_in / size_out
        stretch = max(scale, 1.0)
        support = _SUPPORT * stretch
        width = math.ceil(support) * 2 + 1
        self.first = np.zeros(size_out, dtype=np.intp)
        self.count = np.zeros(size_out, dtype=np.intp)
        self.weight = np.zeros((size_out, width), dtype=np.int64)
        for out in range(size_out):
            center = (out + 0.5) * scale
            low = max(int(center - support + 0.5), 0)
            high = min(int(center + support + 0.5), size_in)
            weights = [_bicubic((x - center + 0.5) * (1.0 / stretch)) for x in range(low, high)]
            total = sum(weights)
            fixed = [int(math.copysign(0.5, w) + w / total * (1 << _BITS)) for w in weights]
            self.first[out], self.count[out] = low, high - low
            self.weight[out, : high - low] = fixed
        # Beyond an axis' last source pixel the weights are zero; the index only has to be valid.
        self.index = np.minimum(self.first[:, None] + np.arange(width), size_in - 1)

    def touched(self, low: int, high: int) -> slice:
        """The pixels of the result that source pixels low to high (exclusive) are part of."""
        hit = np.flatnonzero((self.first < high) & (self.first + self.count > low))
        return slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0)


class WindowResampler:
    """Resizes windows of images of one size.

    Args:
        size_in: (height, width) of the images.
        size_out: (height, width) to which they are resized.
        rows_first: Whether the vertical pass comes first.
    """

    def __init__(self, size_in: tuple[int, int], size_out: tuple[int, int], *, rows_first: bool) -> None:
        self._rows_first = rows_first
        self._rows, self._columns = (_Axis(a, b) for a, b in zip(size_in, size_out, strict=True))

    def touched(self, top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
        """The rows and columns of the result that source rows and columns (ends exclusive) are part of."""
        return self._rows.touched(top, bottom), self._columns.touched(left, right)

    def resample(self, image: RgbImage, rows: slice, columns: slice) -> RgbImage:
        """The window of the resized image, (rows, columns, 3), uint8.

        Args:
            image: (H, W, 3), uint8, of the size given.
            rows: Rows of the result.
            columns: Columns of the result.
        """
        vertical, horizontal = self._rows, self._columns
        down, across = vertical.index[rows], horizontal.index[columns]
        top, left = int(down.min()), int(across.min())
        window = image[top : int(down.max()) + 1, left : int(across.max()) + 1].astype(np.int64)
        if self._rows_first:
            window = _fixed(np.einsum("rtck,rt->rck", window[down - top], vertical.weight[rows]))
            window = _fixed(np.einsum("rctk,ct->rck", window[:, across - left], horizontal.weight[columns]))
        else:
            window = _fixed(np.einsum("rctk,ct->rck", window[:, across - left], horizontal.weight[columns]))
            window = _fixed(np.einsum("rtck,rt->rck", window[down - top], vertical.weight[rows]))
        return window.astype(np.uint8)


@lru_cache(maxsize=8)
def pillow_resampler(size_in: tuple[int, int], size_out: tuple[int, int]) -> WindowResampler | None:
    """A resampler that does what the installed Pillow does, tried on noise; None if there is none.

    Args:
        size_in: (height, width) of the images.
        size_out: (height, width) to which they are resized.
    """
    noise = np.random.default_rng(0).integers(0, 256, (*size_in, 3), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(noise).resize(size_out[::-1], Image.Resampling.BICUBIC))
    for rows_first in (False, True):
        resampler = WindowResampler(size_in, size_out, rows_first=rows_first)
        if all(
            np.array_equal(resampler.resample(noise, rows, columns), whole[rows, columns])
            for rows in _samples(size_out[0])
            for columns in _samples(size_out[1])
        ):
            return resampler
    return None


def _samples(size: int) -> list[slice]:
    """Both ends and the middle of an axis."""
    middle = max(0, size // 2 - 16)
    return [slice(0, 32), slice(middle, middle + 32), slice(max(0, size - 32), size)]


def _fixed(total: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    clipped: npt.NDArray[np.int64] = np.clip((total + (1 << (_BITS - 1))) >> _BITS, 0, 255)
    return clipped
