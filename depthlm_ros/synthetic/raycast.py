"""Exact first hits of camera rays with solids.

Rays are parametrised so that the parameter *is* the z-depth: direction (x/z, y/z, 1) in the optical frame. In the
frame of a solid each direction component is then an affine function of column and row, so no ray is ever stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depthlm_ros.synthetic.cameras import Floats, Intrinsics, Pose
from depthlm_ros.synthetic.solids import Shape, SolidTable

NEAR = 0.02
"""Metres; nothing nearer to the camera is drawn."""


@dataclass(frozen=True)
class Hits:
    """What each ray meets first.

    Attributes:
        z_depth: (H, W) metres along the optical axis, inf where a ray meets nothing.
        solid: (H, W) index of the solid met; 0 where there is none.
        slope_x: (1, W) x/z of the columns.
        slope_y: (H, 1) y/z of the rows.
        into_solid: (N, 3, 3) optical frame to the frame of each solid.
        origin: (N, 3) camera centre in the frame of each solid.
    """

    z_depth: Floats
    solid: npt.NDArray[np.int32]
    slope_x: Floats
    slope_y: Floats
    into_solid: Floats
    origin: Floats


def cast(table: SolidTable, pose: Pose, intrinsics: Intrinsics, supersample: int = 1) -> Hits:
    """Find the first solid along each ray and its z-depth."""
    slope_x, slope_y = intrinsics.ray_axes(supersample)
    into_solid = np.einsum("nji,jk->nik", table.rotation, pose.rotation)
    origin = np.einsum("nji,nj->ni", table.rotation, pose.position - table.centre)
    z_depth = np.full((slope_y.size, slope_x.size), np.inf, np.float32)
    solid = np.zeros(z_depth.shape, np.int32)
    windows = _screen_windows(table, pose, slope_x[0], slope_y[:, 0])
    # Scalars that meet float32 arrays must be Python floats, or NumPy 1 and 2 disagree on the result's dtype.
    directions, origins, halves = into_solid.tolist(), origin.tolist(), table.half.tolist()
    shapes = table.shape.tolist()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for index, nearest, top, bottom, left, right in windows:
            best = z_depth[top:bottom, left:right]
            if nearest >= best.max():
                continue
            # Keeps rays that run exactly parallel to a face from 0 / 0; far below float32 resolution of a hit.
            local = [
                (row[0] * slope_x[:, left:right]) + (row[1] * slope_y[top:bottom] + (row[2] + 1e-7))
                for row in directions[index]
            ]
            found = _FIRST_HIT[shapes[index]](origins[index], local, halves[index])
            closer = found < best
            np.copyto(best, found, where=closer)
            np.copyto(solid[top:bottom, left:right], index, where=closer)
    return Hits(z_depth, solid, slope_x, slope_y, into_solid.astype(np.float32), origin.astype(np.float32))


def _screen_windows(
    table: SolidTable, pose: Pose, slopes_x: Floats, slopes_y: Floats
) -> list[tuple[int, float, int, int, int, int]]:
    """Conservative pixel windows (solid, nearest z, top, bottom, left, right) of visible solids, nearest first."""
    corners = (table.corners() - pose.position) @ pose.rotation
    across, along, ahead = corners[..., 0], corners[..., 1], corners[..., 2]
    low_x, high_x, low_y, high_y = slopes_x[0], slopes_x[-1], slopes_y[0], slopes_y[-1]
    outside = (
        (ahead < NEAR).all(1)
        | (across < low_x * ahead).all(1)
        | (across > high_x * ahead).all(1)
        | (along < low_y * ahead).all(1)
        | (along > high_y * ahead).all(1)
    )
    crosses_camera = (ahead < NEAR).any(1)
    safe = np.maximum(ahead, NEAR)
    x, y = across / safe, along / safe
    left = np.searchsorted(slopes_x, np.where(crosses_camera, low_x, x.min(1)), "left")
    right = np.searchsorted(slopes_x, np.where(crosses_camera, high_x, x.max(1)), "right")
    top = np.searchsorted(slopes_y, np.where(crosses_camera, low_y, y.min(1)), "left")
    bottom = np.searchsorted(slopes_y, np.where(crosses_camera, high_y, y.max(1)), "right")
    # One pixel of slack: rounding must never cut a silhouette.
    left, top = np.maximum(left - 1, 0), np.maximum(top - 1, 0)
    right, bottom = np.minimum(right + 1, slopes_x.size), np.minimum(bottom + 1, slopes_y.size)
    nearest = np.maximum(ahead.min(1), 0.0)
    keep = np.flatnonzero(~outside & (left < right) & (top < bottom))
    keep = keep[np.argsort(nearest[keep], kind="stable")]
    columns = (keep, nearest[keep], top[keep], bottom[keep], left[keep], right[keep])
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _box(origin: list[float], direction: list[Floats], half: list[float]) -> Floats:
    """Slab test."""
    enter = leave = np.empty(0, np.float32)
    for axis in range(3):
        inverse = 1.0 / direction[axis]
        middle = inverse * -origin[axis]
        reach = np.abs(inverse) * half[axis]
        low, high = middle - reach, middle + reach
        enter = low if axis == 0 else np.maximum(enter, low)
        leave = high if axis == 0 else np.minimum(leave, high)
    return np.where((enter <= leave) & (enter > NEAR), enter, np.float32(np.inf))


def _frustum(origin: list[float], direction: list[Floats], half: list[float]) -> Floats:
    """Cone mantle by the quadratic formula, and the one cap that can face the camera."""
    bottom_radius, top_radius, half_height = half
    slope = (top_radius - bottom_radius) / (2 * half_height)
    radius_here = (top_radius + bottom_radius) / 2 + slope * origin[2]
    across, along, up = direction
    a = across * across + along * along - (slope * slope) * (up * up)
    b = across * origin[0] + along * origin[1] - (slope * radius_here) * up
    c = origin[0] ** 2 + origin[1] ** 2 - radius_here**2
    root = np.sqrt(b * b - a * c)
    found = np.full(a.shape, np.inf, np.float32)
    for sign in (-1.0, 1.0):
        t = (sign * root - b) / a
        # On the mirrored cone beyond the apex the radius would be negative; |z| excludes it.
        valid = (t > NEAR) & (np.abs(origin[2] + t * up) <= half_height)
        found = np.where(valid, np.minimum(found, t), found)
    if abs(origin[2]) > half_height:
        cap, radius = (half_height, top_radius) if origin[2] > 0 else (-half_height, bottom_radius)
        t = (cap - origin[2]) / up
        x, y = origin[0] + t * across, origin[1] + t * along
        valid = (t > NEAR) & (x * x + y * y <= radius**2)
        found = np.where(valid, np.minimum(found, t), found)
    return found.astype(np.float32, copy=False)


def _ellipsoid(origin: list[float], direction: list[Floats], half: list[float]) -> Floats:
    """Unit sphere after scaling the axes."""
    scaled = [component * (1.0 / size) for component, size in zip(direction, half, strict=True)]
    start = [value / size for value, size in zip(origin, half, strict=True)]
    a = scaled[0] * scaled[0] + scaled[1] * scaled[1] + scaled[2] * scaled[2]
    b = scaled[0] * start[0] + scaled[1] * start[1] + scaled[2] * start[2]
    c = start[0] ** 2 + start[1] ** 2 + start[2] ** 2 - 1.0
    t = (-b - np.sqrt(b * b - a * c)) / a
    found: Floats = np.where(t > NEAR, t, np.float32(np.inf))
    return found


_FIRST_HIT = {Shape.BOX: _box, Shape.FRUSTUM: _frustum, Shape.ELLIPSOID: _ellipsoid}
