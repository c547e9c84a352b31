"""The canonical view: the source image resized so that its focal length is the checkpoint's."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from depthlm_ros.engines.base import RgbImage

ANISOTROPY_LIMIT = 0.01
"""Relative difference of fx and fy up to which one scale serves both sides, as in the official code."""


class CanonicalError(ValueError):
    """The image cannot be resized to the canonical focal length; the message says why."""


class CanonicalView:
    """A source image at the canonical focal length, resized once however many pixels are asked.

    The geometry is that of the official DepthLM code (``normalizing_focal_length``): scale
    s = f_canonical / fx on both sides, size (int(W s), int(H s)), Pillow's default filter (bicubic), source
    pixel (u, v) at (int(u s), int(v s)). Where fx and fy differ by more than 1 %, each side gets its own
    scale, so that both focal lengths become the canonical one; the official code leaves that case distorted.

    With a patch grid, which the official code does not have, black is added at the right and at the bottom to whole
    squares of the grid. No pixel moves and none is lost, as it would be by a crop; none of the black can be asked.

    Attributes:
        source_size: (width, height) of the source image.
        size: (width, height) of the source image at the canonical focal length, without what was added: what can be
            asked.
        image: What the model sees, shape (H, W, 3), dtype uint8, RGB: of ``size``, or larger with a patch grid.
    """

    def __init__(
        self,
        image: RgbImage,
        fx: float,
        fy: float,
        canonical_focal_px: float,
        *,
        patch_grid_px: int = 0,
        max_pixels: float = 50e6,
    ) -> None:
        """Resize the image.

        Args:
            image: The (rectified) source image, shape (H, W, 3), dtype uint8, RGB.
            fx: Focal length along u in source pixels. 0 takes ``fy``, as the official code does.
            fy: Focal length along v in source pixels. 0 takes ``fx``.
            canonical_focal_px: The checkpoint's focal length in pixels.
            patch_grid_px: Side of the squares in which the model sees an image; 0 adds nothing.
            max_pixels: More pixels than this after the resize are refused.

        Raises:
            CanonicalError: The image is not RGB uint8, a focal length is not positive and finite, or the view
                would be empty or too large.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise CanonicalError(f"expected an RGB image (H, W, 3) uint8, got {image.shape} {image.dtype}")
        fx, fy = fx or fy, fy or fx
        if not (math.isfinite(fx) and math.isfinite(fy) and fx > 0.0 and fy > 0.0):
            raise CanonicalError(
                f"expected focal lengths above 0 px, got fx = {fx}, fy = {fy}: calibrate the camera"
            )
        height, width = image.shape[:2]
        isotropic = abs(fx - fy) <= ANISOTROPY_LIMIT * max(fx, fy)
        self._sx = canonical_focal_px / fx
        self._sy = self._sx if isotropic else canonical_focal_px / fy
        size = (int(min(width * self._sx, 1e15)), int(min(height * self._sy, 1e15)))
        if min(size) < 1 or size[0] * size[1] > max_pixels:
            raise CanonicalError(
                f"a {width}x{height} image with focal length {fx:.6g} px becomes {size[0]}x{size[1]} at the "
                f"canonical {canonical_focal_px:g} px, outside 1 to {max_pixels:g} pixels: check the "
                "calibration, or raise camera.max_megapixels"
            )
        self.source_size = (width, height)
        self.size = size
        self.image: RgbImage = fill_grid(np.asarray(Image.fromarray(image).resize(size)), patch_grid_px)

    def to_canonical(self, uv: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Map source pixels to canonical ones: (int(u s), int(v s)).

        Args:
            uv: Source pixels, shape (..., 2).

        Returns:
            Canonical pixels, shape (..., 2), int64; they may lie outside the view when ``uv`` does.
        """
        scaled = np.asarray(uv, dtype=np.float64) * (self._sx, self._sy)
        return np.trunc(scaled).astype(np.int64)

    def to_source(self, xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map canonical pixels to the middle of the source interval that falls on them.

        Args:
            xy: Canonical pixels, shape (..., 2), 0 or greater.

        Returns:
            Source positions, shape (..., 2), float64; ``to_canonical`` maps each back to ``xy``.
        """
        return (np.asarray(xy, dtype=np.float64) + 0.5) / (self._sx, self._sy)


def fill_grid(image: RgbImage, patch_grid_px: int) -> RgbImage:
    """Add black at the right and at the bottom, up to whole squares.

    Black is no surface that a camera shows beyond its border; repeating the last pixels would look like one.

    Args:
        image: Shape (H, W, 3), uint8.
        patch_grid_px: Side of the squares in pixels; 0 adds nothing.

    Returns:
        The image itself where nothing is to be added, else a larger copy.
    """
    if not patch_grid_px:
        return image
    more = [-side % patch_grid_px for side in image.shape[:2]]
    return np.pad(image, ((0, more[0]), (0, more[1]), (0, 0))) if any(more) else image
