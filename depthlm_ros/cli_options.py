"""Groups of options that several commands share: a command takes the group, its command line has the options."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from depthlm_ros.cli_common import (
    Checkpoint,
    ConfigFile,
    InputError,
    Profile,
    Settings,
    build_config,
    option_of,
)
from depthlm_ros.config import DepthLMConfig

if TYPE_CHECKING:
    from depthlm_ros.camera import PinholeCamera

R = TypeVar("R")


def with_groups(command: Callable[..., R]) -> Callable[..., R]:
    """Let the parameters of a command that are dataclasses stand for their fields, each an option.

    typer knows no groups of options: what it looks at is the signature, in which each such parameter is replaced by
    the fields of its class, with their defaults.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if dataclasses.is_dataclass(kind):
            groups[parameter.name] = kind
            fields = get_type_hints(kind, include_extras=True)
            parameters += [
                inspect.Parameter(
                    f.name, parameter.KEYWORD_ONLY, default=f.default, annotation=fields[f.name]
                )
                for f in dataclasses.fields(kind)
            ]
        else:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=kind))

    @functools.wraps(command)
    def called(**given: Any) -> R:
        made = {
            name: kind(**{f.name: given.pop(f.name) for f in dataclasses.fields(kind)})
            for name, kind in groups.items()
        }
        return command(**made, **given)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which model answers, and every other option of the configuration; None each where it was not given."""

    engine: Annotated[str | None, option_of("engine.name", "--engine")] = None
    checkpoint: Checkpoint = None
    profile: Profile = None
    device: Annotated[str | None, option_of("engine.device", "--device")] = None
    dtype: Annotated[str | None, option_of("engine.dtype", "--dtype")] = None
    config: ConfigFile = None
    settings: Settings = None

    def configured(self, given: dict[str, Any] | None = None) -> DepthLMConfig:
        """The configuration: defaults, then the file, then ``--set``, then these options and a command's own.

        Args:
            given: {dotted name: value} of the command's own options; those that are None were not given.

        Raises:
            ConfigError: Something is unknown or does not fit; the message names it.
        """
        engine = {
            "engine.name": self.engine,
            "engine.checkpoint": self.checkpoint,
            "engine.profile": self.profile,
            "engine.device": self.device,
            "engine.dtype": self.dtype,
        }
        return build_config(self.config, self.settings, {**engine, **(given or {})})

    def words(self) -> list[tuple[str, object]]:
        """The options as they were given, [(flag, value)]: for a record of the command line."""
        return [
            ("--engine", self.engine), ("--checkpoint", self.checkpoint), ("--profile", self.profile),
            ("--device", self.device), ("--dtype", self.dtype), ("--config", self.config),
            *(("--set", text) for text in self.settings or []),
        ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CameraOptions:
    """How a command is told an image's calibration: a file, or four numbers."""

    camera_info: Annotated[
        Path | None,
        typer.Option(help="The image's calibration: a ROS calibration file or CameraInfo as YAML."),
    ] = None
    fx: Annotated[float | None, typer.Option(help="Focal length along u in pixels.")] = None
    fy: Annotated[float | None, typer.Option(help="Focal length along v in pixels.")] = None
    cx: Annotated[float | None, typer.Option(help="Principal point's column in pixels.")] = None
    cy: Annotated[float | None, typer.Option(help="Principal point's row in pixels.")] = None

    def camera(self, config: DepthLMConfig, size: tuple[int, int]) -> PinholeCamera:
        """The calibration that the options name.

        Args:
            config: Says what kind of image it is.
            size: Width and height of the image in pixels.

        Raises:
            InputError: Both are given, or neither.
            CameraError: The calibration makes no sense.
        """
        from depthlm_ros.camera import PinholeCamera
        from depthlm_ros.camera_info import camera_from_yaml

        fx, fy, cx, cy = self.fx, self.fy, self.cx, self.cy
        if self.camera_info is not None:
            if any(value is not None for value in (fx, fy, cx, cy)):
                raise InputError("name either --camera-info or --fx, --fy, --cx and --cy, not both")
            return camera_from_yaml(self.camera_info, rectified=config.camera.image_kind == "rectified")
        if fx is None or fy is None or cx is None or cy is None:
            raise InputError(
                "metric depth needs the calibration: give --camera-info FILE, or --fx, --fy, --cx and --cy"
            )
        return PinholeCamera.from_intrinsics(fx, fy, cx, cy, *size)
