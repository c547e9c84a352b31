"""How commands are told an image's calibration: a file, or four numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthlm_ros.cli_common import InputError
from depthlm_ros.config import DepthLMConfig

if TYPE_CHECKING:
    from depthlm_ros.camera import PinholeCamera

CameraFile = Annotated[
    Path | None,
    typer.Option(help="The image's calibration: a ROS calibration file or CameraInfo as YAML."),
]
FocalU = Annotated[float | None, typer.Option(help="Focal length along u in pixels.")]
FocalV = Annotated[float | None, typer.Option(help="Focal length along v in pixels.")]
CentreU = Annotated[float | None, typer.Option(help="Principal point's column in pixels.")]
CentreV = Annotated[float | None, typer.Option(help="Principal point's row in pixels.")]


def camera_of(
    config: DepthLMConfig,
    camera_info: Path | None,
    intrinsics: tuple[float | None, float | None, float | None, float | None],
    size: tuple[int, int],
) -> PinholeCamera:
    """The calibration that the options name.

    Args:
        config: Says what kind of image it is.
        camera_info: A calibration file, or None.
        intrinsics: fx, fy, cx and cy in pixels, or None each.
        size: Width and height of the image in pixels.

    Raises:
        InputError: Both are given, or neither.
        CameraError: The calibration makes no sense.
    """
    from depthlm_ros.camera import PinholeCamera
    from depthlm_ros.camera_info import camera_from_yaml

    fx, fy, cx, cy = intrinsics
    given = [value is not None for value in intrinsics]
    if camera_info is not None:
        if any(given):
            raise InputError("name either --camera-info or --fx, --fy, --cx and --cy, not both")
        return camera_from_yaml(camera_info, rectified=config.camera.image_kind == "rectified")
    if fx is None or fy is None or cx is None or cy is None:
        raise InputError(
            "metric depth needs the calibration: give --camera-info FILE, or --fx, --fy, --cx and --cy"
        )
    return PinholeCamera.from_intrinsics(fx, fy, cx, cy, *size)
