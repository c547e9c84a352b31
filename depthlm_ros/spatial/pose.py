"""Camera motion from matched points and their depths: PnP both ways."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation  # type: ignore[import-untyped,unused-ignore]

from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.request import SpatialStatus

Array = npt.NDArray[np.float64]

LEAST_INLIERS = 6
"""PnP has six unknowns and each point gives two equations: twice as many as needed."""
LEAST_SHARE = 0.4
"""Fewer inliers than this share of the points mean that chance found them."""
MOST_DISAGREEMENT_DEG = 10.0
"""Turns that the two directions give may differ by this much."""
_TANGENT = 0.02
"""Reprojection error up to which a point is an inlier, as a tangent (about 1 degree): depths that are wrong by a
fifth at a tenth of the depth as baseline stay within it."""
_ROUNDS = 300


@dataclass(frozen=True, eq=False)
class Points:
    """Matched points as one camera sees them; entry i of both cameras is the same point.

    Attributes:
        rays: Their directions with z = 1, optical frame, shape (N, 3).
        z: Their z-depths in metres, shape (N,); NaN where unknown.
        sigma: 1-sigma uncertainty of each depth in metres, shape (N,); NaN where unknown.
    """

    rays: Array
    z: Array
    sigma: Array


@dataclass(frozen=True, eq=False)
class MotionEstimate:
    """A camera motion, or why there is none.

    Attributes:
        motion: The motion; all NaN where there is none.
        status: ``OK``, ``FEW_INLIERS`` or ``INCONSISTENT``.
        sigma: 1-sigma uncertainty of the metres moved; NaN where unknown.
        inliers: Points that agree, of the better direction.
        message: Why there is no motion; else empty.
    """

    motion: CameraMotion
    status: SpatialStatus
    sigma: float
    inliers: int
    message: str = ""


@dataclass(frozen=True, eq=False)
class _Pnp:
    """The pose that takes points of one camera into the other: p' = turn(p) + shift."""

    turn: Rotation
    shift: Array
    sigma: float
    inliers: int

    def inverse(self) -> _Pnp:
        back = self.turn.inv()
        return _Pnp(back, -back.apply(self.shift), self.sigma, self.inliers)


def estimate_motion(first: Points, second: Points) -> MotionEstimate:
    """Estimate how the camera moved, from the depths of either image.

    The depths of each image with the positions in the other one fix the motion (perspective-n-point with RANSAC, then
    least squares); the two results are averaged. Where only one direction finds enough inliers, it is taken alone.

    Args:
        first: The points as the first camera sees them.
        second: The same points as the second camera sees them.
    """
    # p1 = turn p2 + shift is the second camera's pose in the first one.
    found = [backward] if (backward := _pnp(second, first)) is not None else []
    if (forward := _pnp(first, second)) is not None:
        found.append(forward.inverse())
    if not found:
        why = (
            f"expected {LEAST_INLIERS} or more points, and {LEAST_SHARE:.0%} of them, to agree on one motion of the "
            f"camera; of {_known(first)} and {_known(second)} with a depth too few did: is the scene static, and do "
            "the images overlap?"
        )
        return MotionEstimate(CameraMotion.unknown(), SpatialStatus.FEW_INLIERS, math.nan, 0, why)
    inliers = max(pose.inliers for pose in found)
    if len(found) == 2:
        apart = math.degrees((found[0].turn.inv() * found[1].turn).magnitude())
        if apart > MOST_DISAGREEMENT_DEG:
            why = (
                f"the depths of the two images give motions whose turns differ by {apart:.0f} degrees, more than "
                f"{MOST_DISAGREEMENT_DEG:g}: take images with more overlap"
            )
            return MotionEstimate(CameraMotion.unknown(), SpatialStatus.INCONSISTENT, math.nan, inliers, why)
    turn = Rotation.concatenate([pose.turn for pose in found]).mean()
    shift = np.mean([pose.shift for pose in found], axis=0)
    sigma = float(np.mean([pose.sigma for pose in found]))
    motion = CameraMotion(shift, turn.as_rotvec(degrees=True))
    return MotionEstimate(motion, SpatialStatus.OK, sigma, inliers)


def _known(points: Points) -> int:
    return int(np.isfinite(points.z).sum())


def _pnp(have: Points, seen: Points) -> _Pnp | None:
    """The pose of the points of one camera in the other, or None where too few agree."""
    known = np.isfinite(have.z)
    if known.sum() < LEAST_INLIERS:
        return None
    where = have.rays[known] * have.z[known, None]
    image = np.ascontiguousarray(seen.rays[known, :2])
    ok, turn, shift, inliers = cv2.solvePnPRansac(
        where, image, np.eye(3), None,
        iterationsCount=_ROUNDS, reprojectionError=_TANGENT, flags=cv2.SOLVEPNP_SQPNP,
    )  # fmt: skip
    if not ok or inliers is None or len(inliers) < max(LEAST_INLIERS, LEAST_SHARE * known.sum()):
        return None
    chosen = inliers.ravel()
    where, image = where[chosen], image[chosen]
    turn, shift = cv2.solvePnPRefineLM(where, image, np.eye(3), None, turn, shift)
    if not (np.isfinite(turn).all() and np.isfinite(shift).all()):
        return None
    sigma = _sigma(have.rays[known][chosen], have.z[known][chosen], have.sigma[known][chosen], turn, shift)
    return _Pnp(Rotation.from_rotvec(turn.ravel()), np.asarray(shift).ravel(), sigma, len(chosen))


def _sigma(directions: Array, z: Array, sigma: Array, turn: Array, shift: Array) -> float:
    """Uncertainty of |shift| from that of the depths, first order.

    The least-squares pose x answers a change of the residuals r with dx = -(J'J)^-1 J' dr, where J = dr/dx. The
    depth errors of one image are mostly one common scale, so their effects are added, not their squares:
    sigma = sum |d|shift| / dz_i| sigma_i, the most that errors of this size can do.
    """
    distance = float(np.linalg.norm(shift))
    if distance == 0.0 or not np.isfinite(sigma).all():
        return math.nan
    _, slopes = cv2.projectPoints(directions * z[:, None], turn, shift, np.eye(3), None)
    jacobian = slopes[:, :6]
    turned = Rotation.from_rotvec(turn.ravel()).apply(directions)
    places = turned * z[:, None] + shift.ravel()
    ahead = places[:, 2:]
    per_metre = turned[:, :2] / ahead - places[:, :2] * turned[:, 2:] / ahead**2
    answer = -np.linalg.pinv(jacobian)[3:].reshape(3, -1, 2)
    moves = np.einsum("kij,ij->ik", answer, per_metre)
    along = moves @ (shift.ravel() / distance)
    return float(np.abs(along) @ sigma)
