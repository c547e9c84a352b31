"""The cache of rendered views: written once in shards, read through memory maps."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm  # type: ignore[import-untyped]

from depthlm_ros import synthetic
from depthlm_ros.synthetic import Intrinsics
from depthlm_ros.training.config import TrainingConfigError

MANIFEST = "manifest.json"
SHARD_VIEWS = 200
"""Views per shard; shards are always full, so that a cache can grow."""

Sampler = Callable[[int, str], tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]
"""(seed, "robot" or "wide") -> rgb (H, W, 3) and z-depth (H, W) in metres, inf for the sky."""


@dataclass(frozen=True)
class ViewSet:
    """Which views a cache holds.

    Attributes:
        name: Folder of the set.
        seed: Seed of its first view; the views take ``count`` consecutive seeds.
        count: Views.
        robot_share: Share drawn from the robot domain.
        focal_px: Focal length of the views in pixels.
    """

    name: str
    seed: int
    count: int
    robot_share: float
    focal_px: float

    def domain(self, index: int) -> str:
        """The domain of one view."""
        return "robot" if np.random.default_rng([self.seed, index]).random() < self.robot_share else "wide"


def synthetic_view(
    seed: int, domain: str, focal_px: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Render one view with this package's renderer."""
    view = synthetic.sample_view(seed, synthetic.Domain[domain.upper()], focal_px=focal_px)
    return view.rgb, view.z_depth


def synthetic_camera(seed: int, domain: str, focal_px: float) -> Intrinsics:
    """The camera of :func:`synthetic_view`, without rendering."""
    return synthetic.sample_camera(seed, synthetic.Domain[domain.upper()], focal_px=focal_px)


def write_manifest(path: Path, record: dict[str, Any]) -> None:
    """Say what a cache holds.

    Raises:
        TrainingConfigError: It holds something else already.
    """
    if path.is_file() and (found := json.loads(path.read_text(encoding="utf-8"))) != record:
        raise TrainingConfigError(
            f"{path.parent} holds {found}, not {record}; remove it or choose another folder"
        )
    path.write_text(json.dumps(record), encoding="utf-8")


def render_set(
    views: ViewSet, root: Path, sampler: Sampler, processes: int, *, progress: bool = True
) -> Path:
    """Render what a cache lacks; finished shards stay.

    Args:
        views: The set.
        root: Folder of all sets.
        sampler: What renders; must be picklable when ``processes`` > 1.
        processes: Processes that render.
        progress: Whether to show a bar.

    Returns:
        The set's folder.

    Raises:
        ValueError: The folder holds a set with other seeds, shares or focal length.
    """
    folder = root / views.name
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "seed": views.seed,
        "robot_share": views.robot_share,
        "focal_px": views.focal_px,
        "shard_views": SHARD_VIEWS,
    }
    write_manifest(folder / MANIFEST, record)
    missing = [
        k for k in range(-(-views.count // SHARD_VIEWS)) if not (folder / f"{k:05d}_index.npy").exists()
    ]
    work = partial(_render_shard, views, folder, sampler)
    render_shards(work, missing, processes, f"render {views.name}", progress=progress)
    return folder


def render_shards(
    work: Callable[[int], None], missing: list[int], processes: int, title: str, *, progress: bool = True
) -> None:
    """Render the shards that a cache lacks.

    Args:
        work: Renders the shard of a number; must be picklable when ``processes`` > 1.
        missing: Their numbers.
        processes: Processes that render; 1 is this one.
        title: What the bar says.
        progress: Whether to show a bar.
    """
    with tqdm(total=len(missing), desc=title, unit="shard", disable=not progress) as bar:
        if processes <= 1:
            for shard in missing:
                work(shard)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            for done in as_completed([pool.submit(work, shard) for shard in missing]):
                done.result()
                bar.update()


def _render_shard(views: ViewSet, folder: Path, sampler: Sampler, shard: int) -> None:
    rgb, depth, index, offset = [], [], [], 0
    for k in range(shard * SHARD_VIEWS, (shard + 1) * SHARD_VIEWS):
        domain = views.domain(k)
        image, z = sampler(views.seed + k, domain)
        height, width = z.shape
        index.append((offset, height, width, int(domain == "robot")))
        rgb.append(image.reshape(-1, 3))
        depth.append(np.minimum(z, np.float32(6e4)).astype(np.float16).ravel())
        offset += height * width
    np.save(folder / f"{shard:05d}_rgb.npy", np.concatenate(rgb))
    np.save(folder / f"{shard:05d}_depth.npy", np.concatenate(depth))
    # The index comes last: a shard without one was interrupted and is rendered again.
    np.save(folder / f"{shard:05d}_index.npy", np.asarray(index, dtype=np.int64))


class ViewCache:
    """The views of one set, in the order of their seeds.

    Attributes:
        sizes: (height, width) per view, shape (N, 2).
        robot: Whether each view is of the robot domain, shape (N,).
    """

    def __init__(self, folder: Path, count: int) -> None:
        shards = sorted(folder.glob("*_index.npy"))[: -(-count // SHARD_VIEWS)]
        self._maps: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []
        self._where: list[tuple[int, int]] = []
        sizes, robot = [], []
        for number, path in enumerate(shards):
            stem = path.name[: -len("_index.npy")]
            self._maps.append(
                (
                    np.load(folder / f"{stem}_rgb.npy", mmap_mode="r"),
                    np.load(folder / f"{stem}_depth.npy", mmap_mode="r"),
                )
            )
            for offset, height, width, is_robot in np.load(path):
                self._where.append((number, int(offset)))
                sizes.append((height, width))
                robot.append(bool(is_robot))
        self._where, sizes, robot = self._where[:count], sizes[:count], robot[:count]
        if len(self._where) < count:
            raise ValueError(
                f"{folder} holds {len(self._where)} views, {count} are needed; render them first"
            )
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.robot = np.asarray(robot)

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        shard, offset = self._where[index]
        height, width = (int(x) for x in self.sizes[index])
        rgb, depth = (flat[offset : offset + height * width] for flat in self._maps[shard])
        z = np.asarray(depth, dtype=np.float32)
        z[z >= 5e4] = np.inf
        return np.asarray(rgb).reshape(height, width, 3), z.reshape(height, width)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]:
        return (self[k] for k in range(len(self)))
