"""Sparse depth in the camera: what was asked, what was answered, and where it lies in space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera

Floats = npt.NDArray[np.float32]

_COLUMNS = ("pixels", "depth", "sigma", "confidence", "certainty", "status", "rgb")
"""What of :class:`SparseDepth` has one entry per pixel."""


class Pinhole(Protocol):
    """What the geometry needs of a camera: focal lengths and principal point in pixels."""

    @property
    def fx(self) -> float:
        """Focal length along u."""
        ...

    @property
    def fy(self) -> float:
        """Focal length along v."""
        ...

    @property
    def cx(self) -> float:
        """Principal point's column."""
        ...

    @property
    def cy(self) -> float:
        """Principal point's row."""
        ...


@dataclass(frozen=True, eq=False)
class SparseDepth:
    """Depth at the asked pixels of one frame, in the (rectified) source camera.

    Attributes:
        pixels: Source pixels as (u, v), shape (N, 2), int64.
        depth: z-depth in metres, shape (N,), float32; NaN where ``status`` is not ``OK``.
        sigma: 1-sigma uncertainty in metres, shape (N,), float32; NaN where unknown.
        confidence: Calibrated probability that the depth is within 25 % of the truth, shape (N,), float32;
            NaN where the checkpoint carries no calibration.
        status: :class:`~depthlm_ros.answers.AnswerStatus` of each, shape (N,), uint8.
        rgb: Colour of each pixel in the source image, shape (N, 3), uint8.
        camera: The camera that the pixels and depths belong to.
        model: Name of what answered.
        seconds: Time spent per stage.
        error: What the engine said about the first query that it failed on (``ENGINE_ERROR``); else empty.
        certainty: What a calibration is fitted on (:func:`~depthlm_ros.certainty.relative_certainty`), shape (N,),
            float32; NaN where unknown, and everywhere where it is not given.
    """

    pixels: npt.NDArray[np.int64]
    depth: Floats
    sigma: Floats
    confidence: Floats
    status: npt.NDArray[np.uint8]
    rgb: npt.NDArray[np.uint8]
    camera: PinholeCamera
    model: str
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""
    certainty: Floats = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    def __post_init__(self) -> None:
        if not len(self.certainty):
            object.__setattr__(self, "certainty", np.full(len(self.pixels), np.nan, dtype=np.float32))

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Which pixels have a depth, shape (N,)."""
        return np.asarray(self.status == AnswerStatus.OK, dtype=np.bool_)

    def reasons(self) -> dict[str, int]:
        """How many pixels ended in which status, by the status's lower-case name."""
        counts = Counter(self.status.tolist())
        return {AnswerStatus(code).name.lower(): count for code, count in sorted(counts.items())}

    def at(self, pixels: npt.ArrayLike) -> SparseDepth:
        """The entries of given pixels, in their order and as often as they are given.

        :meth:`~depthlm_ros.estimator.DepthEstimator.ask` asks a repeated pixel once; this gives its answer to each
        of the places where a caller named it.

        Args:
            pixels: Asked source pixels as (u, v), shape (M, 2).

        Returns:
            One entry per given pixel, M in all.

        Raises:
            KeyError: A pixel was not asked.
        """
        where = {(u, v): i for i, (u, v) in enumerate(self.pixels.tolist())}
        wanted = np.asarray(pixels).reshape(-1, 2).astype(np.int64).tolist()
        entries = np.array([where[u, v] for u, v in wanted], dtype=np.int64)
        return replace(self, **{name: getattr(self, name)[entries] for name in _COLUMNS})

    @staticmethod
    def joined(parts: Sequence[SparseDepth]) -> SparseDepth:
        """One frame's answers from those of its parts, in their order.

        Args:
            parts: At least one, all of the same frame, no pixel twice. Their seconds in the engine are added; the
                frame's other stages are the same in all.
        """
        together = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        engine_s = sum(part.seconds.get("engine", 0.0) for part in parts)
        seconds = {**parts[0].seconds, "engine": engine_s}
        error = next((part.error for part in parts if part.error), "")
        return replace(parts[0], **together, seconds=seconds, error=error)

    def points(self) -> Floats:
        """The pixels in the optical frame (x right, y down, z forward; REP 103), shape (N, 3), metres."""
        return backproject(self.pixels, self.depth, self.camera)

    def depth_image(self) -> Floats:
        """Depth as an image of shape (height, width), metres, NaN where nothing was answered (REP 118)."""
        image = np.full((self.camera.height, self.camera.width), np.nan, dtype=np.float32)
        u, v = self.pixels[self.answered].T
        image[v, u] = self.depth[self.answered]
        return image


