"""The one place of every default: ROS parameters, command-line options and the YAML derive from here."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from depthlm_ros.config_clicks import ClicksConfig
from depthlm_ros.config_diagnostics import DiagnosticsConfig
from depthlm_ros.config_engine import EMBEDDED, EngineConfig
from depthlm_ros.config_options import ConfigError, Section, checked, option

__all__ = [
    "EMBEDDED",
    "CameraConfig",
    "ClicksConfig",
    "ConfigError",
    "DepthLMConfig",
    "DiagnosticsConfig",
    "EngineConfig",
    "LifecycleConfig",
    "ObstaclesConfig",
    "SamplingConfig",
    "StreamConfig",
    "checked",
    "flatten",
    "from_flat",
    "option",
    "options",
]


@dataclass(frozen=True)
class CameraConfig(Section):
    """How images are understood."""

    image_kind: str = option(
        "raw",
        "'raw' images are undistorted with K and D; 'rectified' ones (image_rect) are taken as P says.",
        choices=("raw", "rectified"),
    )
    max_megapixels: float = option(
        50.0, "Larger images, also after the resize to the canonical focal length, are refused.",
        unit="Mpx", low=0.001, high=1000.0,
    )  # fmt: skip


@dataclass(frozen=True)
class SamplingConfig(Section):
    """Which pixels of a frame are asked, in which order."""

    method: str = option("grid", "How pixels are chosen.", choices=("grid", "gradient", "roi"), live=True)
    columns: int = option(12, "Columns of the regular grid.", low=1, high=1000, live=True)
    rows: int = option(8, "Rows of the regular grid.", low=1, high=1000, live=True)
    points: int = option(64, "Pixels of the 'gradient' method.", low=1, high=100000, live=True)
    roi: tuple[int, ...] = option(
        (0, 0, 0, 0),
        "Region of interest as u, v, width, height in source pixels; width and height 0 is the whole image.",
        unit="px", live=True,
    )  # fmt: skip
    seed: int = option(0, "Seed of the random choices.", low=0, high=2**31 - 1, live=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.roi) != 4 or min(self.roi) < 0 or (self.roi[2] == 0) != (self.roi[3] == 0):
            raise ConfigError(
                "sampling.roi: expected u, v, width, height, none negative, width and height both 0 or both not; "
                f"got {list(self.roi)}"
            )
        if self.method == "roi" and not self.roi[2]:
            raise ConfigError("sampling.method is 'roi' but sampling.roi is the whole image: name a region")


@dataclass(frozen=True)
class StreamConfig(Section):
    """How the node takes frames and what it refuses to publish."""

    transport: str = option("raw", "Image transport.", choices=("raw", "compressed"))
    reliability: str = option(
        "best_effort", "Quality of service of the inputs.", choices=("best_effort", "reliable")
    )
    sync_queue: int = option(10, "Messages kept while an image waits for its CameraInfo.", low=1, high=1000)
    sync_slop_s: float = option(
        0.005, "Largest difference of stamps between an image and its CameraInfo.",
        unit="s", low=1e-4, high=10.0,  # at 0 nothing pairs: the difference must be below it
    )  # fmt: skip
    max_age_s: float = option(
        5.0, "Nothing is published from a frame that is older than this.",
        unit="s", low=0.01, high=3600.0, live=True,
    )  # fmt: skip
    max_ahead_s: float = option(
        0.5,
        "A frame whose stamp is further ahead of the node's clock is refused; a step of /clock is granted on top.",
        unit="s", low=0.0, high=3600.0, live=True,
    )  # fmt: skip
    budget_s: float = option(
        0.0,
        "How long a frame may be asked before what is answered so far is published; 0 stops only at max_age_s.",
        unit="s", low=0.0, high=3600.0, live=True,
    )  # fmt: skip
    budget_points: int = option(
        0, "How many pixels of a frame are asked at most, the sampler's first; 0 asks all.",
        low=0, high=1000000, live=True,
    )  # fmt: skip
    chunk_points: int = option(
        32,
        "Pixels that are asked at once; between two such chunks a service call has its turn. Fewer answer callers "
        "sooner, more use the engine better.",
        low=1, high=100000, live=True,
    )  # fmt: skip
    stall_s: float = option(
        2.0, "Without a frame for this long the camera counts as stalled.",
        unit="s", low=0.1, high=3600.0, live=True,
    )  # fmt: skip
    query_timeout_s: float = option(
        5.0, "How long ~/query_depth may take when the caller names no time.",
        unit="s", low=0.1, high=3600.0, live=True,
    )  # fmt: skip


@dataclass(frozen=True)
class ObstaclesConfig(Section):
    """Which points count as obstacles for Nav2."""

    min_range_m: float = option(0.2, "Nearer points are left out.", unit="m", low=0.0, high=1e3, live=True)
    max_range_m: float = option(8.0, "Farther points are left out.", unit="m", low=0.0, high=1e4, live=True)
    min_confidence: float = option(
        0.3, "Less confident points are left out; points without a confidence are, too, unless it is 0.",
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    target_frame: str = option(
        "",
        "Frame with z up (base_link, odom, ...) in which heights are looked at, through tf2; empty looks at none. "
        "The points stay in the optical frame.",
    )
    min_height_m: float = option(
        0.15, "With target_frame: lower points, such as the floor's, are left out.",
        unit="m", low=-1e3, high=1e3, live=True,
    )  # fmt: skip
    max_height_m: float = option(
        2.0, "With target_frame: higher points are left out.", unit="m", low=-1e3, high=1e3, live=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_height_m >= self.max_height_m:
            raise ConfigError(
                f"obstacles.min_height_m: expected less than obstacles.max_height_m ({self.max_height_m:g}), "
                f"got {self.min_height_m:g}: no point could be an obstacle"
            )
        if self.min_range_m >= self.max_range_m:
            raise ConfigError(
                f"obstacles.min_range_m: expected less than obstacles.max_range_m ({self.max_range_m:g}), "
                f"got {self.min_range_m:g}: no point could be an obstacle"
            )


@dataclass(frozen=True)
class LifecycleConfig(Section):
    """Who brings the node to active."""

    autostart: bool = option(
        False, "Configure and activate at start, without a lifecycle manager or 'ros2 lifecycle set'.",
        at_start=True, left_open="Not set here: the launch files activate then, 'ros2 run' does not.",
    )  # fmt: skip
    bond: str = option(
        "auto",
        "Whether an active node gives a lifecycle manager signs of life, as Nav2's nodes do: 'auto' where the "
        "package 'bond' is installed; 'required' fails to configure without it.",
        choices=("auto", "required", "never"),
    )


@dataclass(frozen=True)
class DepthLMConfig:
    """The whole configuration, one section per reason to change."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    obstacles: ObstaclesConfig = field(default_factory=ObstaclesConfig)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
    clicks: ClicksConfig = field(default_factory=ClicksConfig)
    lifecycle: LifecycleConfig = field(default_factory=LifecycleConfig)


