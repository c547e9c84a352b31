"""The three solids that every object is assembled from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from depthlm_ros.synthetic.materials import Material

Doubles = npt.NDArray[np.float64]


class Shape(IntEnum):
    """Kinds of solids."""

    BOX = 0
    FRUSTUM = 1
    ELLIPSOID = 2


@dataclass(frozen=True)
class Solid:
    """One solid: centre and half sizes in metres, turned by ``yaw`` about z after ``tilt`` about its own y axis.

    Half sizes are (x, y, z); for a frustum (radius at the bottom, radius at the top, half height).
    """

    shape: Shape
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    material: Material
    yaw: float = 0.0
    tilt: float = 0.0
    casts_shadow: bool = True

    def moved(self, x: float, y: float, yaw: float, z: float = 0.0) -> Solid:
        """The same solid after turning the frame it was built in by ``yaw`` and moving it to (x, y, z)."""
        cos_yaw, sin_yaw = math.cos(yaw), math.sin(yaw)
        own_x, own_y, own_z = self.centre
        centre = (x + cos_yaw * own_x - sin_yaw * own_y, y + sin_yaw * own_x + cos_yaw * own_y, z + own_z)
        return Solid(
            self.shape, centre, self.half, self.material, self.yaw + yaw, self.tilt, self.casts_shadow
        )


def box(
    material: Material,
    size: tuple[float, float, float],
    base: tuple[float, float, float],
    *,
    yaw: float = 0.0,
    tilt: float = 0.0,
    casts_shadow: bool = True,
) -> Solid:
    """A box of full ``size`` whose bottom face is centred at ``base`` (before tilting about its centre)."""
    half = (size[0] / 2, size[1] / 2, size[2] / 2)
    centre = (base[0], base[1], base[2] + half[2])
    return Solid(Shape.BOX, centre, half, material, yaw, tilt, casts_shadow)


def frustum(
    material: Material,
    radius: float,
    height: float,
    base: tuple[float, float, float],
    *,
    top_radius: float | None = None,
    yaw: float = 0.0,
    tilt: float = 0.0,
) -> Solid:
    """An upright cylinder, or a cone when ``top_radius`` differs from ``radius``, standing on ``base``."""
    half = (radius, radius if top_radius is None else top_radius, height / 2)
    return Solid(Shape.FRUSTUM, (base[0], base[1], base[2] + height / 2), half, material, yaw, tilt)


def ellipsoid(
    material: Material,
    half: tuple[float, float, float],
    centre: tuple[float, float, float],
    *,
    yaw: float = 0.0,
) -> Solid:
    """An ellipsoid with the given half axes."""
    return Solid(Shape.ELLIPSOID, centre, half, material, yaw)


@dataclass(frozen=True)
class SolidTable:
    """N solids as arrays, the form that ray casting and shading want."""

    shape: npt.NDArray[np.int32]
    centre: Doubles
    """(N, 3), world."""
    rotation: Doubles
    """(N, 3, 3), local to world."""
    half: Doubles
    """(N, 3), as in `Solid.half`."""
    bound: Doubles
    """(N, 3), half sizes of the local bounding box."""
    material: npt.NDArray[np.float32]
    """(N, M), rows of `Material.row`."""
    casts_shadow: npt.NDArray[np.bool_]

    def corners(self) -> Doubles:
        """World corners of the bounding boxes, shape (N, 8, 3)."""
        offsets = self.bound[:, None, :] * _CORNER_SIGNS
        corners: Doubles = self.centre[:, None, :] + np.einsum("nij,nkj->nki", self.rotation, offsets)
        return corners


_CORNER_SIGNS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


def tabulate(solids: Sequence[Solid]) -> SolidTable:
    """Turn solids into arrays."""
    shape = np.array([solid.shape for solid in solids], np.int32)
    half = np.array([solid.half for solid in solids])
    angles = np.array([(solid.yaw, solid.tilt) for solid in solids])
    cos_yaw, cos_tilt = np.cos(angles).T
    sin_yaw, sin_tilt = np.sin(angles).T
    zero = np.zeros(len(solids))
    rotation = np.stack(
        [
            np.stack([cos_yaw * cos_tilt, -sin_yaw, cos_yaw * sin_tilt], -1),
            np.stack([sin_yaw * cos_tilt, cos_yaw, sin_yaw * sin_tilt], -1),
            np.stack([-sin_tilt, zero, cos_tilt], -1),
        ],
        axis=1,
    )
    bound = half.copy()
    is_frustum = shape == Shape.FRUSTUM
    bound[is_frustum, :2] = half[is_frustum, :2].max(axis=1, keepdims=True)
    return SolidTable(
        shape=shape,
        centre=np.array([solid.centre for solid in solids]),
        rotation=rotation,
        half=half,
        bound=bound,
        material=np.array([solid.material.row() for solid in solids], np.float32),
        casts_shadow=np.array([solid.casts_shadow for solid in solids]),
    )
