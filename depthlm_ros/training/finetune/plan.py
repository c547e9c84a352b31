"""Which label is trained at which place of a run: fixed by the seed, so that a run goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from depthlm_ros.config import ConfigError


class Place(NamedTuple):
    """One label of the training data."""

    set: int
    image: int
    label: int


class SamplePlan:
    """The labels of a run in order.

    Each place draws its data set by weight. Within a set, passes follow each other; a pass draws the wanted number
    of labels of every image anew and shuffles them (the paper trains on few labels of many images).

    Args:
        label_counts: Per set, the number of labels of each of its images.
        weights: Per set, its share of the samples, in any unit.
        labels_per_image: Per set, labels drawn of an image per pass; 0 takes all.
        samples: Length of the plan.
        seed: Of every choice.

    Raises:
        ConfigError: A set has no label.
    """

    def __init__(
        self,
        label_counts: Sequence[npt.ArrayLike],
        weights: Sequence[float],
        labels_per_image: Sequence[int],
        samples: int,
        seed: int,
    ) -> None:
        shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
        rng = np.random.default_rng([seed, len(shares)])
        self._sets = rng.choice(len(shares), size=samples, p=shares).astype(np.int32)
        self._places = np.zeros((samples, 2), dtype=np.int32)
        for index, (counts, most) in enumerate(zip(label_counts, labels_per_image, strict=True)):
            where = np.flatnonzero(self._sets == index)
            self._places[where] = _passes(np.asarray(counts, dtype=np.int64), most, len(where), (seed, index))

    def __len__(self) -> int:
        return len(self._sets)

    def __getitem__(self, index: int) -> Place:
        image, label = self._places[index].tolist()
        return Place(int(self._sets[index]), image, label)


def _passes(
    counts: npt.NDArray[np.int64], most: int, needed: int, seed: tuple[int, int]
) -> npt.NDArray[np.int32]:
    """(image, label) of as many passes as are needed, shape (needed, 2)."""
    if not counts.sum():
        raise ConfigError(f"data.{seed[1]}: the set has no labels")
    parts: list[npt.NDArray[np.int32]] = []
    have = 0
    while have < needed:
        part = _one_pass(counts, most, np.random.default_rng([*seed, len(parts)]))
        parts.append(part)
        have += len(part)
    return np.concatenate(parts)[:needed] if parts else np.zeros((0, 2), dtype=np.int32)


def _one_pass(counts: npt.NDArray[np.int64], most: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    images = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    labels = np.arange(len(images)) - np.repeat(starts, counts)
    order = rng.permutation(len(images))
    images, labels = images[order], labels[order]
    if most:
        # Each image's labels in shuffled order, numbered; the first of them are this pass's.
        by_image = np.argsort(images, kind="stable")
        numbers = np.empty(len(images), dtype=np.int64)
        numbers[by_image] = np.arange(len(images)) - np.repeat(starts, counts)
        kept = numbers < most
        images, labels = images[kept], labels[kept]
    return np.stack([images, labels], axis=1).astype(np.int32)
