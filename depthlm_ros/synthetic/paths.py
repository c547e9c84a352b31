"""Smooth, collision-free drives through a scene, for demonstrations."""

from __future__ import annotations

import numpy as np

from depthlm_ros.synthetic.cameras import Domain, Pose
from depthlm_ros.synthetic.scene import Scene
from depthlm_ros.synthetic.views import sample_pose

SPEED = 0.5
"""Cruising speed in m/s."""
MAX_TURN_RATE = 0.7
"""rad/s."""
CLEARANCE = 0.3
"""Metres kept between the camera and everything that stands on the floor."""

_HORIZON_S = 4.0
_STEPS_AHEAD = 16


def trajectory(
    rng: np.random.Generator, scene: Scene, domain: Domain, frames: int, rate: float
) -> list[Pose]:
    """Drive a robot's camera through a scene.

    A unicycle picks, at each frame, the turn rate whose arc over the next seconds stays clear longest (the dynamic
    window approach of Fox, Burgard and Thrun, 1997); where all arcs end too soon it slows down and turns on the spot.

    Args:
        rng: Source of randomness.
        scene: Where to drive.
        domain: Gives height, pitch and roll of the camera, which stay constant.
        frames: Number of poses.
        rate: Frames per second.

    Returns:
        One pose per frame, each at least `CLEARANCE` away from walls and objects.

    Raises:
        ValueError: The scene has no free spot of that clearance, or ``frames`` or ``rate`` is not positive.
    """
    if frames < 1 or rate <= 0:
        raise ValueError(f"frames and rate must be positive, got frames={frames}, rate={rate}")
    pose = _start(rng, scene, domain)
    x, y, yaw, speed, turn = pose.x, pose.y, pose.yaw, 0.0, 0.0
    step = 1.0 / rate
    smoothing = min(1.0, step / 0.4)
    wander = 0.0
    poses = []
    for _ in range(frames):
        poses.append(Pose(x, y, pose.z, yaw, pose.pitch, pose.roll))
        wander += (-wander * 0.3 + rng.normal(0, 0.15)) * step**0.5
        wanted_turn, wanted_speed = _steer(scene, x, y, yaw, turn, wander)
        turn += (wanted_turn - turn) * smoothing
        speed += (wanted_speed - speed) * smoothing
        yaw += turn * step
        next_x, next_y = x + speed * step * np.cos(yaw), y + speed * step * np.sin(yaw)
        if scene.clearance(next_x, next_y) > CLEARANCE:
            x, y = float(next_x), float(next_y)
        else:
            speed = 0.0
    return poses


def _start(rng: np.random.Generator, scene: Scene, domain: Domain) -> Pose:
    for _ in range(50):
        pose = sample_pose(rng, scene, domain)
        if scene.clearance(pose.x, pose.y) > CLEARANCE:
            return pose
    raise ValueError(f"this {scene.kind} has no spot with {CLEARANCE} m of clearance; build another one")


def _steer(scene: Scene, x: float, y: float, yaw: float, turn: float, wander: float) -> tuple[float, float]:
    """The turn rate and speed to aim at."""
    rates = np.linspace(-MAX_TURN_RATE, MAX_TURN_RATE, 15)
    seconds = np.linspace(_HORIZON_S / _STEPS_AHEAD, _HORIZON_S, _STEPS_AHEAD)
    # Arcs flatten out after a while, otherwise tight turns would only ever see their own circle.
    bend = np.minimum(seconds, 2.0)
    headings = yaw + rates[:, None] * bend
    stride = 1.5 * SPEED * seconds[0]
    arc_x = x + np.cumsum(np.cos(headings), axis=1) * stride
    arc_y = y + np.cumsum(np.sin(headings), axis=1) * stride
    margin = scene.clearance(arc_x, arc_y) - CLEARANCE
    blocked = margin < 0.05
    free_steps = np.where(blocked.any(1), blocked.argmax(1), _STEPS_AHEAD)
    room = np.clip(margin.min(1), 0, 0.6)
    score = (
        free_steps / _STEPS_AHEAD + 0.4 * room - 0.1 * np.abs(rates - turn) - 0.15 * np.abs(rates - wander)
    )
    best = int(score.argmax())
    if free_steps[best] < 3:
        # Boxed in: keep turning the way we were, or dithering would never end.
        return (MAX_TURN_RATE if turn >= 0 else -MAX_TURN_RATE), 0.0
    return float(rates[best]), SPEED * min(1.0, float(free_steps[best]) / 8.0)
