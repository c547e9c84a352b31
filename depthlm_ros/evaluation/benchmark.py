"""Reads the DepthLM benchmark format: one JSON object a line, each an image with its labelled pixels."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.files import what_came

NO_LABEL = (-1, -1)
"""The pixel by which the official data sets say that a place in the list holds no label."""


class BenchmarkError(ValueError):
    """A benchmark file is refused; the message names the line, what was expected and what came."""


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One line of a benchmark.

    Attributes:
        name: The image as the line names it.
        path: The image file.
        intrinsics: fx, fy, cx, cy in pixels, width, height; a focal length of 0 has taken the other's value.
        pixels: Labelled source pixels, shape (N, 2), int64.
        depth: z-depth in metres, shape (N,), float64, finite and above 0.
        ignored: Labels of the line that were left out: the pixel (-1, -1), or a depth that is not finite and
            above 0.
        dense: The file of the dense truth (see :mod:`depthlm_ros.evaluation.dense`); None where the line names none.
        static: Lines that share it show one static scene from one camera pose; None where the line says nothing.
    """

    name: str
    path: Path
    intrinsics: tuple[float, float, float, float, int, int]
    pixels: npt.NDArray[np.int64]
    depth: npt.NDArray[np.float64]
    ignored: int = 0
    dense: Path | None = None
    static: str | None = None

    @property
    def height(self) -> int:
        """Image height in pixels."""
        return self.intrinsics[5]

    def camera(self) -> PinholeCamera:
        """The camera of the image.

        Raises:
            CameraError: The intrinsics cannot be used.
        """
        return PinholeCamera.from_intrinsics(*self.intrinsics)


def read_benchmark(path: Path, images: Path, *, limit: int | None = None) -> list[LabelledImage]:
    """Read a benchmark file.

    Each line is an object with ``image`` (a path below ``images``; a leading slash is ignored), ``intrinsics``
    [fx, fy, cx, cy, width, height] in pixels, ``pixel_coords`` [[u, v], ...] and ``depth`` [metres, ...]. Beyond the
    official format a line may have ``dense`` (the file of the dense truth, a path below ``images``) and ``static`` (a
    text that all pictures of one static scene from one camera pose share). Other keys are ignored. As in the official
    code, a focal length of 0 takes the other's value.

    Args:
        path: The ``.jsonl`` file.
        images: The directory that the paths of images and dense truth start from.
        limit: Read the first so many images only; None reads all.

    Raises:
        BenchmarkError: The file cannot be read, has no labels, or a line is not as described.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path}: expected one JSON object a line, but {what_came(error)}") from error
    samples: list[LabelledImage] = []
    for number, line in enumerate(lines, start=1):
        if limit is not None and len(samples) >= limit:
            break
        if not line.strip():
            continue
        try:
            samples.append(_sample(json.loads(line), images))
        except json.JSONDecodeError as error:
            raise BenchmarkError(
                f"{path} line {number}: expected one JSON object a line, but it holds something else (column "
                f"{error.colno}: {error.msg}): mend it, or name the right file"
            ) from error
        except (ValueError, TypeError) as error:
            raise BenchmarkError(f"{path} line {number}: {error}") from error
    if not any(len(sample.depth) for sample in samples):
        raise BenchmarkError(f"{path}: holds no labelled pixel; expected one JSON object a line")
    return samples


def _sample(record: Any, images: Path) -> LabelledImage:
    if not isinstance(record, dict):
        raise BenchmarkError(f"expected a JSON object, got {type(record).__name__}")
    missing = [key for key in ("image", "intrinsics", "pixel_coords", "depth") if key not in record]
    if missing:
        raise BenchmarkError(f"lacks {', '.join(missing)}")
    pixels, depth = _pixels(record["pixel_coords"]), _numbers("depth", record["depth"])
    if len(pixels) != len(depth):
        raise BenchmarkError(f"has {len(pixels)} pixel_coords but {len(depth)} depths")
    static = record.get("static")
    if not isinstance(static, str | None):
        raise BenchmarkError(f"static: expected a text, got {static!r}")
    usable = np.isfinite(depth) & (depth > 0.0) & np.any(pixels != NO_LABEL, axis=1)
    return LabelledImage(
        name=str(record["image"]),
        path=_inside(images, "image", record["image"]),
        intrinsics=_intrinsics(record["intrinsics"]),
        pixels=pixels[usable],
        depth=depth[usable],
        ignored=int((~usable).sum()),
        dense=None if record.get("dense") is None else _inside(images, "dense", record["dense"]),
        static=static,
    )


def _inside(images: Path, key: str, name: Any) -> Path:
    if not isinstance(name, str) or not name.strip("/"):
        raise BenchmarkError(f"{key}: expected a relative path, got {name!r}")
    path = images / name.lstrip("/")
    # Compared by text, so that links inside the directory may point elsewhere, as shared data sets do.
    if ".." in Path(name).parts:
        raise BenchmarkError(f"{key}: {name!r} leads outside of {images}")
    return path


def _intrinsics(value: Any) -> tuple[float, float, float, float, int, int]:
    numbers = _numbers("intrinsics", value)
    if len(numbers) != 6 or not np.isfinite(numbers).all():
        raise BenchmarkError(f"intrinsics: expected fx, fy, cx, cy, width, height, got {value!r}")
    fx, fy, cx, cy, width, height = numbers.tolist()
    fx, fy = fx or fy, fy or fx
    if fx <= 0.0 or fy <= 0.0:
        raise BenchmarkError(f"intrinsics: expected a focal length above 0 px, got fx = {fx:g}, fy = {fy:g}")
    if not (width.is_integer() and height.is_integer() and width >= 1 and height >= 1):
        raise BenchmarkError(f"intrinsics: expected a size of whole pixels, got {width:g}x{height:g}")
    return fx, fy, cx, cy, int(width), int(height)


def _pixels(value: Any) -> npt.NDArray[np.int64]:
    if not isinstance(value, list) or not all(isinstance(p, list) and len(p) == 2 for p in value):
        raise BenchmarkError("pixel_coords: expected a list of [u, v]")
    numbers = _numbers("pixel_coords", [x for pair in value for x in pair]).reshape(-1, 2)
    if not np.array_equal(numbers, np.trunc(numbers)) or np.abs(numbers).max(initial=0.0) >= 2**31:
        raise BenchmarkError("pixel_coords: expected whole pixels")
    return numbers.astype(np.int64)


def _numbers(key: str, value: Any) -> npt.NDArray[np.float64]:
    if not isinstance(value, list) or not all(
        x is None or (isinstance(x, int | float) and not isinstance(x, bool)) for x in value
    ):
        raise BenchmarkError(f"{key}: expected a list of numbers")
    return np.array([math.nan if x is None else float(x) for x in value], dtype=np.float64)
