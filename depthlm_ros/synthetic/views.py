"""Rendered views: from a seed to an image with exact depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depthlm_ros.synthetic.cameras import Domain, Floats, Intrinsics, Pose, sample_intrinsics
from depthlm_ros.synthetic.layouts import build_scene
from depthlm_ros.synthetic.lighting import flicker
from depthlm_ros.synthetic.optics import develop
from depthlm_ros.synthetic.raycast import Hits, cast
from depthlm_ros.synthetic.scene import Scene
from depthlm_ros.synthetic.shading import shade


@dataclass(frozen=True)
class View:
    """An image with its exact geometry.

    Attributes:
        rgb: (H, W, 3) uint8.
        z_depth: (H, W) float32 metres along the optical axis at pixel centres, inf for sky.
        intrinsics: The camera.
        pose: Where the camera stood.
        kind: The kind of scene.
    """

    rgb: npt.NDArray[np.uint8]
    z_depth: Floats
    intrinsics: Intrinsics
    pose: Pose
    kind: str

    @property
    def range_(self) -> Floats:
        """Euclidean distance along each ray in metres, (H, W) float32."""
        slope_x, slope_y = self.intrinsics.ray_axes()
        distance: Floats = self.z_depth * np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
        return distance


def render(
    scene: Scene, pose: Pose, intrinsics: Intrinsics, rng: np.random.Generator, *, supersample: int = 1
) -> View:
    """Render a scene.

    Args:
        scene: What is there; holds all materials and lights.
        pose: Camera in the world.
        intrinsics: Camera model.
        rng: Drives the sensor noise, nothing else.
        supersample: Rays per pixel and direction for the colours. Depth is always that of the pixel's centre.
    """
    hits = cast(scene.solids, pose, intrinsics)
    return _finish(scene, pose, intrinsics, hits, rng, supersample)


def _finish(
    scene: Scene, pose: Pose, intrinsics: Intrinsics, hits: Hits, rng: np.random.Generator, supersample: int
) -> View:
    fine = hits if supersample == 1 else cast(scene.solids, pose, intrinsics, supersample)
    radiance = shade(scene, fine, pose, intrinsics, supersample)
    rgb = develop(radiance, scene.look, rng, supersample)
    return View(rgb, hits.z_depth, intrinsics, pose, scene.kind)


def sample_pose(rng: np.random.Generator, scene: Scene, domain: Domain) -> Pose:
    """A camera pose in free space, looking where there is something to see.

    ``ROBOT``: 0.3 to 0.5 m above the floor, -5 to 10 degrees down. ``WIDE``: robots of all sizes and hand-held
    cameras, 0.25 to 1.8 m, with more pitch and roll.
    """
    if domain is Domain.ROBOT or rng.random() < 0.35:
        height, pitch, roll = rng.uniform(0.3, 0.5), rng.uniform(-5, 10), np.clip(rng.normal(0, 0.7), -3, 3)
    elif rng.random() < 0.5:
        height, pitch, roll = rng.uniform(0.25, 1.2), rng.uniform(-8, 20), np.clip(rng.normal(0, 1.5), -6, 6)
    else:
        height, pitch, roll = rng.uniform(1.1, 1.8), rng.uniform(-10, 28), np.clip(rng.normal(0, 3), -10, 10)
    x_min, x_max, y_min, y_max = scene.bounds
    spots = rng.uniform((x_min, y_min), (x_max, y_max), (24, 2))
    clearance = scene.clearance(spots[:, 0], spots[:, 1])
    free = np.flatnonzero(clearance > 0.35)
    best = int(free[0]) if len(free) else int(clearance.argmax())
    x, y = spots[best]
    # Looking along the longest free line half of the time: robots mostly face where they can go.
    yaw = rng.uniform(-np.pi, np.pi)
    if rng.random() < 0.5:
        fan = yaw + np.linspace(0, 2 * np.pi, 8, endpoint=False)
        reach = np.arange(0.5, 8.0, 0.5)[:, None]
        blocked = scene.clearance(x + reach * np.cos(fan), y + reach * np.sin(fan)) < 0.1
        run = np.where(blocked.any(0), blocked.argmax(0), len(reach))
        yaw = float(rng.choice(fan[run >= np.sort(run)[-3]])) + rng.normal(0, 0.15)
    return Pose(
        float(x), float(y), float(height), float(yaw), float(np.radians(pitch)), float(np.radians(roll))
    )


Seed = int | Sequence[int]


def sample_view(
    seed: Seed,
    domain: Domain,
    *,
    intrinsics: Intrinsics | None = None,
    focal_px: float | None = None,
    size: tuple[int, int] | None = None,
    fov_deg: float | None = None,
    supersample: int = 1,
) -> View:
    """Draw scene, camera and pose from one seed and render; the same seed gives the same bytes.

    Args:
        seed: Entropy for `numpy.random.SeedSequence`.
        domain: What to draw.
        intrinsics: A given camera; otherwise one is drawn, see `sample_intrinsics`.
        focal_px: Focal length of the drawn camera.
        size: Width and height of the drawn camera.
        fov_deg: Horizontal field of view of the drawn camera.
        supersample: See `render`.
    """
    (view,) = sample_repeats(
        seed, domain, 1, intrinsics=intrinsics, focal_px=focal_px, size=size, fov_deg=fov_deg,
        supersample=supersample,
    )  # fmt: skip
    return view


def sample_repeats(
    seed: Seed,
    domain: Domain,
    count: int,
    *,
    intrinsics: Intrinsics | None = None,
    focal_px: float | None = None,
    size: tuple[int, int] | None = None,
    fov_deg: float | None = None,
    supersample: int = 1,
) -> list[View]:
    """What a camera that stands still sees of a scene in which nothing moves.

    Args:
        seed: See `sample_view`.
        domain: See `sample_view`.
        count: How many pictures to take.
        intrinsics: See `sample_view`.
        focal_px: See `sample_view`.
        size: See `sample_view`.
        fov_deg: See `sample_view`.
        supersample: See `render`.

    Returns:
        ``count`` views of one depth. The first is that of `sample_view`; in the others light and exposure waver, see
        `flicker`, and the sensor noise is drawn anew.
    """
    *fixed, flicker_seed = _streams(seed)
    scene_rng, _, pose_rng, noise_rng = (np.random.default_rng(child) for child in fixed)
    camera = intrinsics or sample_camera(seed, domain, focal_px=focal_px, size=size, fov_deg=fov_deg)
    scene, pose, hits = _draw_shot(scene_rng, pose_rng, camera, domain)
    views = [_finish(scene, pose, camera, hits, noise_rng, supersample)]
    for child in flicker_seed.spawn(count - 1):
        rng = np.random.default_rng(child)
        views.append(_finish(flicker(scene, rng), pose, camera, hits, rng, supersample))
    return views


def sample_camera(
    seed: Seed,
    domain: Domain,
    *,
    focal_px: float | None = None,
    size: tuple[int, int] | None = None,
    fov_deg: float | None = None,
) -> Intrinsics:
    """The camera of :func:`sample_view` with the same arguments, without rendering."""
    rng = np.random.default_rng(_streams(seed)[1])
    return sample_intrinsics(rng, domain, focal_px=focal_px, size=size, fov_deg=fov_deg)


def _streams(seed: Seed) -> list[np.random.SeedSequence]:
    """Seeds of what draws scene, camera, pose, sensor noise and flicker."""
    return np.random.SeedSequence(seed).spawn(5)


def _draw_shot(
    scene_rng: np.random.Generator, pose_rng: np.random.Generator, camera: Intrinsics, domain: Domain
) -> tuple[Scene, Pose, Hits]:
    while True:
        scene = build_scene(scene_rng, domain)
        # Robots do end up in front of walls: a few such views stay in.
        close_up, dull = pose_rng.random() < 0.03, pose_rng.random() < 0.2
        for _ in range(6):
            pose = sample_pose(pose_rng, scene, domain)
            hits = cast(scene.solids, pose, camera)
            if _is_worth_keeping(hits.z_depth, domain, close_up=close_up, dull=dull):
                return scene, pose, hits


def _is_worth_keeping(z_depth: Floats, domain: Domain, *, close_up: bool, dull: bool) -> bool:
    """Whether a view shows more than sky, something right at the lens, or (unless ``dull``) one flat wall."""
    if np.isinf(z_depth).mean() > 0.6 or z_depth.min() < 0.1:
        return False
    if close_up:
        return True
    near_limit, median_limit = (0.7, 1.0) if domain is Domain.ROBOT else (0.5, 0.9)
    near_share = float((z_depth < near_limit).mean())
    near, median, far = np.percentile(z_depth[::3, ::3], (10, 50, 90), method="lower")
    return near_share <= 0.2 and bool(median >= median_limit) and (dull or bool(far > 1.7 * near))
