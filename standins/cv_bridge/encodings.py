"""Image encodings (``sensor_msgs/image_encodings``): their memory layout and how one becomes another."""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

_DTYPES = {
    "8U": np.uint8,
    "8S": np.int8,
    "16U": np.uint16,
    "16S": np.int16,
    "32S": np.int32,
    "32F": np.float32,
    "64F": np.float64,
}
_GENERIC = re.compile(r"(8U|8S|16U|16S|32S|32F|64F)(?:C(\d+))?")

# Colour family and channels of the encodings that say what their channels mean.
_FAMILIES = {
    "mono": ("GRAY", 1),
    "rgb": ("RGB", 3),
    "bgr": ("BGR", 3),
    "rgba": ("RGBA", 4),
    "bgra": ("BGRA", 4),
}
_COLOUR = re.compile(r"(mono|rgb|bgr|rgba|bgra)(8|16)")
_BAYER = re.compile(r"bayer_(rggb|bggr|gbrg|grbg)(8|16)")
_YUV = {"yuv422": "UYVY", "yuv422_yuy2": "YUY2"}

# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the top-left four.
_BAYER_IN_OPENCV = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}


class EncodingError(ValueError):
    """An encoding is unknown, or cannot become the other one."""


@dataclass(frozen=True)
class Encoding:
    """What an encoding's name says.

    Attributes:
        name: As in the message.
        dtype: Of one channel.
        channels: Per pixel.
        family: How OpenCV names the meaning of the channels ("RGB", "BayerBG", "UYVY", ...); empty for
            the generic encodings, such as 32FC1, which do not say.
    """

    name: str
    dtype: np.dtype
    channels: int
    family: str = ""

    @property
    def opencv_type(self) -> str:
        """OpenCV's name for the memory layout, such as 8UC3."""
        depth = next(name for name, dtype in _DTYPES.items() if np.dtype(dtype) == self.dtype)
        return f"{depth}C{self.channels}"


def parse_encoding(name: str) -> Encoding:
    """Reads an encoding's name.

    Args:
        name: As in ``Image.encoding``; case matters.

    Raises:
        EncodingError: Nothing of this name is known.
    """
    if match := _COLOUR.fullmatch(name):
        family, channels = _FAMILIES[match[1]]
        return Encoding(name, np.dtype(f"u{int(match[2]) // 8}"), channels, family)
    if match := _BAYER.fullmatch(name):
        return Encoding(name, np.dtype(f"u{int(match[2]) // 8}"), 1, "Bayer" + _BAYER_IN_OPENCV[match[1]])
    if name in _YUV:
        return Encoding(name, np.dtype(np.uint8), 2, _YUV[name])
    if (match := _GENERIC.fullmatch(name)) and int(match[2] or 1) > 0:
        return Encoding(name, np.dtype(_DTYPES[match[1]]), int(match[2] or 1))
    raise EncodingError(f"unrecognized image encoding [{name}]")


def convert(image: npt.NDArray, source: str, target: str) -> npt.NDArray:
    """Converts an image from one encoding to another.

    Colours are converted first and at the source's depth, then 8 and 16 bits are scaled into each other
    by their full range (255 to 65535); other depths are cast without scaling.

    Args:
        image: Shape (H, W) or (H, W, C), in the source's dtype.
        source: The encoding of `image`.
        target: The encoding wanted.

    Returns:
        A new array, shape (H, W) for one channel.

    Raises:
        EncodingError: The conversion makes no sense, for example from depth to colours.
    """
    if source == target:
        return image.copy()
    old, new = parse_encoding(source), parse_encoding(target)
    if not old.family and new.family:
        raise EncodingError(f"[{source}] is not a color format, but [{target}] is")
    if not (old.family and new.family):
        if old.channels != new.channels:
            raise EncodingError(f"[{source}] and [{target}] do not have the same number of channels")
        return _to_depth(image, new.dtype)
    # Equal families differ in depth only; a mosaic is no picture, so it cannot be scaled.
    if old.family != new.family:
        image = cv2.cvtColor(image, _conversion_code(old, new))
    elif old.family.startswith("Bayer"):
        raise EncodingError(f"unsupported conversion from [{source}] to [{target}]")
    return _to_depth(image, new.dtype)


def _conversion_code(old: Encoding, new: Encoding) -> int:
    targets = (
        {"GRAY", "RGB", "BGR"} if old.family.startswith("Bayer") else {"GRAY", "RGB", "BGR", "RGBA", "BGRA"}
    )
    if new.family not in targets:
        raise EncodingError(f"unsupported conversion from [{old.name}] to [{new.name}]")
    if old.family in ("UYVY", "YUY2"):
        return int(getattr(cv2, f"COLOR_YUV2{new.family}_{old.family}"))
    return int(getattr(cv2, f"COLOR_{old.family}2{new.family}"))


def _to_depth(image: npt.NDArray, dtype: np.dtype) -> npt.NDArray:
    scale = {(1, 2): 65535 / 255, (2, 1): 255 / 65535}.get((image.itemsize, dtype.itemsize), 1.0)
    if dtype == image.dtype:
        return image.copy()
    if dtype.kind == "f":
        return image.astype(dtype)
    # Rounded and saturated, as OpenCV does; NaN has no integer and becomes the smallest one's clip.
    limits = np.iinfo(dtype)
    scaled = np.rint(image.astype(np.float64) * scale)
    return np.clip(np.nan_to_num(scaled, nan=limits.min), limits.min, limits.max).astype(dtype)
