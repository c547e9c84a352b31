"""What the probability of the number's tokens means: share of answers within 25 %, and relative error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from depthlm_ros.evaluation.metrics import within_delta1
from depthlm_ros.profile import Calibration

_MOST_KNOTS = 12
_FEWEST_PER_KNOT = 20

Floats = npt.NDArray[np.float64]


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
    from scipy.optimize import isotonic_regression  # type: ignore[import-untyped,unused-ignore]

    usable = np.isfinite(probability) & np.isfinite(answered) & np.isfinite(truth)
    order = np.argsort(probability[usable], kind="stable")
    p, answered, truth = (x[usable][order] for x in (probability, answered, truth))
    bins = min(_MOST_KNOTS, len(p) // _FEWEST_PER_KNOT)
    if bins < 2:
        raise ValueError(f"calibration needs {2 * _FEWEST_PER_KNOT} answers or more, got {len(p)}")
    hit = within_delta1(truth, answered)
    error = np.abs(truth - answered) / answered
    chunks = np.array_split(np.arange(len(p)), bins)
    raw = np.array([np.median(p[c]) for c in chunks])
    weights = np.array([len(c) for c in chunks], dtype=np.float64)
    shares = np.array([hit[c].mean() for c in chunks])
    errors = np.array([np.quantile(error[c], 0.68) for c in chunks])
    confidence = isotonic_regression(shares, weights=weights).x
    sigma = isotonic_regression(errors, weights=weights, increasing=False).x
    keep = np.concatenate(([True], np.diff(raw) > 1e-6))
    if keep.sum() < 2:
        raise ValueError("calibration needs answers of different probability")
    return Calibration(
        tuple(round(float(x), 6) for x in raw[keep]),
        tuple(round(float(x), 4) for x in confidence[keep]),
        tuple(round(float(x), 4) for x in sigma[keep]),
        fitted_on,
    )
