"""From hits to linear radiance: deferred, all pixels of the image at once."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from depthlm_ros.synthetic import texture
from depthlm_ros.synthetic.cameras import Floats, Intrinsics, Pose
from depthlm_ros.synthetic.raycast import Hits
from depthlm_ros.synthetic.scene import Lamp, Scene
from depthlm_ros.synthetic.solids import Shape


@dataclass(frozen=True)
class Surface:
    """Geometry of the visible surfaces; arrays are (H, W) or (3, H, W)."""

    normal: Floats
    """Outward, optical frame."""
    u: Floats
    v: Floats
    """Metres along the surface."""
    footprint_u: Floats
    footprint_v: Floats
    """Metres that one pixel covers."""
    to_edge: Floats
    """Metres to the nearest edge of a box face; large on curved solids."""


def surface(scene: Scene, hits: Hits, depth: Floats, intrinsics: Intrinsics, supersample: int) -> Surface:
    """Derive normals, surface coordinates and pixel footprints from the hits."""
    shape = scene.solids.shape[hits.solid]
    into = _per_pixel(hits.into_solid.reshape(-1, 9), hits)
    origin = _per_pixel(hits.origin, hits)
    half = _per_pixel(scene.solids.half.astype(np.float32), hits)
    ray = np.stack(
        [into[3 * k] * hits.slope_x + into[3 * k + 1] * hits.slope_y + into[3 * k + 2] for k in range(3)]
    )
    point = ray * depth + origin

    is_box = shape == Shape.BOX
    margin = np.abs(point) - half
    face = margin.argmax(0)
    on_x, on_z = face == 0, face == 2
    local = np.zeros_like(point)
    for axis in range(3):
        local[axis] = np.where(face == axis, np.sign(point[axis]), 0)
    u = np.where(on_x, point[1], point[0])
    v = np.where(on_z, point[1], point[2])
    edge_u = np.where(on_x, margin[1], margin[0])
    edge_v = np.where(on_z, margin[1], margin[2])
    to_edge = -np.maximum(edge_u, edge_v)
    curved = np.flatnonzero(~is_box)
    if curved.size:
        _flat(local)[:, curved], (u.flat[curved], v.flat[curved]) = _curved(
            _flat(point)[:, curved], _flat(half)[:, curved], shape.flat[curved] == Shape.ELLIPSOID
        )
        to_edge.flat[curved] = 9.0

    normal = np.stack(
        [into[k] * local[0] + into[3 + k] * local[1] + into[6 + k] * local[2] for k in range(3)]
    )
    facing = normal[0] * hits.slope_x + normal[1] * hits.slope_y + normal[2]
    facing = np.minimum(facing, -1e-3)
    footprint_u = np.zeros_like(depth)
    footprint_v = np.zeros_like(depth)
    for column, focal in ((0, intrinsics.fx), (1, intrinsics.fy)):
        # How the hit moves on its tangent plane when the ray moves by one pixel in this image direction.
        slide = normal[column] / facing
        scale = depth * (1.0 / (focal * supersample))
        step = [np.abs(into[3 * k + column] - ray[k] * slide) * scale for k in range(3)]
        footprint_u += np.where(is_box, np.where(on_x, step[1], step[0]), np.maximum(step[0], step[1]))
        footprint_v += np.where(is_box & on_z, step[1], step[2])
    return Surface(normal, u, v, footprint_u, footprint_v, to_edge)


def _flat(images: Floats) -> Floats:
    """The same memory as (C, H * W): NumPy picks single pixels several times faster by one index than by a mask."""
    return images.reshape(len(images), -1)


def _per_pixel(rows: Floats, hits: Hits) -> Floats:
    """Rows (N, C) of the solid that each pixel shows, as C images: (C, H, W)."""
    images: Floats = np.take(np.ascontiguousarray(rows.T), hits.solid, axis=1)
    return images


def _curved(
    point: Floats, half: Floats, is_ellipsoid: npt.NDArray[np.bool_]
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Local normals and (u, v) of frustums and ellipsoids."""
    x, y, z = point
    radius = np.sqrt(x * x + y * y) + np.float32(1e-9)
    slope = (half[1] - half[0]) / (2 * half[2])
    on_cap = ~is_ellipsoid & (np.abs(z) >= half[2] * (1 - 1e-4))
    mantle = np.stack([x / radius, y / radius, -slope])
    cap = np.stack([np.zeros_like(x), np.zeros_like(x), np.sign(z)])
    quadric = point / (half * half)
    normal = np.where(is_ellipsoid, quadric, np.where(on_cap, cap, mantle))
    normal /= np.sqrt((normal * normal).sum(0)) + np.float32(1e-9)
    angle = np.arctan2(y, x)
    u = np.where(on_cap, x, angle * (half[0] + half[1]) * 0.5)
    v = np.where(on_cap, y, z)
    return normal, (u, v)


