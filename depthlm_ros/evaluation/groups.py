"""Figures per group of labels: by true depth, and by the size and shape of the canonical view."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from depthlm_ros.evaluation.metrics import Bools, Floats, bootstrap_rates, middle95, score, within_delta1

DEPTH_EDGES_M = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Where the depth bins begin, in metres of true z-depth; the last one is open."""

Size = tuple[int, int]
"""Width and height in pixels."""

_ASPECT_STEP = 1.05
"""Steps of the aspect: whole pixels blur it by a few per cent, which must not tear one shape of image apart."""


def _aspect(size: Size) -> float:
    return float(_ASPECT_STEP ** round(math.log(size[0] / size[1]) / math.log(_ASPECT_STEP)))


GROUPINGS: Mapping[str, tuple[Callable[[Size], float], int]] = {
    "area": (lambda size: size[0] * size[1], 5),
    "width": (lambda size: size[0], 4),
    "height": (lambda size: size[1], 4),
    "aspect": (_aspect, 4),
}
"""What canonical views are ordered by, and into how many groups at most they are then cut."""

FEWEST_LABELS = 100
"""A single size with fewer labels is no group of its own: its delta1 is not known to 0.1."""


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
    sizes: Sequence[Size], truth: Sequence[Floats], predicted: Sequence[Floats]
) -> dict[str, list[dict[str, Any]]]:
    """The figures per group of canonical views of similar size.

    Per grouping of :data:`GROUPINGS` scenes are ordered by it and cut into groups with about equally many; those of
    one value stay together. ``size`` takes each single size that has :data:`FEWEST_LABELS` labels or more. Groups see
    different fields of view, hence different depths: a difference between them need not come from the size alone.

    Args:
        sizes: Per scene, width and height of the canonical view in pixels.
        truth: Per scene, metres above 0, shape (N_i,).
        predicted: Per scene, metres, shape (N_i,), NaN where there is no answer.

    Returns:
        Per grouping its groups in order, each with ``from`` and ``to``, the least and the greatest value (pixels,
        square pixels for ``area`` and ``size``, width / height in steps of 5 %), ``smallest`` and ``largest``, sizes
        [width, height] that have these, ``scenes``, what :func:`~depthlm_ros.evaluation.metrics.score` gives,
        ``below_best``: by how much delta1 lies below that of the grouping's best group, and
        ``below_best_interval95``: [low, high] of that difference when scenes are drawn anew within both; None for the
        best itself and where either has a single scene.
    """
    labels = [len(z) for z in truth]
    hits = [within_delta1(z, guess) for z, guess in zip(truth, predicted, strict=True)]
    single = [[i for i, other in enumerate(sizes) if other == size] for size in sorted(set(sizes))]
    groupings = {
        name: (key, _cut([key(size) for size in sizes], most)) for name, (key, most) in GROUPINGS.items()
    }
    large = [group for group in single if sum(labels[i] for i in group) >= FEWEST_LABELS]
    groupings["size"] = (GROUPINGS["area"][0], large)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, (key, groups) in groupings.items():
        rows: list[dict[str, Any]] = []
        drawn: list[Floats | None] = []
        for group in (members for members in groups if sum(labels[i] for i in members)):
            ordered = sorted({sizes[i] for i in group}, key=key)
            figures = score([truth[i] for i in group], [predicted[i] for i in group])
            rows.append(
                {
                    "from": float(key(ordered[0])),
                    "to": float(key(ordered[-1])),
                    "smallest": [*ordered[0]],
                    "largest": [*ordered[-1]],
                    "scenes": len(group),
                    **figures,
                }
            )
            # A seed of its own for each group: with a common one their errors would seem to go together.
            drawn.append(bootstrap_rates([hits[i] for i in group], seed=len(drawn)))
        found[name] = _against_best(rows, drawn)
    return found


def _cut(values: Sequence[float], most: int) -> list[list[int]]:
    """Indices of the values in at most so many groups of about equal count; equal values stay together."""
    known = np.unique(values)
    if len(known) > most:
        known = np.unique(np.quantile(values, np.arange(most) / most, method="higher"))
    group = np.searchsorted(known, values, side="right") - 1
    return [np.flatnonzero(group == number).tolist() for number in np.unique(group)]


def _against_best(rows: Sequence[dict[str, Any]], drawn: Sequence[Floats | None]) -> list[dict[str, Any]]:
    best = max(range(len(rows)), key=lambda i: rows[i]["delta1"], default=0)
    compared = []
    for number, row in enumerate(rows):
        own, top = drawn[number], drawn[best]
        interval = None if number == best or own is None or top is None else middle95(top - own)
        gap = rows[best]["delta1"] - row["delta1"]
        compared.append({**row, "below_best": gap, "below_best_interval95": interval})
    return compared


def _score_where(
    inside: Sequence[Bools], truth: Sequence[Floats], predicted: Sequence[Floats]
) -> dict[str, Any]:
    return score(
        [z[m] for z, m in zip(truth, inside, strict=True)],
        [z[m] for z, m in zip(predicted, inside, strict=True)],
    )
