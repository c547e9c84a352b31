"""The pinhole camera of an image: intrinsics as the image has them, and rectification with cached maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from depthlm_ros.engines.base import RgbImage

Matrix = npt.NDArray[np.float64]

_COEFFICIENTS = {
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
    "fisheye": (4,),
    "": (0,),
}
"""Numbers of distortion coefficients that each ROS distortion model takes."""

_FISHEYE = ("equidistant", "fisheye")

_MAX_SIDE = 32767
"""OpenCV's remap refuses larger images."""

_ROUNDING_PX = 1e-3
"""Maps are float32; a raw position this far outside still counts as on the border."""


class CameraError(ValueError):
    """A calibration cannot be used; the message says which value, and what to do."""


@dataclass(frozen=True, eq=False)
class PinholeCamera:
    """A calibrated camera, in the pixels of the image that it comes with (binning and ROI applied).

    A raw image is undistorted with K and D into the camera of P (REP 104's rectified image), or of K where P is
    all zero. A rectified image is that of P already. ``fx`` to ``cy`` are always those of the rectified image.

    Attributes:
        width: Image width in pixels.
        height: Image height in pixels.
        k: Intrinsics of the raw image, shape (3, 3).
        d: Distortion coefficients in OpenCV's order; none where the image is not distorted.
        model: ROS name of the distortion model.
        r: Rectifying rotation, shape (3, 3).
        p: Projection of the rectified image, shape (3, 4).
        rectified: Whether images that come with it are rectified already.
    """

    width: int
    height: int
    k: Matrix
    d: Matrix
    model: str
    r: Matrix
    p: Matrix
    rectified: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if not 1 <= value <= _MAX_SIDE or value != int(value):
                raise CameraError(f"{name}: expected 1 to {_MAX_SIDE} whole px, got {value}")
        for name, shape in (("k", (3, 3)), ("r", (3, 3)), ("p", (3, 4))):
            value = np.array(getattr(self, name), dtype=np.float64)
            if value.size != shape[0] * shape[1]:
                raise CameraError(f"{name.upper()}: expected {shape[0] * shape[1]} numbers, got {value.size}")
            object.__setattr__(self, name, _finite(name.upper(), value.reshape(shape)))
        object.__setattr__(self, "d", _finite("D", np.array(self.d, dtype=np.float64).ravel()))
        if not self.r.any():
            object.__setattr__(self, "r", np.eye(3))
        if not self.p.any():
            object.__setattr__(self, "p", np.hstack([self.k, np.zeros((3, 1))]))
        if self.rectified and not self.k.any():
            object.__setattr__(self, "k", self.p[:, :3].copy())
        self._check_intrinsics("K", self.k)
        self._check_intrinsics("P", self.p[:, :3])
        if not self.rectified:
            self._check_distortion()
        if not self._fisheye and not self.d.any():
            object.__setattr__(self, "d", np.zeros(0))  # OpenCV takes only some numbers of zeros
        if np.abs(self.r).max() > 2.0 or not np.allclose(self.r @ self.r.T, np.eye(3), atol=1e-2):
            raise CameraError(f"R: expected a rotation matrix, got {self.r.tolist()}: calibrate again")

    @classmethod
    def from_intrinsics(
        cls, fx: float, fy: float, cx: float, cy: float, width: int, height: int
    ) -> PinholeCamera:
        """A camera without distortion.

        Args:
            fx: Focal length along u in pixels.
            fy: Focal length along v in pixels.
            cx: Principal point's column, the centre of the left column being 0.
            cy: Principal point's row, the centre of the top row being 0.
            width: Image width in pixels.
            height: Image height in pixels.

        Raises:
            CameraError: A value is zero, negative, not finite or absurd.
        """
        k = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        return cls(width, height, k, np.zeros(0), "", np.eye(3), np.zeros((3, 4)), rectified=True)

    @property
    def fx(self) -> float:
        """Focal length along u of the rectified image, in pixels."""
        return float(self.p[0, 0])

    @property
    def fy(self) -> float:
        """Focal length along v of the rectified image, in pixels."""
        return float(self.p[1, 1])

    @property
    def cx(self) -> float:
        """Principal point's column in the rectified image, in pixels."""
        return float(self.p[0, 2])

    @property
    def cy(self) -> float:
        """Principal point's row in the rectified image, in pixels."""
        return float(self.p[1, 2])

    def rectify(self, image: RgbImage) -> RgbImage:
        """Bring an image that came with this camera into the rectified view.

        Args:
            image: Shape (height, width, 3), dtype uint8.

        Returns:
            The rectified image of the same shape; the image itself where nothing is to be done. Where the
            raw image has nothing to show, it is black and :meth:`visible` is false.

        Raises:
            CameraError: The image's size is not the camera's, or OpenCV cannot rectify by this calibration.
        """
        if image.shape[:2] != (self.height, self.width):
            raise CameraError(
                f"the image is {image.shape[1]}x{image.shape[0]} but its CameraInfo says "
                f"{self.width}x{self.height}: publish the CameraInfo of this image (binning and ROI included)"
            )
        if self._maps is None:
            return image
        try:
            return np.asarray(cv2.remap(image, *self._maps, cv2.INTER_LINEAR), dtype=np.uint8)
        except cv2.error as error:
            raise _unusable(error) from error

    def visible(self, uv: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Say which rectified pixels the raw image shows.

        Args:
            uv: Rectified pixels, shape (..., 2), integers.

        Returns:
            Booleans of shape (...); false outside the image and where undistortion left it black.

        Raises:
            CameraError: OpenCV cannot rectify by this calibration.
        """
        points = np.asarray(uv, dtype=np.int64)
        inside = np.all((points >= 0) & (points < (self.width, self.height)), axis=-1)
        if self._maps is None:
            return np.asarray(inside, dtype=np.bool_)
        u = np.clip(points[..., 0], 0, self.width - 1)
        v = np.clip(points[..., 1], 0, self.height - 1)
        raw_u, raw_v = self._maps[0][v, u], self._maps[1][v, u]
        right, bottom = self.width - 1 + _ROUNDING_PX, self.height - 1 + _ROUNDING_PX
        shown = (raw_u >= -_ROUNDING_PX) & (raw_u <= right) & (raw_v >= -_ROUNDING_PX) & (raw_v <= bottom)
        return np.asarray(inside & shown, dtype=np.bool_)

    def rectified_pixels(self, uv: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Say where pixels of the raw image lie in the rectified one.

        Args:
            uv: Pixels of the image as the camera gave it, shape (..., 2).

        Returns:
            Positions (u, v), shape (..., 2); they may lie outside of the image.

        Raises:
            CameraError: OpenCV cannot rectify by this calibration.
        """
        points = np.asarray(uv, dtype=np.float64)
        if self._maps is None:
            return points
        make = cv2.fisheye.undistortPoints if self._fisheye else cv2.undistortPoints
        try:
            moved = make(points.reshape(-1, 1, 2), self.k, self.d, R=self.r, P=self.p[:, :3])
        except cv2.error as error:
            raise _unusable(error) from error
        return np.asarray(moved, dtype=np.float64).reshape(points.shape)

    @property
    def _fisheye(self) -> bool:
        """Whether the model bends lines even where all of D is zero."""
        return self.model in _FISHEYE

    @cached_property
    def _maps(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
        """For each rectified pixel, its column and row in the raw image; None where they are the same."""
        new_k = self.p[:, :3]
        same = np.allclose(new_k, self.k, rtol=0.0, atol=1e-9) and np.allclose(self.r, np.eye(3))
        if self.rectified or (same and not self._fisheye and not self.d.any()):
            return None
        size = (self.width, self.height)
        make = cv2.fisheye.initUndistortRectifyMap if self._fisheye else cv2.initUndistortRectifyMap
        try:
            maps = make(self.k, self.d, self.r, new_k, size, cv2.CV_32FC1)
        except cv2.error as error:
            raise _unusable(error) from error
        return np.asarray(maps[0], dtype=np.float32), np.asarray(maps[1], dtype=np.float32)

    def _check_intrinsics(self, name: str, k: Matrix) -> None:
        what_to_do = "calibrate the camera (an uncalibrated driver publishes zeros)"
        for axis, focal, side, centre in (
            ("x", k[0, 0], self.width, k[0, 2]),
            ("y", k[1, 1], self.height, k[1, 2]),
        ):
            if focal <= 0.0:
                raise CameraError(f"{name}: f{axis} must be above 0 px, got {focal:g}: {what_to_do}")
            if not 0.02 <= focal / side <= 200.0:
                raise CameraError(
                    f"{name}: f{axis} = {focal:g} px is absurd for {side} px (a field of view of "
                    f"{math.degrees(2 * math.atan(side / 2 / focal)):.3g} degrees): {what_to_do}"
                )
            if not -max(side, 3 * focal) <= centre <= side + max(side, 3 * focal):  # a far ROI is fine
                raise CameraError(
                    f"{name}: c{axis} = {centre:g} px lies far outside the image of {side} px: {what_to_do}"
                )
        if not np.allclose(k[2], (0.0, 0.0, 1.0)):
            raise CameraError(f"{name}: expected a last row of 0, 0, 1, got {k[2].tolist()}: {what_to_do}")

    def _check_distortion(self) -> None:
        if self.model not in _COEFFICIENTS:
            raise CameraError(
                f"distortion model {self.model!r} is not one of {sorted(m for m in _COEFFICIENTS if m)}; rectify the "
                "image first (image_proc) and set camera.image_kind to 'rectified'"
            )
        takes = _COEFFICIENTS[self.model]
        if len(self.d) not in takes and (self.d.any() or self._fisheye):
            numbers = " or ".join(map(str, takes))
            raise CameraError(
                f"distortion model {self.model!r} takes {numbers} coefficients, got {len(self.d)}: calibrate again"
            )
        if np.abs(self.d).max(initial=0.0) > 1e4:
            raise CameraError(
                f"D: absurd distortion coefficients {self.d.tolist()}: calibrate the camera again"
            )


def _unusable(error: cv2.error) -> CameraError:
    return CameraError(
        f"the image cannot be rectified by its calibration ({error}): calibrate the camera again"
    )


def _finite(name: str, value: Matrix) -> Matrix:
    if not np.isfinite(value).all():
        raise CameraError(f"{name}: expected finite numbers, got {value.ravel().tolist()}")
    return value
