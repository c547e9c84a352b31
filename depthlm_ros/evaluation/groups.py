"""Figures per group of labels: by true depth, and by the size of the canonical view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from depthlm_ros.evaluation.metrics import Bools, Floats, score

DEPTH_EDGES_M = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Where the depth bins begin, in metres of true z-depth; the last one is open."""

CANVAS_GROUPS = 5
"""The most groups of canvas sizes."""


def by_depth(truth: Sequence[Floats], predicted: Sequence[Floats]) -> list[dict[str, Any]]:
    """The figures per bin of true z-depth.

    Args:
        truth: Per scene, metres above 0, shape (N_i,).
        predicted: Per scene, metres, shape (N_i,), NaN where there is no answer.

    Returns:
        Per bin of :data:`DEPTH_EDGES_M`: ``from_m`` (inclusive), ``to_m`` (exclusive; None: open) and what
        :func:`~depthlm_ros.evaluation.metrics.score` gives for its labels; None for the shares of an empty bin.
    """
    upper = (*DEPTH_EDGES_M[1:], None)
    bins = []
    for low, high in zip(DEPTH_EDGES_M, upper, strict=True):
        inside = [(z >= low) & (z < (np.inf if high is None else high)) for z in truth]
        bins.append({"from_m": low, "to_m": high, **_score_where(inside, truth, predicted)})
    return bins


def by_canvas(
    sizes: Sequence[tuple[int, int]], truth: Sequence[Floats], predicted: Sequence[Floats]
) -> list[dict[str, Any]]:
    """The figures per group of canonical views of similar size.

    Scenes are ordered by the area of their canonical view and cut into at most :data:`CANVAS_GROUPS` groups with
    about equally many; scenes of one area stay together. Groups see different fields of view, hence different depths:
    a difference between them need not come from the size alone.

    Args:
        sizes: Per scene, width and height of the canonical view in pixels.
        truth: Per scene, metres above 0, shape (N_i,).
        predicted: Per scene, metres, shape (N_i,), NaN where there is no answer.

    Returns:
        Per group, from small to large: ``smallest`` and ``largest`` [width, height], ``scenes``, what
        :func:`~depthlm_ros.evaluation.metrics.score` gives, and ``below_best``: by how much delta1 lies below that
        of the best group.
    """
    area = np.array([width * height for width, height in sizes])
    known = np.unique(area)
    edges = known if len(known) <= CANVAS_GROUPS else _equal_mass_edges(area)
    group = np.searchsorted(edges, area, side="right") - 1
    rows: list[dict[str, Any]] = []
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        ordered = sorted((sizes[i] for i in members), key=lambda size: (size[0] * size[1], size))
        figures = score([truth[i] for i in members], [predicted[i] for i in members])
        if figures["n"]:
            rows.append(
                {"smallest": [*ordered[0]], "largest": [*ordered[-1]], "scenes": len(members), **figures}
            )
    best = max((row["delta1"] for row in rows), default=0.0)
    return [{**row, "below_best": best - row["delta1"]} for row in rows]


def _equal_mass_edges(values: np.typing.NDArray[np.int64]) -> Floats:
    quantiles = np.quantile(values, np.arange(CANVAS_GROUPS) / CANVAS_GROUPS, method="higher")
    return np.asarray(np.unique(quantiles), dtype=np.float64)


def _score_where(
    inside: Sequence[Bools], truth: Sequence[Floats], predicted: Sequence[Floats]
) -> dict[str, Any]:
    return score(
        [z[m] for z, m in zip(truth, inside, strict=True)],
        [z[m] for z, m in zip(predicted, inside, strict=True)],
    )
