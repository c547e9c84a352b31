"""Sparse depth into files: CSV for people and spreadsheets, PLY for viewers, NPZ for numpy."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.geometry import SparseDepth

CSV_COLUMNS = ("u", "v", "z_m", "sigma_m", "confidence", "status")


def status_name(code: int) -> str:
    """The lower-case name of a status code, such as ``ok`` or ``undrawable``."""
    return AnswerStatus(code).name.lower()


def measured_columns(sparse: SparseDepth, index: int) -> tuple[str, str, str, str]:
    """Depth [m], sigma [m], confidence and status of one pixel as text; ``nan`` where there is none."""
    values = (sparse.depth[index], sparse.sigma[index], sparse.confidence[index])
    z, sigma, confidence = (f"{value:.6g}" for value in values)
    return z, sigma, confidence, status_name(int(sparse.status[index]))


def write_csv(sparse: SparseDepth, path: Path) -> None:
    """Write one line per asked pixel, in order: u, v [px], z_m, sigma_m [m], confidence, status.

    Args:
        sparse: The pixels; those without an answer are written too, with ``nan`` and their status.
        path: The file, which is replaced.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(CSV_COLUMNS)
        for index, (u, v) in enumerate(sparse.pixels.tolist()):
            table.writerow((u, v, *measured_columns(sparse, index)))


def write_ply(sparse: SparseDepth, path: Path) -> int:
    """Write the answered points as a binary PLY cloud: x y z [m], colour, confidence, sigma [m].

    The frame is the optical one: x right, y down, z forward (REP 103).

    Args:
        sparse: The points.
        path: The file, which is replaced. Without any answer none is written, and an older one is removed, so
            that nobody takes it for this image's.

    Returns:
        How many points were written.
    """
    import trimesh

    ok = sparse.answered
    if not ok.any():
        path.unlink(missing_ok=True)
        return 0
    opaque = np.full((int(ok.sum()), 1), 255, dtype=np.uint8)
    cloud = trimesh.PointCloud(sparse.points()[ok], colors=np.hstack([sparse.rgb[ok], opaque]))
    # The exporter writes the attributes of whatever has this name; meshes have it from the start.
    cloud.vertex_attributes = {"confidence": sparse.confidence[ok], "sigma": sparse.sigma[ok]}
    cloud.export(path, file_type="ply")
    return len(opaque)


def write_npz(sparse: SparseDepth, path: Path) -> None:
    """Write everything as numpy arrays: those of SparseDepth, ``points`` (N, 3) and ``k`` (3, 3).

    Args:
        sparse: The pixels, answered or not.
        path: The file, which is replaced.
    """
    with path.open("wb") as file:  # a path would get ".npz" appended
        np.savez_compressed(
            file,
            pixels=sparse.pixels,
            depth=sparse.depth,
            sigma=sparse.sigma,
            confidence=sparse.confidence,
            status=sparse.status,
            rgb=sparse.rgb,
            points=sparse.points(),
            k=sparse.camera.p[:, :3],
            model=np.array(sparse.model),
        )
