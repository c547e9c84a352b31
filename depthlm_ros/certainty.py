"""How sure the model is of a depth, and what a checkpoint's calibration makes of it: confidence and sigma."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from depthlm_ros.profile import RELATIVE, Calibration

Floats = npt.NDArray[np.float64]
Number = TypeVar("Number", float, Floats)


def relative_certainty(probability: Number, metres: Number, step_m: Number) -> Number:
    """The answer's probability density per unit of log depth: how sure the model is, in relative terms.

    Numbers are written in equal steps of metres ("2.42", "2.43"), and confidence is about a ratio (within 25 %). Who
    is equally sure of a ratio at 1 m and at 10 m spreads the same probability over ten times as many numbers at 10 m,
    so that the probability of one number says mostly how far away it is. Divided by the step it is a density per
    metre, and times the metres one per unit of log depth, which is the same at any depth and for any number of
    decimals: about 0.4 / s for normal errors of the share s.

    Args:
        probability: Of the number's tokens (:func:`~depthlm_ros.answers.number_probability`), in [0, 1].
        metres: The answered number.
        step_m: What one more in its last written digit adds, in metres.

    Returns:
        A value of 0 or more; NaN where any of them is.
    """
    return probability * metres / step_m


def calibrated(
    probability: float, metres: float, step_m: float, calibration: Calibration | None
) -> tuple[float, float]:
    """Turn the number's probability into confidence and sigma.

    Args:
        probability: What :func:`~depthlm_ros.answers.number_probability` gave.
        metres: The answered depth.
        step_m: As in :func:`relative_certainty`.
        calibration: The checkpoint's measured calibration, or None.

    Returns:
        (confidence in [0, 1], sigma in metres); NaN where there is nothing to derive them from.
    """
    if calibration is None or math.isnan(probability) or math.isnan(metres):
        return math.nan, math.nan
    relative = calibration.score == RELATIVE
    score = relative_certainty(probability, metres, step_m) if relative else probability
    confidence, sigma = mapped(score, calibration)
    return float(confidence), float(sigma) * metres


def mapped(score: float | Floats, calibration: Calibration) -> tuple[Floats, Floats]:
    """What a calibration says of scores; beyond its first and last knot nothing is extrapolated.

    Args:
        score: Of the kind that it was fitted on, any shape.
        calibration: The calibration.

    Returns:
        (confidence in [0, 1], sigma as a share of the answered depth), of the same shape; NaN where the score is.
    """
    knots = calibration.raw
    return (
        np.asarray(np.interp(score, knots, calibration.confidence), dtype=np.float64),
        np.asarray(np.interp(score, knots, calibration.relative_sigma), dtype=np.float64),
    )
