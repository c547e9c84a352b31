"""Does the confidence mean what it says, and does it tell right answers from wrong ones?"""

from __future__ import annotations

from typing import Any

import numpy as np

from depthlm_ros.evaluation.metrics import Bools, Floats, within_delta1

CALIBRATION_BINS = 10
_PERFECT_DRAWS = 200
_SEED = 0

KEPT_SHARES: Floats = np.arange(50, 0, -1) / 50.0
"""Shares of the answers that are kept, from all to 2 %, in the steps of Poggi et al. (CVPR 2020)."""

SIGMA_SHARES = (0.5, 0.6827, 0.9, 0.95)
"""Shares at which |error| / sigma is reported; 0.6827 of a normal distribution lies within one sigma."""


def confidence_figures(truth: Floats, predicted: Floats, confidence: Floats) -> dict[str, Any]:
    """Everything about the confidence of a data set's answers.

    Args:
        truth: Metres above 0, shape (N,).
        predicted: Metres, shape (N,), NaN where there is no answer.
        confidence: Probability of being within 25 % of the truth, shape (N,), NaN where unknown.

    Returns:
        ``n``: answers with a confidence, which alone count here. ``without_confidence``: answers without one.
        Where n > 0 also ``mean`` (of the confidence) beside ``delta1``, ``auroc`` (:func:`auroc`),
        ``calibration_error`` and ``reliability`` for ``equal_mass`` and ``equal_width`` bins
        (:func:`reliability`), ``calibration_error_if_perfect`` (:func:`perfect_calibration_error`) and
        ``sparsification`` (:func:`sparsification`).
    """
    answered = np.isfinite(predicted)
    known = answered & np.isfinite(confidence)
    counts = {"n": int(known.sum()), "without_confidence": int((answered & ~known).sum())}
    if not known.any():
        return counts
    z, guess, sure = truth[known], predicted[known], confidence[known]
    hit = within_delta1(z, guess)
    edges = {"equal_mass": equal_mass_edges(sure), "equal_width": equal_width_edges()}
    bins = {name: reliability(sure, hit, borders) for name, borders in edges.items()}
    return {
        **counts,
        "mean": float(sure.mean()),
        "delta1": float(hit.mean()),
        "auroc": auroc(sure, hit),
        "calibration_error": {name: calibration_error(rows) for name, rows in bins.items()},
        "calibration_error_if_perfect": {
            name: perfect_calibration_error(sure, borders) for name, borders in edges.items()
        },
        "reliability": bins,
        "sparsification": sparsification(z, guess, sure),
    }


def equal_width_edges() -> Floats:
    """Borders of ten bins of equal width, shape (11,)."""
    return np.linspace(0.0, 1.0, CALIBRATION_BINS + 1, dtype=np.float64)


def equal_mass_edges(confidence: Floats) -> Floats:
    """Borders of at most ten bins that hold about equally many answers; equal confidences share a bin.

    Args:
        confidence: Shape (N,), N > 0.

    Returns:
        Increasing, shape (K + 1,), K from 1 to 10.
    """
    edges = np.unique(np.quantile(confidence, np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)))
    return edges if len(edges) > 1 else np.repeat(edges, 2)


def reliability(confidence: Floats, hit: Bools, edges: Floats) -> list[dict[str, Any]]:
    """The reliability diagram as data.

    Args:
        confidence: Shape (N,).
        hit: Which answers are within 25 %, shape (N,).
        edges: Borders of the bins, shape (K + 1,); a confidence on an inner border belongs to the bin above it.

    Returns:
        Per bin that is not empty: ``from``, ``to``, ``n``, ``confidence`` (mean) and ``delta1`` (share of hits).
    """
    index = np.searchsorted(edges[1:-1], confidence, side="right")
    rows = []
    for b in np.unique(index):
        inside = index == b
        rows.append(
            {
                "from": float(edges[b]),
                "to": float(edges[b + 1]),
                "n": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "delta1": float(hit[inside].mean()),
            }
        )
    return rows


def calibration_error(rows: list[dict[str, Any]]) -> float:
    """Expected calibration error (Guo et al., ICML 2017): mean over answers of |delta1 - confidence| of their bin.

    Args:
        rows: What :func:`reliability` gave, not empty.
    """
    total = sum(row["n"] for row in rows)
    return float(sum(row["n"] * abs(row["delta1"] - row["confidence"]) for row in rows) / total)


def perfect_calibration_error(confidence: Floats, edges: Floats) -> float:
    """The calibration error that so many answers would show if every confidence were exactly right.

    Chance alone makes the shares of finite bins differ from the confidence. Hits are drawn independently, 200 times;
    labels of one picture are not quite independent, so that the true floor lies somewhat higher.

    Args:
        confidence: Shape (N,), N > 0.
        edges: Borders of the bins, shape (K + 1,).
    """
    rng = np.random.default_rng(_SEED)
    draws = rng.random((_PERFECT_DRAWS, len(confidence))) < confidence
    return float(np.mean([calibration_error(reliability(confidence, hit, edges)) for hit in draws]))


