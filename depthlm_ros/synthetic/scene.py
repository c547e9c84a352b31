"""A finished scene: solids, light, floor shadows, and where a camera can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from depthlm_ros.synthetic.cameras import Floats
from depthlm_ros.synthetic.solids import SolidTable

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lamp:
    """A light: ``position`` in metres, or the direction towards it when ``distant`` (the sun)."""

    position: tuple[float, float, float]
    color: tuple[float, float, float]
    distant: bool = False


@dataclass(frozen=True)
class CameraLook:
    """How the sensor renders radiance; fixed per scene so that successive frames agree."""

    white_balance: tuple[float, float, float]
    target_brightness: float
    """Mean of the linear image that automatic exposure aims at."""
    contrast: float
    vignetting: float
    blur_px: float
    """Gaussian sigma, in pixels of a 128-pixel-wide image."""
    noise: float
    """Standard deviation in a mid-grey, of 255."""


@dataclass(frozen=True)
class Footprint:
    """The rectangle of floor that an object blocks: centre, half sizes (m) and yaw (rad)."""

    x: float
    y: float
    half_x: float
    half_y: float
    yaw: float


@dataclass(frozen=True)
class FloorLight:
    """How much light reaches the floor: 1 is unshadowed.

    Attributes:
        ambient: (K, K) share of ambient light.
        direct: (K, K) share of the main lamp.
        origin: World (x, y) of the first cell's centre.
        cell: Cell size in metres.
    """

    ambient: Floats
    direct: Floats
    origin: tuple[float, float]
    cell: float


@dataclass(frozen=True)
class Scene:
    """A scene in metres, z up, floor at z = 0.

    Attributes:
        kind: ``room``, ``corridor``, ``hall`` or ``yard``.
        solids: Everything that can be seen.
        bounds: (x_min, x_max, y_min, y_max) of the free floor.
        height: Of the ceiling; inf outdoors.
        footprints: What blocks the floor.
        lamps: The first one casts the shadows.
        ambient: Light from everywhere.
        sky: Colours at the horizon and at the zenith.
        floor_light: Shadows on the floor.
        look: The sensor.
    """

    kind: str
    solids: SolidTable
    bounds: tuple[float, float, float, float]
    height: float
    footprints: tuple[Footprint, ...]
    lamps: tuple[Lamp, ...]
    ambient: tuple[float, float, float]
    sky: tuple[tuple[float, float, float], tuple[float, float, float]]
    floor_light: FloorLight
    look: CameraLook

    def clearance(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Doubles:
        """Distance in metres from floor points to the nearest obstacle or wall; negative inside one."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        x_min, x_max, y_min, y_max = self.bounds
        walls: Doubles = np.minimum.reduce([x - x_min, x_max - x, y - y_min, y_max - y])
        if not self.footprints:
            return walls
        blocks = np.array(
            [(f.x, f.y, f.half_x, f.half_y, np.cos(f.yaw), np.sin(f.yaw)) for f in self.footprints]
        )
        nearest: Doubles = np.minimum(walls, rectangle_distance(blocks, x, y).min(-1))
        return nearest


def rectangle_distance(blocks: Doubles, x: Doubles, y: Doubles) -> Doubles:
    """Signed distance from points to rectangles (x, y, half_x, half_y, cos yaw, sin yaw), shape (*points, K)."""
    offset_x, offset_y = x[..., None] - blocks[:, 0], y[..., None] - blocks[:, 1]
    cos_yaw, sin_yaw = blocks[:, 4], blocks[:, 5]
    gap_x = np.abs(cos_yaw * offset_x + sin_yaw * offset_y) - blocks[:, 2]
    gap_y = np.abs(cos_yaw * offset_y - sin_yaw * offset_x) - blocks[:, 3]
    outside = np.hypot(np.maximum(gap_x, 0), np.maximum(gap_y, 0))
    distance: Doubles = outside + np.minimum(np.maximum(gap_x, gap_y), 0)
    return distance


_CELLS = 224


def bake_floor_light(
    table: SolidTable, bounds: tuple[float, float, float, float], lamps: Sequence[Lamp]
) -> FloorLight:
    """Draw shadows and contact occlusion of all solids into a map of the floor.

    A shadow is the convex hull of the corners projected from the lamp, exact for boxes and close for the rest.
    """
    x_min, x_max, y_min, y_max = bounds
    extent = min(max(x_max - x_min, y_max - y_min), 40.0)
    cell = extent / _CELLS
    origin = ((x_min + x_max - extent + cell) / 2, (y_min + y_max - extent + cell) / 2)
    direct = np.ones((_CELLS, _CELLS), np.float32)
    contact = np.ones_like(direct)
    corners = table.corners()[table.casts_shadow]
    if len(corners):
        bottom = corners[..., 2].min(1)
        for outline in _outlines(corners[bottom < 0.6][..., :2], origin, cell):
            cv2.fillConvexPoly(contact, outline, 0.0, shift=4)
        if lamps:
            for outline in _outlines(_projected(corners, lamps[0]), origin, cell):
                cv2.fillConvexPoly(direct, outline, 0.0, shift=4)
    # Close to an object little of the room is visible from the floor; two blurs give contact and surroundings.
    near = cv2.GaussianBlur(contact, (0, 0), max(0.04 / cell, 0.6))
    wide = cv2.GaussianBlur(contact, (0, 0), max(0.25 / cell, 1.0))
    softness = 0.03 if lamps and lamps[0].distant else 0.09
    direct = cv2.GaussianBlur(direct, (0, 0), max(softness / cell, 0.7))
    return FloorLight((0.25 + 0.25 * near + 0.5 * wide).astype(np.float32), direct, origin, cell)


def _projected(corners: Doubles, lamp: Lamp) -> Doubles:
    """Where the shadows of world corners (N, 8, 3) fall on the floor, shape (N, 8, 2)."""
    position = np.array(lamp.position)
    if lamp.distant:
        slanted: Doubles = corners[..., :2] - corners[..., 2:] * (position[:2] / max(position[2], 0.05))
        return slanted
    # Corners above the lamp throw no shadow downwards; lowering them keeps the hull finite.
    height = np.minimum(corners[..., 2:], position[2] - 0.3)
    spread: Doubles = (corners[..., :2] - position[:2]) * (position[2] / (position[2] - height))
    return position[:2] + spread


def _outlines(points: Doubles, origin: tuple[float, float], cell: float) -> list[npt.NDArray[np.int32]]:
    pixels = ((points - np.array(origin)) * (16.0 / cell)).clip(-2e5, 2e5).astype(np.int32)
    return [cv2.convexHull(hull) for hull in pixels]
