"""How a camera moved from one image to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation  # type: ignore[import-untyped,unused-ignore]

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CameraMotion:
    """The second camera's pose in the first one's optical frame (x right, y down, z forward; REP 103).

    Attributes:
        translation: Position of the second camera in metres, shape (3,).
        rotation: Rotation vector in degrees, shape (3,): the second camera's axes are the first one's, turned
            about this axis by its length, right-handed. A turn to the right is a rotation about +y.
    """

    translation: Vector
    rotation: Vector

    def __post_init__(self) -> None:
        for name in ("translation", "rotation"):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if value.shape != (3,):
                raise ValueError(f"{name}: expected 3 numbers, got shape {value.shape}")
            object.__setattr__(self, name, value)

    @classmethod
    def unknown(cls) -> CameraMotion:
        """All NaN."""
        return cls(np.full(3, np.nan), np.full(3, np.nan))

    @classmethod
    def between(
        cls,
        first: tuple[npt.ArrayLike, npt.ArrayLike],
        second: tuple[npt.ArrayLike, npt.ArrayLike],
    ) -> CameraMotion:
        """The motion from one pose to another.

        Args:
            first: Rotation matrix from the optical frame into the world, shape (3, 3), and position in the world
                in metres, shape (3,), of the first camera.
            second: The same of the second camera.
        """
        (before, start), (after, end) = ((np.asarray(r), np.asarray(p)) for r, p in (first, second))
        turn = Rotation.from_matrix(before.T @ after).as_rotvec(degrees=True)
        return cls(before.T @ (end - start), turn)

    @property
    def distance(self) -> float:
        """Metres that the camera moved."""
        return float(np.linalg.norm(self.translation))

    @property
    def angle(self) -> float:
        """Degrees that the camera turned, 0 to 180."""
        return float(np.linalg.norm(self.rotation))

    def translation_error(self, truth: CameraMotion) -> float:
        """Metres between this position of the second camera and the true one."""
        return float(np.linalg.norm(self.translation - truth.translation))

    def rotation_error(self, truth: CameraMotion) -> float:
        """Degrees between this orientation of the second camera and the true one; NaN where unknown."""
        if not np.isfinite(self.rotation).all():
            return float("nan")
        return float(np.degrees((_turn(truth).inv() * _turn(self)).magnitude()))


def _turn(motion: CameraMotion) -> Rotation:
    return Rotation.from_rotvec(motion.rotation, degrees=True)
