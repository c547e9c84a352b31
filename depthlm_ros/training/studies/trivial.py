"""What predictors without eyes score on a study's held-out queries: below them no arm has learnt anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depthlm_ros.evaluation.metrics import Floats, within_delta1
from depthlm_ros.evaluation.trivial import best_constant, prior_of_bands, row_bands
from depthlm_ros.training.validation import Queries

PREDICTORS = ("row_prior", "best_constant")


@dataclass(frozen=True, eq=False)
class Asked:
    """The queries on one held-out picture.

    Attributes:
        rows: Rows of the asked pixels, shape (N,).
        height: Of the picture in pixels.
        truth: Metres, shape (N,).
    """

    rows: npt.NDArray[np.int64]
    height: int
    truth: Floats


def asked_of(queries: Queries) -> list[Asked]:
    """Queries that have a view each, as :func:`~depthlm_ros.training.validation.held_out_queries` draws them."""
    return [
        Asked(np.array([pixel[1]]), view.shape[0], np.array([truth]))
        for view, pixel, truth in zip(queries.views, queries.pixels, queries.truth, strict=True)
    ]


def trivial_scores(held_out: Mapping[str, Sequence[Asked]]) -> dict[str, dict[str, float]]:
    """delta1 of the :data:`PREDICTORS`.

    Args:
        held_out: {name of a set: its pictures}. Each set has a prior and a constant of its own.

    Returns:
        {predictor: ``delta1``, the mean over the sets, and ``delta1_NAME`` of each where there are several}.
        ``row_prior`` knows the truth of all other pictures of the set, ``best_constant`` is the one constant that is
        best on these very queries.
    """
    scores: dict[str, dict[str, float]] = {name: {} for name in PREDICTORS}
    for name, pictures in held_out.items():
        truths = [picture.truth for picture in pictures]
        truth = np.concatenate(truths)
        bands = [row_bands(picture.rows, picture.height) for picture in pictures]
        guesses = (
            np.concatenate(prior_of_bands(bands, truths, [None] * len(pictures))),
            np.full(len(truth), best_constant(truth)),
        )
        for predictor, guess in zip(PREDICTORS, guesses, strict=True):
            scores[predictor][f"delta1_{name}"] = float(within_delta1(truth, guess).mean())
    means = {predictor: float(np.mean(list(of.values()))) for predictor, of in scores.items()}
    if len(held_out) == 1:
        return {predictor: {"delta1": mean} for predictor, mean in means.items()}
    return {predictor: {"delta1": means[predictor], **of} for predictor, of in scores.items()}
