"""Depth edges: queries on both sides of them, and whether the answers belong to the right surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from depthlm_ros.evaluation.metrics import DELTA1_RATIO, Bools, Floats, interval95, within_delta1

Pixels = npt.NDArray[np.int64]

EDGE_RATIO = 1.25
"""Far over near depth from which on a step is an edge: the highest threshold of Depth Pro's boundary metric."""

SMOOTH_RATIO = 1.05
"""A side counts as one surface where its depths differ by less than this factor: the lowest such threshold."""

_RECALL_RATIOS: Floats = np.linspace(1.05, 1.25, 10, dtype=np.float64)
"""Depth Pro's thresholds; each weighs in proportion to itself."""


@dataclass(frozen=True, eq=False)
class EdgePairs:
    """Pairs of pixels on the two sides of depth edges.

    Attributes:
        near: Pixels (u, v) on the nearer surface, shape (N, 2).
        far: Their partners on the farther surface, shape (N, 2).
    """

    near: Pixels
    far: Pixels


@dataclass(frozen=True, eq=False)
class EdgeAnswers:
    """The answers to the edge pairs of one scene, all of shape (N,), metres, float64.

    Attributes:
        near: True z-depth of the nearer pixels.
        far: True z-depth of the farther pixels.
        near_answer: The answers there, NaN without one.
        far_answer: The answers there, NaN without one.
    """

    near: Floats
    far: Floats
    near_answer: Floats
    far_answer: Floats


def joined(parts: Sequence[EdgeAnswers]) -> EdgeAnswers:
    """The answers of several pictures of one scene as one."""
    names = ("near", "far", "near_answer", "far_answer")
    return EdgeAnswers(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def choose_edge_pairs(
    z: npt.NDArray[np.floating[Any]], askable: Bools, offset: int, count: int, rng: np.random.Generator
) -> EdgePairs:
    """Choose pairs of pixels across depth edges.

    An edge lies between two neighbouring pixels of a row or column where the depths of ``2 offset - 1`` pixels on the
    one side differ by more than :data:`EDGE_RATIO` from all of as many on the other, and each side is smooth
    (:data:`SMOOTH_RATIO`). The pair are the middle pixels of the two sides, ``offset`` pixels off the edge: they
    belong to their surface without doubt, and things thinner than a side are not asked.

    Args:
        z: Dense true z-depth in metres, shape (H, W); not finite where there is no surface.
        askable: Which pixels can be asked, shape (H, W).
        offset: Pixels between the edge and the queries, 1 or more.
        count: The most pairs.
        rng: Chooses among the edges, each pixel of an edge being equally likely.

    Returns:
        At most ``count`` pairs.
    """
    across = _pairs_along_rows(z, askable, offset)
    down = _pairs_along_rows(z.T, askable.T, offset)
    near = np.concatenate([across[0], down[0][:, ::-1]])
    far = np.concatenate([across[1], down[1][:, ::-1]])
    chosen = rng.choice(len(near), size=min(count, len(near)), replace=False)
    return EdgePairs(near[chosen], far[chosen])


def _pairs_along_rows(z: npt.NDArray[np.floating[Any]], askable: Bools, offset: int) -> tuple[Pixels, Pixels]:
    """All pairs (near, far) as (u, v) whose edge lies between two pixels of a row."""
    run = 2 * offset - 1
    none = np.zeros((0, 2), dtype=np.int64)
    if z.shape[1] < 2 * run:
        return none, none
    surface = np.where(np.isfinite(z) & (z > 0.0), z, np.nan).astype(np.float64)
    windows = sliding_window_view(surface, run, axis=1)
    low, high = windows.min(axis=-1), windows.max(axis=-1)  # NaN where a pixel of the run has no surface
    smooth = high < SMOOTH_RATIO * low
    left, right = np.s_[:, :-run], np.s_[:, run:]
    both = smooth[left] & smooth[right]
    asked = askable[:, offset - 1 :]
    starts = low.shape[1] - run
    both &= asked[:, :starts] & asked[:, run : run + starts]
    left_near = both & (low[right] > EDGE_RATIO * high[left])
    right_near = both & (low[left] > EDGE_RATIO * high[right])

    def pixels(mask: Bools, shift: int) -> Pixels:
        v, u = np.nonzero(mask)
        return np.stack([u + shift, v], axis=1).astype(np.int64)

    one, other = offset - 1, run + offset - 1
    near = np.concatenate([pixels(left_near, one), pixels(right_near, other)])
    far = np.concatenate([pixels(left_near, other), pixels(right_near, one)])
    return near, far


def boundary_figures(answers: Sequence[EdgeAnswers]) -> dict[str, Any]:
    """Whether answers beside depth edges belong to their surface.

    Modelled on the boundary metric of Depth Pro (Bochkovskii et al., ICLR 2025, section 3.2), which says that an
    edge lies between two pixels where the ratio of their depths exceeds 1 + t, and averages over t from 5 % to 25 %.
    It compares all neighbours of dense maps; sparse answers allow its recall only, at the pairs that were asked.

    Args:
        answers: Per scene.

    Returns:
        ``pairs``; ``accuracy``: share of the pairs whose two answers are in the right order and both within 25 % of
        the truth, no answer being a miss, with ``accuracy_interval95`` (bootstrap over scenes); ``order``: share
        whose farther pixel was answered the farther; ``tied``: share with equal answers; ``recall``: share with
        far / near > 1 + t, averaged over t as in Depth Pro. ``flying_points``: of the ``flying_n`` answers at edges
        that have a gap (far / near > 1.25^2), the share that lies in it, between the surfaces and within 25 % of
        neither (1.25 near <= answer <= far / 1.25); with ``flying_points_interval95``. Shares are None where nothing
        counts.
    """
    order = [(a.far_answer > a.near_answer) for a in answers]
    right = [
        o & within_delta1(a.near, a.near_answer) & within_delta1(a.far, a.far_answer)
        for o, a in zip(order, answers, strict=True)
    ]
    flying = [_flying(a) for a in answers]
    return {
        "pairs": sum(len(o) for o in order),
        "accuracy": _share(right),
        "accuracy_interval95": interval95(right),
        "order": _share(order),
        "tied": _share([a.far_answer == a.near_answer for a in answers]),
        "recall": _recall(answers),
        "flying_points": _share(flying),
        "flying_points_interval95": interval95(flying),
        "flying_n": sum(len(f) for f in flying),
    }


def _flying(answers: EdgeAnswers) -> Bools:
    """Of the answers at edges that have a gap: which lie in it."""
    nearest, farthest = DELTA1_RATIO * answers.near, answers.far / DELTA1_RATIO
    gap = farthest > nearest
    guess = np.concatenate([answers.near_answer[gap], answers.far_answer[gap]])
    inside = (guess >= np.tile(nearest[gap], 2)) & (guess <= np.tile(farthest[gap], 2))
    return np.asarray(inside[np.isfinite(guess)], dtype=np.bool_)


def _recall(answers: Sequence[EdgeAnswers]) -> float | None:
    ratio = np.concatenate([*(a.far_answer / a.near_answer for a in answers), np.zeros(0)])
    if not len(ratio):
        return None
    found = (ratio[:, None] > _RECALL_RATIOS).mean(axis=0)  # NaN, no answer, finds nothing
    return float(found @ _RECALL_RATIOS / _RECALL_RATIOS.sum())


def _share(hits: Sequence[Bools]) -> float | None:
    joined = np.concatenate([*hits, np.zeros(0, dtype=np.bool_)])
    return float(joined.mean()) if len(joined) else None