def shade(scene: Scene, hits: Hits, pose: Pose, intrinsics: Intrinsics, supersample: int) -> Floats:
    """Linear radiance, shape (H, W, 3)."""
    is_sky = np.isinf(hits.z_depth)
    depth = np.where(is_sky, np.float32(50.0), hits.z_depth)
    seen = surface(scene, hits, depth, intrinsics, supersample)
    material = texture.PixelMaterials(scene.solids.material, hits.solid)
    albedo = texture.albedo(material, seen.u, seen.v, seen.footprint_u, seen.footprint_v)

    rotation = pose.rotation.astype(np.float32)
    position = np.stack([hits.slope_x * depth, hits.slope_y * depth, depth])
    world = np.einsum("ij,jhw->ihw", rotation, position)
    world += pose.position.astype(np.float32)[:, None, None]
    up = rotation[2, 0] * seen.normal[0] + rotation[2, 1] * seen.normal[1] + rotation[2, 2] * seen.normal[2]

    corner = 1.0 - material["corner_occlusion"] * np.exp(seen.to_edge * np.float32(-1 / 0.25))
    # Nothing lies far below the floor but the stand-in for the sky, which would overflow.
    low = 1.0 - 0.35 * np.exp(np.clip(world[2], -3.0, 3.0) * -6.0) * (material["corner_occlusion"] == 0)
    ambient_share = corner * low * (0.8 + 0.2 * up)
    direct_share = np.ones_like(depth)
    _apply_floor_light(scene, world, up, ambient_share, direct_share)

    light = ambient_share * np.array(scene.ambient, np.float32)[:, None, None]
    distance = np.sqrt((position * position).sum(0))
    glossy = np.flatnonzero(material["gloss"])
    sight = _flat(position)[:, glossy] / distance.flat[glossy]
    facing, gloss = _flat(seen.normal)[:, glossy], material["gloss"].flat[glossy]
    for index, lamp in enumerate(scene.lamps):
        share = direct_share if index == 0 else corner
        towards, strength = _lamp_light(lamp, rotation, pose, position, seen.normal)
        strength.flat[glossy] *= _highlight(_flat(towards)[:, glossy], sight, facing, gloss)
        light += strength * np.array(lamp.color, np.float32)[:, None, None] * share
    radiance = albedo * (light + material["emission"])
    if np.isinf(scene.height):
        haze = 1.0 - np.exp(distance * np.float32(-1 / 220.0))
        radiance += (np.array(scene.sky[0], np.float32)[:, None, None] - radiance) * haze
    if is_sky.any():
        radiance = np.where(
            is_sky, _sky(scene, world - pose.position.astype(np.float32)[:, None, None]), radiance
        )
    image: Floats = cv2.merge(list(radiance))
    return image


def _apply_floor_light(scene: Scene, world: Floats, up: Floats, ambient: Floats, direct: Floats) -> None:
    """Multiply the shadow map into the shares of light of all floor pixels, in place."""
    floor = (world[2] < 0.01) & (up > 0.9)
    if not floor.any():
        return
    baked = scene.floor_light
    map_x = (world[0] - baked.origin[0]) * (1.0 / baked.cell)
    map_y = (world[1] - baked.origin[1]) * (1.0 / baked.cell)
    for share, lightmap in ((ambient, baked.ambient), (direct, baked.direct)):
        sampled = cv2.remap(
            lightmap, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=1.0
        )
        np.multiply(share, sampled, out=share, where=floor)


def _lamp_light(
    lamp: Lamp, rotation: Floats, pose: Pose, position: Floats, normal: Floats
) -> tuple[Floats, Floats]:
    """Direction towards one lamp, (3, H, W), and its diffuse light before its colour, (H, W)."""
    target = np.array(lamp.position, np.float32)
    if lamp.distant:
        towards = (rotation.T @ target)[:, None, None]
        return np.broadcast_to(towards, normal.shape), np.maximum((normal * towards).sum(0), 0)
    offset = (rotation.T @ (target - pose.position.astype(np.float32)))[:, None, None] - position
    squared = (offset * offset).sum(0)
    towards = offset / np.sqrt(squared)
    cosine = np.maximum((normal * towards).sum(0), 0)
    # Lamps have extent: nearby surfaces do not burn out, and light wraps a little around objects.
    return towards, (cosine * 0.92 + 0.08) * (7.0 / (2.5 + squared))


def _highlight(towards: Floats, sight: Floats, normal: Floats, gloss: Floats) -> Floats:
    """How much brighter K glossy pixels are than diffuse ones; all directions are (3, K)."""
    # Blinn-Phong with the half vector between the lamp and the camera (which is against the line of sight).
    middle = towards - sight
    shine = np.maximum((normal * middle).sum(0), 0) ** 2 / np.maximum((middle * middle).sum(0), 1e-6)
    factor: Floats = 1.0 + gloss * 4.0 * shine**16
    return factor


def _sky(scene: Scene, direction: Floats) -> Floats:
    """Gradient with clouds, looked up by direction."""
    elevation = direction[2] / np.sqrt((direction * direction).sum(0))
    horizon, zenith = (np.array(color, np.float32)[:, None, None] for color in scene.sky)
    height = np.clip(elevation, 0.02, 1.0)
    cloud_x, cloud_y = direction[0] / (50 * height), direction[1] / (50 * height)
    cloud = (
        texture.noise(cloud_x * 0.5, cloud_y * 0.5) * 0.6 + texture.noise(cloud_x * 1.3, cloud_y * 1.3) * 0.4
    )
    blend = horizon + (zenith - horizon) * np.sqrt(height)
    clouded: Floats = blend * (1.0 + 0.15 * cloud * np.minimum(height * 4, 1.0))
    return clouded
