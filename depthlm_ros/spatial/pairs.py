"""Pairs of rendered views of one scene with known camera motion."""

from __future__ import annotations

import numpy as np

from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.synthetic import Domain, Intrinsics, View, build_scene, render, sample_intrinsics, trajectory
from depthlm_ros.synthetic.views import Seed

RATE_HZ = 4.0
"""Poses of the drive per second."""
SECONDS = 6.0
"""Length of the drive from which a pair is taken."""
MOST_GAP_S = 2.5
"""Longest time between the two views of a pair."""
MOST_TURN_DEG = 25.0
"""Beyond this, two views share too little."""
NEAREST_M = 0.5
"""Views whose median z-depth is below this show nothing but a wall."""


def sample_pair(
    seed: Seed, domain: Domain, *, intrinsics: Intrinsics | None = None, focal_px: float | None = None
) -> tuple[View, View]:
    """Draw a scene, a camera and a drive from one seed and render two views of it; the same seed, the same bytes.

    The camera drives forward; in a third of the pairs the later view comes first, so that it moves back.

    Args:
        seed: Entropy for `numpy.random.SeedSequence`.
        domain: What to draw.
        intrinsics: A given camera; otherwise one is drawn, see `synthetic.sample_intrinsics`.
        focal_px: Focal length of the drawn camera.
    """
    scene_rng, camera_rng, drive_rng, noise_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)
    )
    camera = intrinsics or sample_intrinsics(camera_rng, domain, focal_px=focal_px)
    while True:
        scene = build_scene(scene_rng, domain)
        try:
            poses = trajectory(drive_rng, scene, domain, int(SECONDS * RATE_HZ), RATE_HZ)
        except ValueError:  # no free spot in this one
            continue
        for _ in range(6):
            gap = int(drive_rng.integers(1, int(MOST_GAP_S * RATE_HZ) + 1))
            start = int(drive_rng.integers(0, len(poses) - gap))
            chosen = [poses[start], poses[start + gap]]
            if drive_rng.random() < 1 / 3:
                chosen.reverse()
            a, b = ((pose.rotation, pose.position) for pose in chosen)
            if CameraMotion.between(a, b).angle > MOST_TURN_DEG:
                continue
            first = render(scene, chosen[0], camera, noise_rng)
            if np.median(first.z_depth) < NEAREST_M or np.isinf(first.z_depth).mean() > 0.6:
                continue
            return first, render(scene, chosen[1], camera, noise_rng)


def pair_motion(first: View, second: View) -> CameraMotion:
    """The exact motion of the camera from one rendered view to the other."""
    a, b = ((view.pose.rotation, view.pose.position) for view in (first, second))
    return CameraMotion.between(a, b)
