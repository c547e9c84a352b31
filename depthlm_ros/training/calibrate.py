"""What the certainty of answers means: share of them within 25 %, and relative error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from depthlm_ros.certainty import mapped, relative_certainty
from depthlm_ros.evaluation.metrics import within_delta1
from depthlm_ros.profile import RELATIVE, Calibration

_MOST_KNOTS = 12
_FEWEST_PER_KNOT = 20
_FEWEST_AT_END = 40
"""Of bins at the ends, where a share is farther from its neighbours' and so says more by itself."""
_FOLDS = 5
_SEED = 0
_STEP_M = 0.01
"""Of numbers with two decimals, as the answers of this project and of the official code are written."""

Floats = npt.NDArray[np.float64]


def fit_calibration(
    probability: Floats, answered: Floats, truth: Floats, fitted_on: str, step_m: Floats | None = None
) -> Calibration:
    """Fit the confidence and sigma of a checkpoint to the probability of its numbers.

    Args:
        probability: Of the number's tokens, shape (N,); NaN is left out.
        answered: Metres, shape (N,).
        truth: Metres, shape (N,).
        fitted_on: What the queries were, in words.
        step_m: What one more in each number's last written digit adds, in metres, shape (N,); None: two decimals.

    Raises:
        ValueError: There are too few answers, or all have one certainty.
    """
    steps = np.full(len(answered), _STEP_M) if step_m is None else step_m
    return fit_certainty(relative_certainty(probability, answered, steps), answered, truth, fitted_on)


def fit_certainty(certainty: Floats, answered: Floats, truth: Floats, fitted_on: str) -> Calibration:
    """Fit the confidence and sigma of a checkpoint.

    Bins along the certainty, of equal population but finer towards the ends (:func:`_bins`); per bin the share within
    25 %, made monotone, and the 68 % quantile of |truth - answered| / answered, made monotone the other way. The
    relative error is taken of the answered depth, since that is what sigma is computed from.

    Args:
        certainty: :func:`~depthlm_ros.certainty.relative_certainty`, shape (N,); NaN is left out.
        answered: Metres, shape (N,).
        truth: Metres, shape (N,).
        fitted_on: What the queries were, in words.

    Raises:
        ValueError: There are too few answers, or all have one certainty.
    """
    from scipy.optimize import isotonic_regression  # type: ignore[import-untyped,unused-ignore]

    usable = np.isfinite(certainty) & np.isfinite(answered) & np.isfinite(truth)
    order = np.argsort(certainty[usable], kind="stable")
    score, answered, truth = (x[usable][order] for x in (certainty, answered, truth))
    if len(score) < 2 * _FEWEST_PER_KNOT:
        raise ValueError(f"calibration needs {2 * _FEWEST_PER_KNOT} answers or more, got {len(score)}")
    hit = within_delta1(truth, answered)
    error = np.abs(truth - answered) / answered
    chunks = _bins(len(score))
    raw = np.array([np.median(score[c]) for c in chunks])
    weights = np.array([len(c) for c in chunks], dtype=np.float64)
    shares = np.array([hit[c].mean() for c in chunks])
    errors = np.array([np.quantile(error[c], 0.68) for c in chunks])
    confidence = isotonic_regression(shares, weights=weights).x
    sigma = isotonic_regression(errors, weights=weights, increasing=False).x
    keep = np.concatenate(([True], np.diff(raw) > 1e-6))
    if keep.sum() < 2:
        raise ValueError("calibration needs answers of different certainty")
    return Calibration(
        tuple(round(float(x), 6) for x in raw[keep]),
        tuple(round(float(x), 4) for x in confidence[keep]),
        tuple(round(float(x), 4) for x in sigma[keep]),
        fitted_on,
        RELATIVE,
    )


def _bins(count: int) -> list[npt.NDArray[np.int64]]:
    """Places of sorted scores, in bins: up to twelve of equal population, the first and the last cut in half again.

    What lies beyond the middle of the first and of the last bin is said to be as good as that bin. With a twelfth of
    the answers in it, that would hide the few of which the model is hardly sure at all, which are what a threshold on
    confidence is for. So the outer halves are cut in half as long as each keeps enough answers.
    """
    bins = np.array_split(np.arange(count), min(_MOST_KNOTS, count // _FEWEST_PER_KNOT))
    while len(bins[0]) >= 2 * _FEWEST_AT_END:
        bins[:1] = np.array_split(bins[0], 2)
    while len(bins[-1]) >= 2 * _FEWEST_AT_END:
        bins[-1:] = np.array_split(bins[-1], 2)
    return bins


def cross_fitted(
    certainty: Floats, answered: Floats, truth: Floats, scene: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """What calibrations say of answers that they were not fitted on: each scene's by a fit to the other folds.

    Args:
        certainty: As in :func:`fit_certainty`.
        answered: Metres, shape (N,).
        truth: Metres, shape (N,).
        scene: Number of the scene of each answer, shape (N,); a scene is in one fold as a whole.

    Returns:
        Confidence and sigma in metres, shape (N,) each, NaN where the certainty is.

    Raises:
        ValueError: There is one scene only, or a fold leaves too few answers.
    """
    scenes = np.random.default_rng(_SEED).permutation(np.unique(scene))
    if len(scenes) < 2:
        raise ValueError("cross-fitting needs two scenes or more")
    confidence, sigma = np.full(len(certainty), np.nan), np.full(len(certainty), np.nan)
    for fold in range(min(_FOLDS, len(scenes))):
        out = np.isin(scene, scenes[fold::_FOLDS])
        fitted = fit_certainty(certainty[~out], answered[~out], truth[~out], "")
        confidence[out], share = mapped(certainty[out], fitted)
        sigma[out] = share * answered[out]
    return confidence, sigma
