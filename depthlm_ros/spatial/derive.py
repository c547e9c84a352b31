"""Spatial answers from depths by geometry, with first-order uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from depthlm_ros.geometry import SparseDepth, rays
from depthlm_ros.spatial.request import SpatialRequest
from depthlm_ros.spatial.tasks import SpatialTask

_RATIO = 1.25
"""Confidence speaks of answers within this factor of the truth, as everywhere in this package (delta1)."""


@dataclass(frozen=True)
class Measured:
    """A number and how sure it is.

    Attributes:
        value: In the task's unit.
        sigma: 1-sigma uncertainty in the same unit; NaN where unknown.
        confidence: Probability that value and truth differ by less than a factor of 1.25; NaN where unknown.
    """

    value: float
    sigma: float
    confidence: float


def derive(request: SpatialRequest, depths: SparseDepth) -> Measured:
    """Compute a task about points from the depths at its pixels.

    A scaled depth (principal axis, speed, time) keeps the depth's confidence, since its relative error is the same.
    For two points the depths' errors are taken as independent and normal: sigma^2 = sum (dd/dz_i sigma_i)^2.

    Args:
        request: A task about points.
        depths: One answered entry per pixel of the request, in its order.
    """
    z, sigma = depths.depth.astype(np.float64), depths.sigma.astype(np.float64)
    directions = rays(depths.pixels, depths.camera)
    if request.task is SpatialTask.TWO_POINT_DISTANCE:
        return _two_points(directions, z, sigma)
    per_metre = 1.0
    if request.task is SpatialTask.SPEED:
        per_metre = float(np.linalg.norm(directions[0])) / request.seconds
    elif request.task is SpatialTask.TIME:
        per_metre = float(np.linalg.norm(directions[0])) / request.speed
    return Measured(float(z[0]) * per_metre, float(sigma[0]) * per_metre, float(depths.confidence[0]))


def _two_points(
    directions: npt.NDArray[np.float64], z: npt.NDArray[np.float64], sigma: npt.NDArray[np.float64]
) -> Measured:
    apart = directions[0] * z[0] - directions[1] * z[1]
    distance = float(np.linalg.norm(apart))
    slopes = directions @ (apart / distance)
    spread = float(np.hypot(*(slopes * sigma)))
    return Measured(distance, spread, normal_confidence(distance, spread))


def normal_confidence(value: float, sigma: float) -> float:
    """Probability that a number is within a factor of 1.25 of the truth, were its error normal.

    The truth is then normal about the value, and 0.8 value < truth < 1.25 value has the probability
    Phi(0.25 value / sigma) - Phi(-0.2 value / sigma).

    Args:
        value: The number, 0 or greater.
        sigma: Its standard deviation; NaN gives NaN, 0 gives 1.
    """
    if math.isnan(sigma):
        return math.nan
    if sigma == 0.0:
        return 1.0
    error = NormalDist(0.0, sigma)
    return error.cdf((_RATIO - 1.0) * value) - error.cdf((1.0 / _RATIO - 1.0) * value)
