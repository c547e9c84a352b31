"""Flat surfaces: finding one in the dense truth, and how flat the answers on it are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.evaluation.metrics import Bools, Floats
from depthlm_ros.geometry import rays

PLANE_TOLERANCE_M = 0.005
"""Distance from its plane up to which a true point belongs to a region."""

SMALLEST_SHARE = 0.03
"""Regions that cover less of the picture are not asked."""

FEWEST_POINTS = 6
"""A plane has three parameters: fewer answers say too little about how flat they are."""

_SEEDS = 12
_WINDOW = 11


@dataclass(frozen=True)
class PlaneAnswers:
    """How flat the answers on one flat surface are.

    Attributes:
        points: Answers that the plane was fitted to.
        distance_m: Mean true Euclidean distance of these points from the camera.
        flatness_m: RMS distance of the answered points to the plane fitted to them (three degrees of freedom taken
            off, so that the number of points does not matter).
        truth_flatness_m: The same of the true points at the same pixels: the floor of the figure.
        tilt_deg: Angle between the normals of the two planes, 0 to 90.
    """

    points: int
    distance_m: float
    flatness_m: float
    truth_flatness_m: float
    tilt_deg: float


def find_plane(
    z: npt.NDArray[np.floating[Any]], camera: PinholeCamera, rng: np.random.Generator
) -> Bools | None:
    """Find the largest flat region among those around some random pixels.

    A pixel's surroundings of 11x11 are fitted by a plane; the region is what is connected to it and lies within
    :data:`PLANE_TOLERANCE_M` of the plane, fitted anew to the region. Of a plane, 1 / z is affine in the pixel.

    Args:
        z: Dense true z-depth in metres, shape (H, W); not finite where there is no surface.
        camera: The camera of ``z``, without distortion.
        rng: Chooses the pixels.

    Returns:
        The region, shape (H, W); None where no region covers :data:`SMALLEST_SHARE` of the picture.
    """
    surface = np.where(np.isfinite(z) & (z > 0.0), z, np.nan).astype(np.float64)
    half = _WINDOW // 2
    v, u = np.nonzero(np.isfinite(surface[half : z.shape[0] - half, half : z.shape[1] - half]))
    if not len(u):
        return None
    points = rays(np.stack(np.meshgrid(*(np.arange(n) for n in z.shape[::-1])), axis=-1), camera)
    points = points * surface[..., None]
    best: Bools | None = None
    for i in rng.choice(len(u), size=min(_SEEDS, len(u)), replace=False):
        row, column = int(v[i]) + half, int(u[i]) + half
        if best is not None and best[row, column]:
            continue
        region = _region(points, row, column)
        if region is not None and (best is None or region.sum() > best.sum()):
            best = region
    return best if best is not None and best.sum() >= SMALLEST_SHARE * z.size else None


def _region(points: Floats, row: int, column: int) -> Bools | None:
    """The flat region around a pixel, or None where its surroundings are not flat."""
    from scipy.ndimage import label  # type: ignore[import-untyped,unused-ignore]

    half = _WINDOW // 2
    window = points[row - half : row + half + 1, column - half : column + half + 1].reshape(-1, 3)
    if not np.isfinite(window).all() or not _near(fitted_plane(window), window).all():
        return None
    plane = fitted_plane(window)
    # A plane from a small window may leave the surface farther off; the second one is that of the region.
    for _ in range(2):
        parts = label(_near(plane, points))[0]
        if parts[row, column] == 0:
            return None
        region = np.asarray(parts == parts[row, column], dtype=np.bool_)
        plane = fitted_plane(points[region])
    return region


def _near(plane: tuple[Floats, Floats], points: Floats) -> Bools:
    """Which points lie within the tolerance of a plane; none that is NaN does."""
    normal, centre = plane
    return np.asarray(np.abs((points - centre) @ normal) <= PLANE_TOLERANCE_M, dtype=np.bool_)


def fitted_plane(points: Floats) -> tuple[Floats, Floats]:
    """The plane with the least sum of squared distances to points.

    Args:
        points: Shape (N, 3), N of 3 or more.

    Returns:
        Its unit normal and a point on it, shapes (3,) and (3,).
    """
    centre = points.mean(axis=0)
    moments = (points - centre).T @ (points - centre)
    return np.asarray(np.linalg.eigh(moments)[1][:, 0]), np.asarray(centre)


def plane_answers(truth: Floats, answered: Floats) -> PlaneAnswers | None:
    """Compare answers on one flat surface with the truth there.

    Args:
        truth: True points in the optical frame, shape (N, 3), metres.
        answered: Answered points at the same pixels, shape (N, 3), metres, NaN without an answer.

    Returns:
        None with fewer than :data:`FEWEST_POINTS` answers.
    """
    known = np.isfinite(answered).all(axis=1)
    truth, answered = truth[known], answered[known]
    if len(answered) < FEWEST_POINTS:
        return None
    true_normal, true_flatness = _flatness(truth)
    normal, flatness = _flatness(answered)
    cosine = min(abs(float(true_normal @ normal)), 1.0)
    return PlaneAnswers(
        points=len(answered),
        distance_m=float(np.linalg.norm(truth, axis=1).mean()),
        flatness_m=flatness,
        truth_flatness_m=true_flatness,
        tilt_deg=float(np.degrees(np.arccos(cosine))),
    )


def _flatness(points: Floats) -> tuple[Floats, float]:
    normal, centre = fitted_plane(points)
    distance = (points - centre) @ normal
    return normal, float(np.sqrt((distance**2).sum() / (len(points) - 3)))


def plane_figures(planes: Sequence[PlaneAnswers]) -> dict[str, Any]:
    """Flatness over images, one flat surface each, after the planarity measures of iBims-1 (Koch et al., ECCVW 2018).

    Args:
        planes: One per image that has a flat surface and enough answers on it.

    Returns:
        ``planes``: how many. Medians over them, None without any: ``flatness`` and ``truth_flatness`` (RMS distance
        to the fitted plane as a share of the distance from the camera), ``flatness_m``, ``tilt_deg``. A fitted plane
        may follow errors along the rays, so read the flatness together with the tilt. ``per_plane``: each.
    """

    def median(values: list[float]) -> float | None:
        return float(np.median(values)) if values else None

    return {
        "planes": len(planes),
        "flatness": median([plane.flatness_m / plane.distance_m for plane in planes]),
        "truth_flatness": median([plane.truth_flatness_m / plane.distance_m for plane in planes]),
        "flatness_m": median([plane.flatness_m for plane in planes]),
        "tilt_deg": median([plane.tilt_deg for plane in planes]),
        "per_plane": [asdict(plane) for plane in planes],
    }
