"""A calibration from the answers to labelled images, and what it is worth on images that it was not fitted on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from depthlm_ros.certainty import mapped
from depthlm_ros.evaluation.benchmark import BenchmarkError
from depthlm_ros.evaluation.confidence import confidence_figures, sigma_figures
from depthlm_ros.evaluation.metrics import Floats
from depthlm_ros.evaluation.results import Evaluation
from depthlm_ros.profile import Calibration
from depthlm_ros.training.calibrate import cross_fitted, fit_certainty

FEWEST_ANSWERS = 200
"""Ten bins of the calibration error with 20 answers each; with fewer, chance is most of what is fitted."""


@dataclass(frozen=True)
class Fit:
    """A calibration and its figures.

    Attributes:
        calibration: Fitted on all answers.
        before: ``confidence`` (:func:`~depthlm_ros.evaluation.confidence.confidence_figures`) and ``sigma``
            (:func:`~depthlm_ros.evaluation.confidence.sigma_figures`) as the checkpoint gave them.
        after: The same by fits to other scenes, or, where not ``crossed``, by the fit to these very answers.
        crossed: Whether ``after`` is of scenes that its fits did not see; one scene leaves nothing else to fit on.
        answers: Answers that were fitted on.
        scenes: Scenes that they are of.
        unscored: Answers without log-probabilities, which were left out.
    """

    calibration: Calibration
    before: dict[str, Any]
    after: dict[str, Any]
    crossed: bool
    answers: int
    scenes: int
    unscored: int


def fit_answers(measured: Sequence[Evaluation], fitted_on: str) -> Fit:
    """Fit a calibration to all answers together.

    Args:
        measured: The answers to one benchmark or more, of one checkpoint.
        fitted_on: What they are, in words; "N answers to " is put before it.

    Raises:
        BenchmarkError: There are too few answers, or they have no log-probabilities; the message says what to do.
    """
    truth = np.concatenate([labels for one in measured for labels in one.truth])
    answered, certainty, confidence, sigma = (
        np.concatenate([one.column(name) for one in measured])
        for name in ("depth", "certainty", "confidence", "sigma")
    )
    scene = _scenes(measured)
    known = np.isfinite(answered) & np.isfinite(certainty)
    _check(measured, int(np.isfinite(answered).sum()), int(known.sum()))
    crossed = len(np.unique(scene[known])) > 1
    columns = certainty[known], answered[known], truth[known]
    try:
        calibration = fit_certainty(*columns, f"{known.sum()} answers to {fitted_on}")
        if crossed:
            fresh = cross_fitted(*columns, scene[known])
        else:
            share, relative = mapped(columns[0], calibration)
            fresh = share, relative * columns[1]
    except ValueError as error:
        raise BenchmarkError(f"{error}: name more DATA, of more images") from error
    return Fit(
        calibration,
        _figures(truth[known], answered[known], confidence[known], sigma[known]),
        _figures(truth[known], answered[known], *fresh),
        crossed,
        int(known.sum()),
        len(np.unique(scene[known])),
        int((np.isfinite(answered) & ~known).sum()),
    )


def _figures(truth: Floats, answered: Floats, confidence: Floats, sigma: Floats) -> dict[str, Any]:
    return {
        "confidence": confidence_figures(truth, answered, confidence),
        "sigma": sigma_figures(truth, answered, sigma),
    }


def _scenes(measured: Sequence[Evaluation]) -> Any:
    """A number per label, shared by the labels of one picture and by those of one static scene."""
    numbers: dict[object, int] = {}
    of_label: list[int] = []
    for index, one in enumerate(measured):
        for sample in (result.sample for result in one.results):
            key = sample.path.resolve() if sample.static is None else (index, sample.static)
            of_label += [numbers.setdefault(key, len(numbers))] * len(sample.depth)
    return np.array(of_label, dtype=np.int64)


def _check(measured: Sequence[Evaluation], answered: int, known: int) -> None:
    labels = sum(len(result.sample.depth) for one in measured for result in one.results)
    if known >= FEWEST_ANSWERS:
        return
    if answered and not known:
        raise BenchmarkError(
            f"a calibration is fitted on the log-probabilities of the answers, but {measured[0].model} gave none: "
            "use a server that gives them (docs/engines.md), or --engine transformers"
        )
    status: Counter[str] = Counter()
    for one in measured:
        status.update(one.reasons())
    reasons = ", ".join(f"{name} {count}" for name, count in sorted(status.items()))
    raise BenchmarkError(
        f"a calibration needs {FEWEST_ANSWERS} answers with log-probabilities or more, got {known} to {labels} "
        f"labels ({reasons}): name DATA with more labels (1000 are a good number), or raise --limit"
    )