def options() -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Every option as (dotted name, declaration), in order."""
    for section in dataclasses.fields(DepthLMConfig):
        for spec in dataclasses.fields(section.default_factory):  # type: ignore[arg-type]
            yield f"{section.name}.{spec.name}", spec


def flatten(config: DepthLMConfig) -> dict[str, Any]:
    """The configuration as {dotted name: value}."""
    return {name: getattr(getattr(config, name.split(".")[0]), spec.name) for name, spec in options()}


def from_flat(values: Mapping[str, Any], base: DepthLMConfig | None = None) -> DepthLMConfig:
    """Build a configuration from {dotted name: value} over ``base`` (the defaults when None).

    Raises:
        ConfigError: A key is unknown or a value does not fit; the message names it.
    """
    known = [name for name, _ in options()]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the known ones are {known}"
            raise ConfigError(f"unknown option {name!r}: {hint}")
    config = base or DepthLMConfig()
    for section in dataclasses.fields(DepthLMConfig):
        changes = {
            name.split(".", 1)[1]: value
            for name, value in values.items()
            if name.startswith(section.name + ".")
        }
        try:
            part = dataclasses.replace(getattr(config, section.name), **changes)
        except ConfigError as error:
            text = str(error)
            prefix = "" if text.startswith(section.name + ".") else section.name + "."
            raise ConfigError(prefix + text) from error
        config = dataclasses.replace(config, **{section.name: part})
    return config
