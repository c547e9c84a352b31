"""The cache of rendered pairs of views with known camera motion, beside the cache of views."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.training.views import MANIFEST, render_shards, write_manifest

SHARD_PAIRS = 100

RgbArray = npt.NDArray[np.uint8]
Pair = tuple[RgbArray, RgbArray, CameraMotion]
PairSampler = Callable[[int, str], Pair]
"""(seed, "robot" or "wide") -> two views (H, W, 3) of one size and how the camera moved between them."""


def synthetic_pair(seed: int, domain: str, focal_px: float) -> Pair:
    """Render one pair with this package's renderer."""
    from depthlm_ros.spatial.pairs import pair_motion, sample_pair
    from depthlm_ros.synthetic import Domain

    first, second = sample_pair(seed, Domain[domain.upper()], focal_px=focal_px)
    return first.rgb, second.rgb, pair_motion(first, second)


def render_pairs(
    folder: Path, seed: int, count: int, focal_px: float, sampler: PairSampler, processes: int
) -> None:
    """Render the pairs that a cache lacks: seeds ``seed`` and up, half robot and half wide.

    Args:
        folder: The cache; made if missing. Finished shards stay.
        seed: Seed of the first pair.
        count: Pairs, rounded up to whole shards.
        focal_px: Focal length that ``sampler`` renders with; kept in the manifest.
        sampler: What renders; must be picklable when ``processes`` > 1.
        processes: Processes that render.

    Raises:
        ValueError: The folder holds pairs of other seeds or focal length.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = {"pairs_seed": seed, "focal_px": focal_px, "shard_pairs": SHARD_PAIRS}
    write_manifest(folder / MANIFEST, record)
    shards = range(-(-count // SHARD_PAIRS))
    missing = [shard for shard in shards if not (folder / f"{shard:05d}.npz").exists()]
    work = partial(_render_shard, folder, seed, sampler)
    render_shards(work, missing, processes, "render pairs")


def _render_shard(folder: Path, seed: int, sampler: PairSampler, shard: int) -> None:
    arrays: dict[str, Any] = {}
    for k in range(SHARD_PAIRS):
        number = shard * SHARD_PAIRS + k
        first, second, motion = sampler(seed + number, "robot" if number % 2 == 0 else "wide")
        arrays[f"views_{k}"] = np.stack((first, second))
        arrays[f"motion_{k}"] = np.concatenate((motion.translation, motion.rotation))
    draft = folder / f"{shard:05d}.part.npz"
    np.savez(draft, **arrays)
    draft.replace(folder / f"{shard:05d}.npz")


class PairCache:
    """The pairs of one folder, held in memory.

    Attributes:
        sizes: (height, width) per pair, shape (N, 2).
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._views: list[npt.NDArray[np.uint8]] = []
        self._motions: list[CameraMotion] = []
        for shard in range(-(-count // SHARD_PAIRS)):
            path = folder / f"{shard:05d}.npz"
            if not path.is_file():
                raise ValueError(f"{folder} holds fewer than {count} pairs; render them first")
            with np.load(path, allow_pickle=False) as file:
                for k in range(SHARD_PAIRS):
                    self._views.append(file[f"views_{k}"])
                    numbers = file[f"motion_{k}"]
                    self._motions.append(CameraMotion(numbers[:3], numbers[3:]))
        self.sizes = np.asarray([views.shape[1:3] for views in self._views], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, index: int) -> Pair:
        first, second = self._views[index]
        return first, second, self._motions[index]