def auroc(score: Floats, hit: Bools) -> float | None:
    """Probability that a right answer scores above a wrong one; equal scores count half.

    Args:
        score: Shape (N,).
        hit: Shape (N,).

    Returns:
        In [0, 1], 0.5 by chance; None where all answers are right, or none is.
    """
    from scipy.stats import mannwhitneyu  # type: ignore[import-untyped,unused-ignore]

    rights = int(hit.sum())
    if rights in (0, len(hit)):
        return None
    return float(mannwhitneyu(score[hit], score[~hit]).statistic / (rights * (len(hit) - rights)))


def sparsification(truth: Floats, predicted: Floats, confidence: Floats) -> dict[str, Any]:
    """How the answers get better when only the most confident are kept (Ilg et al., ECCV 2018).

    Per share of answers that is kept, the most confident first, the figures of those; beside them the figures of the
    oracle, which drops the worst answers first. Where answers are equally confident, their mean stands for each.

    Args:
        truth: Metres above 0, shape (N,), N > 0.
        predicted: Metres above 0, shape (N,).
        confidence: Shape (N,).

    Returns:
        ``kept`` (shares, see :data:`KEPT_SHARES`); ``delta1``, ``delta1_oracle``, ``abs_rel``, ``abs_rel_oracle`` at
        each. ``ause_delta1``, ``ause_abs_rel``: area between the curve and the oracle's over the share removed
        (0 to 0.98), 0 at best, in units of the figure itself; ``aurg_delta1``, ``aurg_abs_rel``: area gained over
        dropping at random, below 0 where the confidence is worse than that (Poggi et al., CVPR 2020).
    """
    from scipy.integrate import trapezoid  # type: ignore[import-untyped,unused-ignore]

    hit = within_delta1(truth, predicted).astype(np.float64)
    error = np.abs(predicted - truth) / truth
    curves = {
        "delta1": _mean_of_kept(confidence, hit),
        "delta1_oracle": _mean_of_kept(hit, hit),
        "abs_rel": _mean_of_kept(confidence, error),
        "abs_rel_oracle": _mean_of_kept(-error, error),
    }

    def area(curve: Floats) -> float:
        return float(trapezoid(curve, 1.0 - KEPT_SHARES))

    return {
        "kept": KEPT_SHARES.tolist(),
        **{name: curve.tolist() for name, curve in curves.items()},
        "ause_delta1": area(curves["delta1_oracle"] - curves["delta1"]),
        "ause_abs_rel": area(curves["abs_rel"] - curves["abs_rel_oracle"]),
        "aurg_delta1": area(curves["delta1"] - hit.mean()),
        "aurg_abs_rel": area(error.mean() - curves["abs_rel"]),
    }


def _mean_of_kept(key: Floats, value: Floats) -> Floats:
    """Mean value of the share with the highest keys, at :data:`KEPT_SHARES`; ties are kept in equal parts."""
    order = np.argsort(-key, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(key[order])), len(key) - 1)
    sums = np.cumsum(value[order])[last_of_tie]
    kept = KEPT_SHARES * len(key)
    total = np.interp(kept, [0.0, *(last_of_tie + 1.0)], [0.0, *sums])
    return np.asarray(total / kept, dtype=np.float64)


def sigma_figures(truth: Floats, predicted: Floats, sigma: Floats) -> dict[str, Any]:
    """Does sigma have the size of the errors?

    Args:
        truth: Metres above 0, shape (N,).
        predicted: Metres, shape (N,), NaN where there is no answer.
        sigma: Metres, shape (N,), NaN where unknown.

    Returns:
        ``n``: answers with a sigma above 0, which alone count here. ``without_sigma``: answers without one. Where
        n > 0 also ``coverage``: share with |error| <= sigma, beside ``coverage_expected``; and ``quantiles``: per
        share of :data:`SIGMA_SHARES` the |error| / sigma below which that share of the answers lies, beside
        ``expected`` of normally distributed errors.
    """
    answered = np.isfinite(predicted)
    known = answered & np.isfinite(sigma) & (sigma > 0.0)
    counts = {"n": int(known.sum()), "without_sigma": int((answered & ~known).sum())}
    if not known.any():
        return counts
    from scipy.stats import halfnorm

    normalised = np.abs(predicted - truth)[known] / sigma[known]
    return {
        **counts,
        "coverage": float((normalised <= 1.0).mean()),
        "coverage_expected": float(halfnorm.cdf(1.0)),
        "quantiles": [
            {
                "share": share,
                "error_per_sigma": float(np.quantile(normalised, share)),
                "expected": float(halfnorm.ppf(share)),
            }
            for share in SIGMA_SHARES
        ],
    }
