"""Calibrations as ROS writes them, CameraInfo records and calibration YAML files, into a PinholeCamera."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

from depthlm_ros.camera import CameraError, Matrix, PinholeCamera
from depthlm_ros.files import what_came


def camera_from_info(info: Any, *, rectified: bool = False) -> PinholeCamera:
    """Read a CameraInfo-like record.

    K, P and the size describe the full sensor; binning and ROI are applied here, as image_geometry does, so
    that the camera is that of the image itself.

    Args:
        info: Anything with the attributes of sensor_msgs/CameraInfo: width, height, k, d, r, p (or K, D, R,
            P as in ROS 1), distortion_model, and where present binning_x, binning_y and roi.
        rectified: Whether the images that come with it are rectified (then P counts), or raw (K and D).

    Raises:
        CameraError: A value is zero, negative, not finite or absurd; the message says which and what to do.
    """
    k = _matrix(info, "k", 9, (3, 3))
    p = _matrix(info, "p", 12, (3, 4))
    if not k.any() and not (rectified and p.any()):
        raise CameraError("K is all zero: the camera is not calibrated; calibrate it (camera_calibration)")
    k, p = k.copy(), p.copy()
    width, height = int(info.width), int(info.height)
    roi = getattr(info, "roi", None)
    if roi is not None and (roi.width or roi.height):
        if (
            min(roi.x_offset, roi.y_offset, roi.width - 1, roi.height - 1) < 0
            or roi.x_offset + roi.width > width
            or roi.y_offset + roi.height > height
        ):
            raise CameraError(
                f"ROI {roi.width}x{roi.height} at ({roi.x_offset}, {roi.y_offset}) does not lie in the image of "
                f"{width}x{height}"
            )
        for matrix in (k, p):
            if matrix.any():
                matrix[0, 2] -= roi.x_offset
                matrix[1, 2] -= roi.y_offset
        width, height = int(roi.width), int(roi.height)
    bin_x = int(getattr(info, "binning_x", 0)) or 1
    bin_y = int(getattr(info, "binning_y", 0)) or 1
    if not (1 <= bin_x <= 64 and 1 <= bin_y <= 64):
        raise CameraError(f"binning: expected 1 to 64, got {bin_x} and {bin_y}")
    for matrix in (k, p):
        matrix[0] /= bin_x
        matrix[1] /= bin_y
    return PinholeCamera(
        width=width // bin_x,
        height=height // bin_y,
        k=k,
        d=np.array(_attribute(info, "d"), dtype=np.float64),
        model=str(info.distortion_model),
        r=_matrix(info, "r", 9, (3, 3)),
        p=p,
        rectified=rectified,
    )


def camera_from_yaml(path: Path, *, rectified: bool = False) -> PinholeCamera:
    """Read a ROS calibration file (camera_calibration_parsers) or a CameraInfo dumped by ``ros2 topic echo``.

    Raises:
        CameraError: The file cannot be read or is not a calibration; the message names what is missing.
    """
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d is not None]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CameraError(f"{path}: expected a camera calibration as YAML, but {what_came(error)}") from error
    record = documents[0] if documents else None
    if not isinstance(record, Mapping):
        raise CameraError(f"{path}: expected a camera calibration, got {type(record).__name__}")
    try:
        info = _from_calibration(record) if "camera_matrix" in record else _from_message(record)
        return camera_from_info(info, rectified=rectified)
    except KeyError as error:
        raise CameraError(f"{path}: the calibration lacks {error}") from error
    except (TypeError, ValueError) as error:
        raise CameraError(f"{path}: {error}") from error


def _from_calibration(record: Mapping[str, Any]) -> SimpleNamespace:
    def data(key: str, default: list[float] | None = None) -> list[float]:
        if key not in record and default is not None:
            return default
        return list(record[key]["data"])

    return SimpleNamespace(
        width=record["image_width"],
        height=record["image_height"],
        k=data("camera_matrix"),
        d=data("distortion_coefficients", []),
        r=data("rectification_matrix", [0.0] * 9),
        p=data("projection_matrix", [0.0] * 12),
        distortion_model=record.get("distortion_model") or "plumb_bob",  # as camera_calibration_parsers
    )


def _from_message(record: Mapping[str, Any]) -> SimpleNamespace:
    lower = {key.lower(): value for key, value in record.items()}
    roi = lower.get("roi")
    return SimpleNamespace(
        width=lower["width"],
        height=lower["height"],
        k=lower["k"],
        d=lower.get("d", []),
        r=lower.get("r", [0.0] * 9),
        p=lower.get("p", [0.0] * 12),
        distortion_model=lower.get("distortion_model", ""),
        binning_x=lower.get("binning_x", 0),
        binning_y=lower.get("binning_y", 0),
        roi=SimpleNamespace(**{"x_offset": 0, "y_offset": 0, "width": 0, "height": 0, **roi})
        if roi
        else None,
    )


def _attribute(info: Any, name: str) -> Any:
    return getattr(info, name) if hasattr(info, name) else getattr(info, name.upper())


def _matrix(info: Any, name: str, size: int, shape: tuple[int, int]) -> Matrix:
    value = np.array(_attribute(info, name), dtype=np.float64)
    if value.size != size:
        raise CameraError(f"{name.upper()}: expected {size} numbers, got {value.size}")
    return value.reshape(shape)
