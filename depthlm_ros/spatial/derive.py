"""Spatial answers from depths by geometry, with first-order uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depthlm_ros.geometry import SparseDepth, rays
from depthlm_ros.spatial.request import SpatialRequest
from depthlm_ros.spatial.tasks import SpatialTask

_BAND = 0.25
"""Confidence speaks of errors within this share of the truth, as everywhere in this package."""


@dataclass(frozen=True)
class Measured:
    """A number and how sure it is.

    Attributes:
        value: In the task's unit.
        sigma: 1-sigma uncertainty in the same unit; NaN where unknown.
        confidence: Probability that the value is within 25 % of the truth; NaN where unknown.
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
    """Probability that a normal error stays within 25 % of the value: erf(0.25 value / (sqrt(2) sigma)).

    Args:
        value: The number, 0 or greater.
        sigma: Its standard deviation; NaN gives NaN, 0 gives 1.
    """
    if math.isnan(sigma):
        return math.nan
    return math.erf(_BAND * value / (math.sqrt(2.0) * sigma)) if sigma > 0.0 else 1.0