def rays(pixels: npt.ArrayLike, camera: Pinhole) -> npt.NDArray[np.float64]:
    """Directions through pixel centres with z = 1, in the optical frame.

    Args:
        pixels: Source pixels as (u, v), shape (..., 2).
        camera: The camera.

    Returns:
        Shape (..., 3).
    """
    uv = np.asarray(pixels, dtype=np.float64)
    x = (uv[..., 0] - camera.cx) / camera.fx
    y = (uv[..., 1] - camera.cy) / camera.fy
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def backproject(pixels: npt.ArrayLike, depth: npt.ArrayLike, camera: Pinhole) -> Floats:
    """Points in the optical frame from z-depths.

    Args:
        pixels: Source pixels, shape (N, 2).
        depth: z-depths in metres, shape (N,).
        camera: The camera.

    Returns:
        Shape (N, 3), float32, metres; NaN where the depth is.
    """
    z = np.asarray(depth, dtype=np.float64)
    return np.asarray(rays(pixels, camera) * z[..., None], dtype=np.float32)


def project(points: npt.ArrayLike, camera: PinholeCamera) -> npt.NDArray[np.float64]:
    """Source pixels of points in the optical frame.

    Args:
        points: Shape (N, 3), metres, z above 0.
        camera: The camera.

    Returns:
        Positions (u, v), shape (N, 2).
    """
    xyz = np.asarray(points, dtype=np.float64)
    u = camera.fx * xyz[..., 0] / xyz[..., 2] + camera.cx
    v = camera.fy * xyz[..., 1] / xyz[..., 2] + camera.cy
    return np.stack([u, v], axis=-1)


def z_per_metre_of_range(pixels: npt.ArrayLike, camera: PinholeCamera) -> npt.NDArray[np.float64]:
    """Cosine between each pixel's ray and the optical axis: z-depth = cosine x range.

    Args:
        pixels: Source pixels, shape (N, 2).
        camera: The camera.

    Returns:
        Shape (N,), in (0, 1].
    """
    return np.asarray(1.0 / np.linalg.norm(rays(pixels, camera), axis=-1), dtype=np.float64)


def confident(sparse: SparseDepth, min_confidence: float) -> npt.NDArray[np.bool_]:
    """Which answered points are sure enough.

    Args:
        sparse: The points.
        min_confidence: Less confident ones are not; 0 also admits points without a confidence.

    Returns:
        Booleans of shape (N,).
    """
    sure = (sparse.confidence >= min_confidence) | (min_confidence == 0.0)
    return np.asarray(sparse.answered & sure, dtype=np.bool_)


def within_range(sparse: SparseDepth, min_range_m: float, max_range_m: float) -> npt.NDArray[np.bool_]:
    """Which points lie between two Euclidean distances from the camera, in metres.

    Returns:
        Booleans of shape (N,); false without an answer.
    """
    distance = np.linalg.norm(sparse.points(), axis=1)
    return np.asarray((distance >= min_range_m) & (distance <= max_range_m), dtype=np.bool_)


def within_height(
    sparse: SparseDepth, pose: npt.NDArray[np.float64], min_height_m: float, max_height_m: float
) -> npt.NDArray[np.bool_]:
    """Which points lie between two heights of another frame, whose z axis points up (REP 103), in metres.

    Args:
        sparse: The points.
        pose: Of the optical frame in that frame, homogeneous, shape (4, 4).
        min_height_m: The least height.
        max_height_m: The greatest height.

    Returns:
        Booleans of shape (N,); false without an answer.
    """
    height = sparse.points().astype(np.float64) @ pose[2, :3] + pose[2, 3]
    return np.asarray((height >= min_height_m) & (height <= max_height_m), dtype=np.bool_)
