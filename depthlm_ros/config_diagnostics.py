"""The thresholds of the diagnostics."""

from __future__ import annotations

from dataclasses import dataclass

from depthlm_ros.config_options import ConfigError, Section, option


@dataclass(frozen=True)
class DiagnosticsConfig(Section):
    """When the diagnostics warn, and when they call it an error."""

    window_s: float = option(
        10.0, "Rates, shares and latencies are those of the last so many seconds.",
        unit="s", low=1.0, high=3600.0, live=True,
    )  # fmt: skip
    min_rate_hz: float = option(
        0.0, "A slower camera is a warning; 0 accepts every rate.", unit="Hz", low=0.0, high=1e3, live=True
    )
    stall_error_s: float = option(
        10.0, "Without a frame for this long a stalled camera (stream.stall_s, a warning) is an error.",
        unit="s", low=0.1, high=3600.0, live=True,
    )  # fmt: skip
    silence_error_s: float = option(
        5.0,
        "Without an answered frame for this long, while frames arrive, it is an error; never less than "
        "stream.max_age_s and stream.stall_s.",
        unit="s", low=0.1, high=3600.0, live=True,
    )  # fmt: skip
    latency_warn_s: float = option(
        2.5, "From a frame's arrival to its depth; more in 5 % of the frames is a warning.",
        unit="s", low=0.001, high=3600.0, live=True,
    )  # fmt: skip
    refused_warn: float = option(
        0.1, "Share of the frames that were refused (not those replaced by a newer one); more is a warning.",
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    refused_error: float = option(
        0.9, "Share of the frames that were refused; more is an error.", low=0.0, high=1.0, live=True
    )
    failed_warn: float = option(
        0.2, "Share of the asked points that got no depth; more is a warning.", low=0.0, high=1.0, live=True
    )
    failed_error: float = option(
        0.9, "Share of the asked points that got no depth; more is an error.", low=0.0, high=1.0, live=True
    )
    withheld_warn: float = option(
        0.2, "Share of the answered frames whose obstacles were withheld; more is a warning.",
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    withheld_error: float = option(
        0.9, "Share of the answered frames whose obstacles were withheld; more is an error.",
        low=0.0, high=1.0, live=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("refused", "failed", "withheld"):
            warn, error = getattr(self, f"{what}_warn"), getattr(self, f"{what}_error")
            if warn > error:
                raise ConfigError(
                    f"diagnostics.{what}_warn: expected at most diagnostics.{what}_error ({error:g}), got {warn:g}: "
                    "the error would come before the warning"
                )
