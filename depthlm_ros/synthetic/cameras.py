"""Where a synthetic camera stands and how it projects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Domain(Enum):
    """What the images are meant to look like."""

    ROBOT = "robot"
    """A small indoor robot: camera 0.3 to 0.5 m above the floor, nearly level."""
    WIDE = "wide"
    """Any robot or hand-held camera, indoors and outdoors."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole without distortion; pixels, the centre of the top-left pixel is (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.fx <= 0 or self.fy <= 0 or self.width <= 0 or self.height <= 0:
            raise ValueError(f"focal lengths and size must be positive, got {self}")

    def ray_axes(self, supersample: int = 1) -> tuple[Floats, Floats]:
        """Ray slopes x/z of the columns, shape (1, W*s), and y/z of the rows, shape (H*s, 1)."""
        sub = (np.arange(supersample) + 0.5) / supersample - 0.5
        columns = (np.arange(self.width)[:, None] + sub).reshape(1, -1)
        rows = (np.arange(self.height)[:, None] + sub).reshape(-1, 1)
        slopes_x = (columns - self.cx) / self.fx
        slopes_y = (rows - self.cy) / self.fy
        return slopes_x.astype(np.float32), slopes_y.astype(np.float32)


@dataclass(frozen=True)
class Pose:
    """A camera in the world: metres, z up, floor at z = 0; radians.

    ``yaw`` turns about z (0 looks along +x), positive ``pitch`` is nose down, positive ``roll`` is right side down.
    """

    x: float
    y: float
    z: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    @property
    def position(self) -> npt.NDArray[np.float64]:
        """Camera centre in the world, shape (3,)."""
        return np.array([self.x, self.y, self.z])

    @property
    def rotation(self) -> npt.NDArray[np.float64]:
        """Optical frame to world, shape (3, 3); the columns are right, down and forward."""
        cos_yaw, sin_yaw = np.cos(self.yaw), np.sin(self.yaw)
        cos_pitch, sin_pitch = np.cos(self.pitch), np.sin(self.pitch)
        forward = np.array([cos_pitch * cos_yaw, cos_pitch * sin_yaw, -sin_pitch])
        level_right = np.array([sin_yaw, -cos_yaw, 0.0])
        level_down = np.cross(forward, level_right)
        right = np.cos(self.roll) * level_right + np.sin(self.roll) * level_down
        down = np.cos(self.roll) * level_down - np.sin(self.roll) * level_right
        return np.stack([right, down, forward], axis=1)


# Common video modes, so that rendered benchmarks meet the aspect ratios of real cameras.
_VIDEO_MODES = ((320, 240), (424, 240), (480, 270), (480, 360), (640, 360), (640, 480))


def sample_intrinsics(
    rng: np.random.Generator,
    domain: Domain,
    *,
    focal_px: float | None = None,
    size: tuple[int, int] | None = None,
    fov_deg: float | None = None,
) -> Intrinsics:
    """Draw a camera. What is given is taken, the rest varies; the draws are the same either way.

    Args:
        rng: Source of randomness.
        domain: ``WIDE`` varies the field of view more: 45 to 90 degrees instead of 52 to 82.
        focal_px: When given, fx = fy = ``focal_px`` and the size is what such a canonical view has: multiples of
            16, between 96x64 and 208x144 for 112 px. Otherwise a common video mode with a varied field of view.
        size: Width and height in pixels.
        fov_deg: Horizontal field of view in degrees.

    Raises:
        ValueError: Both ``focal_px`` and ``fov_deg`` are given.
    """
    if focal_px is not None and fov_deg is not None:
        raise ValueError(f"expected focal_px or fov_deg, got both: {focal_px} px and {fov_deg} degrees")
    if focal_px is not None:
        unit = focal_px / 112.0
        # Width over focal length is the field of view: mostly 55 to 75 degrees, now and then narrower or wider.
        width = _multiple_of_16(unit * np.clip(rng.normal(144, 26), 96, 208))
        aspect = rng.choice([4 / 3, 16 / 9, 16 / 10, 1.0], p=[0.5, 0.25, 0.2, 0.05])
        height = _multiple_of_16(np.clip(width / aspect, 64 * unit, 144 * unit))
        width, height = size or (width, height)
        fx = fy = float(focal_px)
    else:
        mode = _VIDEO_MODES[rng.integers(len(_VIDEO_MODES))]
        width, height = size or mode
        low, high = (52.0, 82.0) if domain is Domain.ROBOT else (45.0, 90.0)
        drawn = rng.uniform(low, high)
        fx = float(width / (2 * np.tan(np.radians(drawn if fov_deg is None else fov_deg) / 2)))
        fy = float(fx * (1.0 if rng.random() < 0.6 else rng.uniform(0.99, 1.01)))
    cx = (width - 1) / 2 + rng.normal(0, 0.012) * width
    cy = (height - 1) / 2 + rng.normal(0, 0.012) * height
    return Intrinsics(fx, fy, float(cx), float(cy), int(width), int(height))


def _multiple_of_16(value: float) -> int:
    return max(16, round(value / 16) * 16)
