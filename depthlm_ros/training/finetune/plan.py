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

    Each place draws its data set by weight. Within a set, passes over the wanted number of labels of every image
    follow each other, each shuffled anew (the paper trains on few labels of many images). Which of an image's labels
    those are is fixed by the seed, or drawn anew in each pass. A fixed choice of more labels holds that of fewer.

    Args:
        label_counts: Per set, the number of labels of each of its images.
        weights: Per set, its share of the samples, in any unit.
        labels_per_image: Per set, labels of an image that a pass takes; 0 takes all.
        redraw: Per set, whether each pass draws them anew.
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
        redraw: Sequence[bool],
        samples: int,
        seed: int,
    ) -> None:
        shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
        rng = np.random.default_rng([seed, len(shares)])
        self._sets = rng.choice(len(shares), size=samples, p=shares).astype(np.int32)
        self._places = np.zeros((samples, 2), dtype=np.int32)
        self._of_set: list[npt.NDArray[np.intp]] = []
        for index, (counts, most, anew) in enumerate(
            zip(label_counts, labels_per_image, redraw, strict=True)
        ):
            where = np.flatnonzero(self._sets == index)
            self._of_set.append(where)
            labels = np.asarray(counts, dtype=np.int64)
            self._places[where] = _passes(labels, most, anew, len(where), (seed, index))

    def __len__(self) -> int:
        return len(self._sets)

    def __getitem__(self, index: int) -> Place:
        image, label = self._places[index].tolist()
        return Place(int(self._sets[index]), image, label)

    def later(self, index: int, count: int) -> Place:
        """The place of the same set that comes ``count`` of its places later, past the end from the start again."""
        places = self._of_set[int(self._sets[index])]
        return self[int(places[(np.searchsorted(places, index) + count) % len(places)])]


def _passes(
    counts: npt.NDArray[np.int64], most: int, redraw: bool, needed: int, seed: tuple[int, int]
) -> npt.NDArray[np.int32]:
    """(image, label) of as many passes as are needed, shape (needed, 2)."""
    if not counts.sum():
        raise ConfigError(f"data.{seed[1]}: the set has no labels")
    chosen = _choice(counts, most, np.random.default_rng([*seed, 0]))
    parts: list[npt.NDArray[np.int32]] = []
    have = 0
    while have < needed:
        rng = np.random.default_rng([*seed, 1 + len(parts)])
        if redraw:
            chosen = _choice(counts, most, rng)
        parts.append(rng.permutation(chosen))
        have += len(chosen)
    return np.concatenate(parts)[:needed] if parts else np.zeros((0, 2), dtype=np.int32)


def _choice(counts: npt.NDArray[np.int64], most: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """(image, label) of at most ``most`` labels of each image, shape (N, 2); 0 means all."""
    images = np.repeat(np.arange(len(counts)), counts)
    labels = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
    pairs = np.stack([images, labels], axis=1).astype(np.int32)
    if not most:
        return pairs
    # Ordered by image and within it at random: the first of each image are taken, so that more of them hold fewer.
    order = np.lexsort((rng.random(len(images)), images))
    chosen: npt.NDArray[np.int32] = pairs[order[labels < most]]
    return chosen
