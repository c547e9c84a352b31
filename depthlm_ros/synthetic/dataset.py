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

from depthlm_ros.engines.base import RgbImage
from depthlm_ros.synthetic.cameras import Domain, Floats
from depthlm_ros.synthetic.sheet import TILES, contact_sheet, tile
from depthlm_ros.synthetic.views import View, sample_repeats

_MIN_MARGIN_PX = 12
_MARKER_REACH_PX = 6
_CANONICAL_FOCAL_PX = 112.0
_SMALLEST_PX, _LARGEST_PX = 32, 4096


@dataclass(frozen=True)
class RenderSpec:
    """What a rendered data set holds; the same specification gives the same files.

    Attributes:
        scenes: How many scenes, each seen from one pose.
        seed: Seed of the whole set; scene i draws from (seed, i).
        domain: What to draw.
        repeats: Pictures per scene, see `sample_repeats`.
        points_per_image: Labelled pixels per image; fewer where an image has fewer finite ones.
        size: Width and height in pixels; None varies them over common video modes.
        fov_deg: Horizontal field of view in degrees; None varies it.
        focal_px: Render canonical views of this focal length instead.
        supersample: See `render`.
        dense: Whether to write the depth of every pixel too.
    """

    scenes: int
    seed: int
    domain: Domain
    repeats: int = 1
    points_per_image: int = 10
    size: tuple[int, int] | None = None
    fov_deg: float | None = None
    focal_px: float | None = None
    supersample: int = 1
    dense: bool = True

    def __post_init__(self) -> None:
        for name in ("scenes", "repeats", "points_per_image", "supersample"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.size is not None and not all(_SMALLEST_PX <= side <= _LARGEST_PX for side in self.size):
            raise ValueError(
                f"size: expected {_SMALLEST_PX} to {_LARGEST_PX} pixels a side, got "
                f"{self.size[0]}x{self.size[1]}"
            )
        if self.fov_deg is not None and not 10.0 <= self.fov_deg <= 150.0:
            raise ValueError(f"fov_deg: expected 10 to 150 degrees, got {self.fov_deg:g}")
        if self.focal_px is not None and (self.fov_deg is not None or not self.focal_px > 0.0):
            raise ValueError(
                f"focal_px: expected a number above 0 and no fov_deg, got {self.focal_px} and {self.fov_deg}"
            )


def write_dataset(
    out: Path, spec: RenderSpec, *, processes: int | None = None, progress: bool = True
) -> Path:
    """Render scenes into a DepthLM benchmark.

    Layout: ``<domain>.jsonl``; ``rgb/*.png``; ``dense/*.npz`` with ``z_depth`` and ``range`` (float32 metres,
    inf for sky); ``<domain>_sheet.png``, the first images beside their depth. Each line holds ``image`` (path below
    ``out``), ``intrinsics`` [fx, fy, cx, cy, width, height], ``pixel_coords`` [[u, v], ...] and their ``depth`` (z,
    metres); beyond the benchmark's format also ``seed``, ``domain``, ``kind``, ``dense`` (path below ``out``, absent
    where it was left out) and, with repeats, ``static``, which the pictures of one scene share. The result depends on
    neither the number of processes nor their order. The index is written last and in one step, so that an interrupted
    run leaves none.

    Args:
        out: Directory, created when absent.
        spec: What to render.
        processes: Worker processes; 1 renders in this one, None takes all cores that this process may use.
        progress: Show a bar.

    Returns:
        The path of the index.

    Raises:
        ValueError: There are no processes to work.
    """
    workers = _usable_cores() if processes is None else processes
    if workers < 1:
        raise ValueError(f"processes: expected at least 1, got {workers}")
    out = Path(out)
    for folder in ("rgb", "dense") if spec.dense else ("rgb",):
        (out / folder).mkdir(parents=True, exist_ok=True)
    jobs = [_Job(out, spec, index) for index in range(spec.scenes)]
    lines: list[str] = []
    tiles: list[RgbImage] = []
    for done in _with_progress(_run(jobs, workers), spec.scenes, f"rendering {spec.domain.value}", progress):
        lines += [json.dumps(record) for record in done.records]
        tiles += done.tiles
    _write_atomically(out / f"{spec.domain.value}_sheet.png", encode_png(contact_sheet(tiles)))
    return _write_atomically(out / f"{spec.domain.value}.jsonl", ("\n".join(lines) + "\n").encode())


@dataclass(frozen=True)
class _Job:
    out: Path
    spec: RenderSpec
    index: int


@dataclass(frozen=True, eq=False)
class _Done:
    records: list[dict[str, Any]]
    tiles: list[RgbImage]


def _usable_cores() -> int:
    # A container or taskset may allow fewer cores than the machine has.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _run(jobs: list[_Job], processes: int) -> Iterator[_Done]:
    if processes == 1:
        yield from map(_render_job, jobs)
        return
    # Spawned rather than forked: the caller may hold threads (torch, OpenCV) that a fork would freeze mid-lock.
    with multiprocessing.get_context("spawn").Pool(processes, initializer=_start_worker) as pool:
        yield from pool.imap(_render_job, jobs, chunksize=4)


def _start_worker() -> None:
    cv2.setNumThreads(1)


def _with_progress(done: Iterator[_Done], total: int, label: str, show: bool) -> Iterator[_Done]:
    if not show:
        return done
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    bar: Iterator[_Done] = iter(tqdm(done, total=total, desc=label, unit="scene"))
    return bar


def _render_job(job: _Job) -> _Done:
    spec = job.spec
    views = sample_repeats(
        (spec.seed, job.index), spec.domain, spec.repeats, focal_px=spec.focal_px, size=spec.size,
        fov_deg=spec.fov_deg, supersample=spec.supersample,
    )  # fmt: skip
    first = views[0]
    name = f"{spec.domain.value}_{spec.seed}_{job.index:06d}"
    pixels = sample_pixels(np.random.default_rng((spec.seed, job.index, 1)), first, spec.points_per_image)
    camera = first.intrinsics
    labels: dict[str, Any] = {
        "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height],
        "pixel_coords": pixels.tolist(),
        "depth": [float(depth) for depth in first.z_depth[pixels[:, 1], pixels[:, 0]]],
        "seed": [spec.seed, job.index],
        "domain": spec.domain.value,
        "kind": first.kind,
    }
    if spec.dense:
        labels["dense"] = f"dense/{name}.npz"
        _write_dense(job.out / labels["dense"], first.z_depth, first.range_)
    if spec.repeats > 1:
        labels["static"] = name
    records = []
    for number, view in enumerate(views):
        image = f"rgb/{name}.png" if number == 0 else f"rgb/{name}_{number}.png"
        _write_atomically(job.out / image, encode_png(view.rgb))
        records.append({"image": image, **labels})
    return _Done(records, [tile(first)] if job.index < TILES else [])


def encode_png(rgb: RgbImage) -> bytes:
    """An RGB image (H, W, 3), uint8, as PNG."""
    # OpenCV's default settings: the fastest that compress (docs/renderer.md has the figures).
    encoded, png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode an image of shape {rgb.shape} as PNG")
    return png.tobytes()


def _write_dense(path: Path, z_depth: Floats, distance: Floats) -> None:
    # Stored, not deflated: that would cost a quarter of the drawing time to save a sixth of the space.
    part = path.with_suffix(".part.npz")
    np.savez(part, z_depth=z_depth, range=distance)
    os.replace(part, path)


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
