"""What the probability of the number's tokens means: share of answers within 25 %, and relative error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from depthlm_ros.profile import Calibration

_MOST_KNOTS = 12
_FEWEST_PER_KNOT = 20

Floats = npt.NDArray[np.float64]


def pool_adjacent_violators(values: Floats, weights: Floats) -> Floats:
    """Least-squares non-decreasing fit (isotonic regression).

    Args:
        values: Shape (N,), in the order in which the fit must not decrease.
        weights: Positive, shape (N,).

    Returns:
        The fit, shape (N,).
    """
    means: list[float] = []
    masses: list[float] = []
    counts: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        means.append(value)
        masses.append(weight)
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            mass = masses[-2] + masses[-1]
            means[-2:] = [(means[-2] * masses[-2] + means[-1] * masses[-1]) / mass]
            masses[-2:] = [mass]
            counts[-2:] = [counts[-2] + counts[-1]]
    return np.repeat(means, counts)


def fit_calibration(probability: Floats, answered: Floats, truth: Floats, fitted_on: str) -> Calibration:
    """Fit the confidence and sigma of a checkpoint.

    Bins of equal population along the probability; per bin the share within 25 %, made monotone, and the
    68 % quantile of |truth - answered| / answered, made monotone the other way. The relative error is taken
    of the answered depth, since that is what sigma is computed from.

    Args:
        probability: Of the number's tokens, shape (N,); NaN is left out.
        answered: Metres, shape (N,).
        truth: Metres, shape (N,).
        fitted_on: What the queries were, in words.

    Raises:
        ValueError: There are too few answers, or all have one probability.
    """
    usable = np.isfinite(probability) & np.isfinite(answered) & np.isfinite(truth)
    order = np.argsort(probability[usable], kind="stable")
    p, answered, truth = (x[usable][order] for x in (probability, answered, truth))
    bins = min(_MOST_KNOTS, len(p) // _FEWEST_PER_KNOT)
    if bins < 2:
        raise ValueError(f"calibration needs {2 * _FEWEST_PER_KNOT} answers or more, got {len(p)}")
    hit = np.maximum(answered / truth, truth / answered) < 1.25
    error = np.abs(truth - answered) / answered
    chunks = np.array_split(np.arange(len(p)), bins)
    raw = np.array([np.median(p[c]) for c in chunks])
    weights = np.array([len(c) for c in chunks], dtype=np.float64)
    confidence = pool_adjacent_violators(np.array([hit[c].mean() for c in chunks]), weights)
    sigma = -pool_adjacent_violators(-np.array([np.quantile(error[c], 0.68) for c in chunks]), weights)
    keep = np.concatenate(([True], np.diff(raw) > 1e-6))
    if keep.sum() < 2:
        raise ValueError("calibration needs answers of different probability")
    return Calibration(
        tuple(round(float(x), 6) for x in raw[keep]),
        tuple(round(float(x), 4) for x in confidence[keep]),
        tuple(round(float(x), 4) for x in sigma[keep]),
        fitted_on,
    )


def area_under_curve(score: Floats, hit: npt.NDArray[np.bool_]) -> float:
    """Probability that a right answer scores above a wrong one (AUROC); NaN where all are alike."""
    if hit.all() or not hit.any():
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    rights = int(hit.sum())
    return float((ranks[hit].sum() - rights * (rights + 1) / 2.0) / (rights * (len(hit) - rights)))
