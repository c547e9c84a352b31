"""How good depths are: delta1 with its uncertainty, errors of what was answered, order within an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DELTA1_RATIO = 1.25
_BOOTSTRAP_DRAWS = 2000
_BOOTSTRAP_SEED = 0


def within_delta1(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which predictions hit: max(z / z', z' / z) < 1.25 (the paper's and the official code's delta1).

    Args:
        truth: Metres above 0, shape (N,).
        predicted: Metres, shape (N,); what is not above 0, and NaN for "no answer", misses.

    Returns:
        Booleans of shape (N,).
    """
    z, guess = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    answered = np.isfinite(guess) & (guess > 0.0)
    safe = np.where(answered, guess, 1.0)
    return np.asarray(answered & (np.maximum(z / safe, safe / z) < DELTA1_RATIO), dtype=np.bool_)


def score(truth: Sequence[Floats], predicted: Sequence[Floats]) -> dict[str, Any]:
    """Score the predictions of some images.

    Args:
        truth: Per image, metres above 0, shape (N_i,).
        predicted: Per image, metres, shape (N_i,), NaN where there is no answer.

    Returns:
        ``delta1``: share of all n that hit; no answer is a miss. ``delta1_interval95``: [low, high] of its
        bootstrap over images, None for a single image. ``abs_rel`` (mean of |z' - z| / z) and ``rmse`` (metres):
        over the answered only, None without any. ``answered``: share of n. ``n``: number of labels. Without any
        label the shares are None.
    """
    z, guess = np.concatenate([*truth, np.zeros(0)]), np.concatenate([*predicted, np.zeros(0)])
    answered = np.isfinite(guess)
    error = guess[answered] - z[answered]
    hits = [within_delta1(a, b) for a, b in zip(truth, predicted, strict=True)]
    return {
        "delta1": float(np.concatenate(hits).mean()) if len(z) else None,
        "delta1_interval95": interval95(hits),
        "abs_rel": float(np.mean(np.abs(error) / z[answered])) if answered.any() else None,
        "rmse": float(np.sqrt(np.mean(error**2))) if answered.any() else None,
        "answered": float(answered.mean()) if len(z) else None,
        "n": len(z),
    }


def rank_correlation(truth: Sequence[Floats], predicted: Sequence[Floats]) -> float | None:
    """Median over images of Spearman's correlation within the image: is the order of depths right?

    Args:
        truth: Per image, metres, shape (N_i,).
        predicted: Per image, metres, shape (N_i,), NaN where there is no answer.

    Returns:
        A value in [-1, 1]. An image whose answers are all equal counts as 0 (nothing was told apart); images
        with fewer than three answers, or equal labels only, do not count. None if none counts.
    """
    from scipy.stats import spearmanr  # type: ignore[import-untyped,unused-ignore]

    return _median_within_image(truth, predicted, lambda z, guess: float(spearmanr(z, guess)[0]))


def log_correlation(truth: Sequence[Floats], predicted: Sequence[Floats]) -> float | None:
    """Median over images of Pearson's correlation of log depth within the image.

    It asks for the order and for the ratios between depths, and is blind to one wrong factor for the whole image.

    Args:
        truth: Per image, metres above 0, shape (N_i,).
        predicted: Per image, metres above 0, shape (N_i,), NaN where there is no answer.

    Returns:
        A value in [-1, 1]; images count as in :func:`rank_correlation`. None if none counts.
    """
    return _median_within_image(
        truth, predicted, lambda z, guess: float(np.corrcoef(np.log(z), np.log(guess))[0, 1])
    )


def _median_within_image(
    truth: Sequence[Floats], predicted: Sequence[Floats], correlation: Callable[[Floats, Floats], float]
) -> float | None:
    values: list[float] = []
    for z, guess in zip(truth, predicted, strict=True):
        answered = np.isfinite(guess)
        if answered.sum() < 3 or np.ptp(z[answered]) == 0.0:
            continue
        constant = np.ptp(guess[answered]) == 0.0
        values.append(0.0 if constant else correlation(z[answered], guess[answered]))
    return float(np.median(values)) if values else None


def bootstrap_rates(hits: Sequence[Bools], *, seed: int = _BOOTSTRAP_SEED) -> Floats | None:
    """Pooled hit rates when whole images are drawn again.

    Labels of one image rise and fall together, so that drawing labels would claim too much.

    Args:
        hits: Per image, shape (N_i,); images without any do not count.
        seed: The same seed gives the same draws.

    Returns:
        Shape (2000,); None with fewer than two images.
    """
    counts = np.array([[h.sum(), len(h)] for h in hits if len(h)], dtype=np.float64)
    if len(counts) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = counts[rng.integers(0, len(counts), (_BOOTSTRAP_DRAWS, len(counts)))].sum(axis=1)
    return np.asarray(drawn[:, 0] / drawn[:, 1], dtype=np.float64)


def interval95(hits: Sequence[Bools]) -> list[float] | None:
    """95 % interval [low, high] of the pooled hit rate, by :func:`bootstrap_rates`; None where there is none."""
    rates = bootstrap_rates(hits)
    return None if rates is None else middle95(rates)


def median_interval95(values: Floats) -> list[float] | None:
    """95 % interval [low, high] of a median when values are drawn again; None for fewer than two.

    Args:
        values: Independent of each other, shape (N,).
    """
    if len(values) < 2:
        return None
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    drawn = values[rng.integers(0, len(values), (_BOOTSTRAP_DRAWS, len(values)))]
    return middle95(np.median(drawn, axis=1))


def middle95(draws: Floats) -> list[float]:
    """[low, high]: the middle 95 % of bootstrap draws."""
    low, high = np.percentile(draws, (2.5, 97.5))
    return [float(low), float(high)]
