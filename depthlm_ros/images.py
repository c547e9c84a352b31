"""Image files into RGB arrays whose pixels are those of the file, or a refusal that says why."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from depthlm_ros.engines.base import RgbImage
from depthlm_ros.files import what_came

_LOG = logging.getLogger(__name__)

_ORIENTATION = 0x0112
"""The EXIF tag of the orientation; Pillow before 9.3 has no name for it."""

_STEREO_FORMAT = "MPO"
"""Photographs of phones: a JPEG first, then a depth map or a second view, which is not an animation."""

_STREAM_FORMATS = ("JPEG", "PNG")
"""What sensor_msgs/CompressedImage holds. What comes over a network reaches no other decoder."""

_FILE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""Formats of photographs; a JPEG may turn out to be an MPO. Pillow knows more, and EPS would start Ghostscript."""


class ImageError(ValueError):
    """An image file cannot be used; the message says which and why."""


def read_image(path: Path, *, max_megapixels: float) -> RgbImage:
    """Read an image file.

    The pixels are those stored in the file, because queries and calibrations count in them: an EXIF orientation
    is not applied (a warning says so). 16-bit grey is scaled to 8 bits, transparency is dropped.

    Args:
        path: The file: PNG, JPEG (or MPO), BMP, TIFF, WEBP or PPM, whatever its name ends in.
        max_megapixels: Larger images are refused before they are decoded.

    Returns:
        Shape (H, W, 3), uint8, RGB.

    Raises:
        ImageError: The file is absent, no image of these formats, too large, cut short, animated, or has no 8- or
            16-bit pixels.
    """
    return _decode(path, str(path), _FILE_FORMATS, max_megapixels, _warn_of_orientation)


def decode_image(data: bytes, *, max_megapixels: float) -> RgbImage:
    """Decode a JPEG or PNG that is held in memory, by the rules of :func:`read_image`.

    An EXIF orientation is not applied either, without a warning: it would come with every frame.

    Args:
        data: The bytes of the JPEG or PNG.
        max_megapixels: Larger images are refused before they are decoded.

    Returns:
        Shape (H, W, 3), uint8, RGB.

    Raises:
        ImageError: As for a file.
    """
    return _decode(io.BytesIO(data), f"{len(data)} bytes", _STREAM_FORMATS, max_megapixels)


def _decode(
    source: Path | IO[bytes],
    name: str,
    formats: tuple[str, ...],
    max_megapixels: float,
    look_at: Callable[[str, Image.Image], None] = lambda name, image: None,
) -> RgbImage:
    try:
        with Image.open(source, formats=formats) as image:
            _check(name, image, max_megapixels)
            look_at(name, image)
            image.load()
            return _to_rgb(name, image)
    except ImageError:
        raise
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, ...
        known = f"{', '.join(formats[:-1])} or {formats[-1]}"
        raise ImageError(f"{name}: expected an image as {known}, but {_what_came(source, error)}") from error


def _what_came(source: Path | IO[bytes], error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return what_came(error)
    what = "it is none" if isinstance(error, UnidentifiedImageError) else f"it cannot be decoded ({error})"
    return (
        f"{what}: {'name an image, or save it anew' if isinstance(source, Path) else 'check what sends it'}"
    )


def _check(name: str, image: Image.Image, max_megapixels: float) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > max_megapixels:
        raise ImageError(
            f"{name}: {image.width}x{image.height} are {megapixels:.4g} Mpx, more than the {max_megapixels:g} "
            "that are allowed: use a smaller image, or raise camera.max_megapixels"
        )
    if getattr(image, "is_animated", False) and image.format != _STEREO_FORMAT:
        raise ImageError(f"{name}: has {getattr(image, 'n_frames', 'several')} frames: save the one you mean")


def _warn_of_orientation(name: str, image: Image.Image) -> None:
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation != 1:
        _LOG.warning(
            "%s: its EXIF orientation %s is not applied; pixels are counted as the file stores them",
            name,
            orientation,
        )


def _to_rgb(name: str, image: Image.Image) -> RgbImage:
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ImageError(
                f"{name}: grey values {grey.min()} to {grey.max()} are not 16-bit: save it as 8 bits"
            )
        # Pillow's own conversion clips at 255 instead of scaling.
        grey8 = ((grey * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey8[..., None], 3, axis=2)
    if image.mode == "F":
        raise ImageError(f"{name}: has floating-point pixels, whose white is unknown: save it as 8 bits")
    return np.asarray(image.convert("RGB"), dtype=np.uint8)
