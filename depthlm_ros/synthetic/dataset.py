"""Writes rendered views as a benchmark that DepthLM's own tools can read."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from depthlm_ros.synthetic.cameras import Domain
from depthlm_ros.synthetic.views import View, sample_view

_MIN_MARGIN_PX = 12
_MARKER_REACH_PX = 6
_CANONICAL_FOCAL_PX = 112.0


@dataclass(frozen=True)
class _Job:
    out: Path
    seed: int
    index: int
    domain: Domain
    points: int
    focal_px: float | None
    supersample: int


def write_dataset(
    out: Path,
    *,
    scenes: int,
    seed: int,
    domain: Domain,
    processes: int = 2,
    points_per_image: int = 10,
    focal_px: float | None = None,
    supersample: int = 1,
    progress: bool = True,
) -> Path:
    """Render one view of each of ``scenes`` scenes into a DepthLM benchmark.

    Layout: ``<domain>.jsonl``; ``rgb/*.png``; ``dense/*.npz`` with ``z_depth`` and ``range`` (float32 metres,
    inf for sky). Each line holds ``image`` (relative path), ``intrinsics`` [fx, fy, cx, cy, width, height],
    ``pixel_coords`` [[u, v], ...] and their ``depth`` (z, metres); beyond the benchmark's format also ``seed``,
    ``domain``, ``kind`` and ``dense``. The result depends on neither the number of processes nor their order. The
    index is written last and in one step, so that an interrupted run leaves none.

    Args:
        out: Directory, created when absent.
        scenes: Number of images.
        seed: Seed of the whole set; image i draws from (seed, i).
        domain: What to draw.
        processes: Worker processes; 1 renders in this one.
        points_per_image: Labelled pixels per image; fewer where an image has fewer finite ones.
        focal_px: Render at this focal length; otherwise at that of varied real cameras.
        supersample: See `render`.
        progress: Show a bar.

    Returns:
        The path of the index.

    Raises:
        ValueError: A count is not positive.
    """
    if min(scenes, processes, points_per_image) < 1:
        raise ValueError(
            "scenes, processes and points_per_image must be at least 1, "
            f"got {scenes}, {processes} and {points_per_image}"
        )
    out = Path(out)
    for folder in ("rgb", "dense"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    jobs = [
        _Job(out, seed, index, domain, points_per_image, focal_px, supersample) for index in range(scenes)
    ]
    records = _with_progress(_run(jobs, processes), scenes, f"rendering {domain.value}", progress)
    lines = [json.dumps(record) for record in records]
    return _write_atomically(out / f"{domain.value}.jsonl", ("\n".join(lines) + "\n").encode())


def _run(jobs: list[_Job], processes: int) -> Iterator[dict[str, Any]]:
    if processes == 1:
        yield from map(_render_job, jobs)
        return
    # Spawned rather than forked: the caller may hold threads (torch, OpenCV) that a fork would freeze mid-lock.
    with multiprocessing.get_context("spawn").Pool(processes, initializer=_start_worker) as pool:
        yield from pool.imap(_render_job, jobs, chunksize=4)


def _start_worker() -> None:
    cv2.setNumThreads(1)


def _with_progress(
    records: Iterator[dict[str, Any]], total: int, label: str, show: bool
) -> Iterator[dict[str, Any]]:
    if not show:
        return records
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    bar: Iterator[dict[str, Any]] = iter(tqdm(records, total=total, desc=label, unit="image"))
    return bar


def _render_job(job: _Job) -> dict[str, Any]:
    view = sample_view((job.seed, job.index), job.domain, focal_px=job.focal_px, supersample=job.supersample)
    name = f"{job.domain.value}_{job.seed}_{job.index:06d}"
    encoded, png = cv2.imencode(".png", cv2.cvtColor(view.rgb, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode {name} as PNG")
    _write_atomically(job.out / "rgb" / f"{name}.png", png.tobytes())
    dense = job.out / "dense" / f"{name}.npz"
    part = dense.with_suffix(".part.npz")
    np.savez_compressed(part, z_depth=view.z_depth, range=view.range_)
    os.replace(part, dense)
    pixels = sample_pixels(np.random.default_rng((job.seed, job.index, 1)), view, job.points)
    camera = view.intrinsics
    return {
        "image": f"rgb/{name}.png",
        "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height],
        "pixel_coords": pixels.tolist(),
        "depth": [float(depth) for depth in view.z_depth[pixels[:, 1], pixels[:, 0]]],
        "seed": [job.seed, job.index],
        "domain": job.domain.value,
        "kind": view.kind,
        "dense": f"dense/{name}.npz",
    }


def sample_pixels(rng: np.random.Generator, view: View, count: int) -> npt.NDArray[np.int64]:
    """Draw up to ``count`` different pixels (u, v), shape (K, 2), of finite depth and away from the border.

    The margin leaves room for the marker after resizing to a canonical focal length of 112 px, and is at least 12 px.
    """
    height, width = view.z_depth.shape
    focal = max(view.intrinsics.fx, view.intrinsics.fy)
    margin = max(_MIN_MARGIN_PX, math.ceil(_MARKER_REACH_PX * focal / _CANONICAL_FOCAL_PX))
    margin = min(margin, (min(height, width) - 1) // 2)
    inner = np.isfinite(view.z_depth[margin : height - margin, margin : width - margin])
    candidates = np.flatnonzero(inner)
    chosen = rng.choice(candidates, size=min(count, candidates.size), replace=False)
    rows, columns = np.divmod(chosen, inner.shape[1])
    return np.stack([columns + margin, rows + margin], axis=1)


def _write_atomically(path: Path, content: bytes) -> Path:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
    return path
