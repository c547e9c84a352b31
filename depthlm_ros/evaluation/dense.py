"""Queries that need dense truth: beside depth edges, and on one flat surface of each image."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from depthlm_ros.estimator import DepthEstimator, PreparedFrame
from depthlm_ros.evaluation.benchmark import BenchmarkError, LabelledImage
from depthlm_ros.evaluation.edges import EdgeAnswers, EdgePairs, choose_edge_pairs
from depthlm_ros.evaluation.metrics import Bools
from depthlm_ros.evaluation.planes import FEWEST_POINTS, PlaneAnswers, find_plane, plane_answers
from depthlm_ros.files import what_came
from depthlm_ros.geometry import SparseDepth, backproject

FEWEST_QUERIES = 4 * FEWEST_POINTS
"""With fewer queries per image, a few missing answers would leave no plane."""

_OFFSET_PX = 3
"""How far from an edge is asked, in pixels of the canonical view, and at least so many of the source image."""

Pixels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DenseAnswers:
    """The answers to the extra queries of one image.

    Attributes:
        edges: Beside depth edges.
        plane: On a flat surface; None where there is none, or too few answers.
        pixels: Everything that was asked as (u, v), shape (N, 2).
        truth: True z-depth there in metres, shape (N,).
        kinds: ``edge_near``, ``edge_far`` or ``plane`` of each; partners of a pair have one place among their kind.
        answers: One entry per query.
    """

    edges: EdgeAnswers
    plane: PlaneAnswers | None
    pixels: Pixels
    truth: npt.NDArray[np.float64]
    kinds: list[str]
    answers: SparseDepth


def read_dense(path: Path, sample: LabelledImage) -> npt.NDArray[np.float32]:
    """Read the dense truth of an image.

    Args:
        path: An NPZ file whose array ``z_depth`` holds metres along the optical axis, inf or NaN where there is no
            surface.
        sample: The image; the array must have its size.

    Returns:
        Shape (H, W), float32.

    Raises:
        BenchmarkError: The file cannot be read, or is not as described.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            z = arrays["z_depth"]
    except Exception as error:
        # numpy raises what its zip and header readers raise on damaged files: OSError, ValueError, BadZipFile, ...
        raise BenchmarkError(f"{path}: expected NPZ with an array z_depth, but {what_came(error)}") from error
    width, height = sample.intrinsics[4:]
    if z.shape != (height, width) or not np.issubdtype(z.dtype, np.floating):
        raise BenchmarkError(
            f"{path}: expected z_depth as floats of shape ({height}, {width}), got {z.dtype} {z.shape}"
        )
    return np.asarray(z, dtype=np.float32)


def ask_dense(
    estimator: DepthEstimator, frame: PreparedFrame, sample: LabelledImage, path: Path, count: int
) -> DenseAnswers:
    """Ask extra pixels of an image that has dense truth: half beside depth edges, half on one flat surface.

    Which pixels depends on the name of the image, its dense truth and the scale of the canonical view alone, so that
    checkpoints of one canonical focal length get the same questions.

    Args:
        estimator: A running estimator.
        frame: The prepared image.
        sample: The image with its labels.
        path: Its dense truth.
        count: Queries, at most; :data:`FEWEST_QUERIES` or more.

    Raises:
        BenchmarkError: The dense truth cannot be used.
        EngineError: The engine failed.
    """
    z = read_dense(path, sample)
    rng = np.random.default_rng(zlib.crc32(sample.name.encode()))
    height, width = z.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    askable = frame.askable(grid)
    source_per_canonical = max(width / frame.view.size[0], height / frame.view.size[1])
    offset = max(_OFFSET_PX, round(_OFFSET_PX * source_per_canonical))
    pairs = choose_edge_pairs(z, askable, offset, count // 4, rng)
    on_plane = _on_plane(z, frame, askable, offset, count - 2 * (count // 4), rng)
    pixels = np.concatenate([pairs.near, pairs.far, on_plane])
    answers = estimator.ask(frame, pixels).at(pixels)
    truth = z[pixels[:, 1], pixels[:, 0]].astype(np.float64)
    n = len(pairs.near)
    return DenseAnswers(
        edges=_edge_answers(pairs, truth, answers),
        plane=plane_answers(
            backproject(on_plane, truth[2 * n :], frame.camera).astype(np.float64),
            answers.points()[2 * n :].astype(np.float64),
        ),
        pixels=pixels,
        truth=truth,
        kinds=["edge_near"] * n + ["edge_far"] * n + ["plane"] * len(on_plane),
        answers=answers,
    )


def _on_plane(
    z: npt.NDArray[np.floating[Any]],
    frame: PreparedFrame,
    askable: Bools,
    margin: int,
    count: int,
    rng: np.random.Generator,
) -> Pixels:
    from scipy.ndimage import binary_erosion  # type: ignore[import-untyped,unused-ignore]

    region = find_plane(z, frame.camera, rng)
    if region is None:
        return np.zeros((0, 2), dtype=np.int64)
    v, u = np.nonzero(binary_erosion(region, iterations=margin) & askable)
    chosen = rng.choice(len(u), size=min(count, len(u)), replace=False)
    return np.stack([u[chosen], v[chosen]], axis=1).astype(np.int64)


def _edge_answers(pairs: EdgePairs, truth: npt.NDArray[np.float64], answers: SparseDepth) -> EdgeAnswers:
    n = len(pairs.near)
    said = answers.depth.astype(np.float64)
    return EdgeAnswers(truth[:n], truth[n : 2 * n], said[:n], said[n : 2 * n])
