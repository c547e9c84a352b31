"""What the node says about itself once a second, in the way of ROS's ``diagnostic_updater``.

That package's conventions are kept, so that its aggregator and monitors understand them: the topic
``/diagnostics``, one status per aspect named ``node: aspect``, a hardware id on each, and values as text.
The package itself is not needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from depthlm_ros.config import DiagnosticsConfig, StreamConfig
from depthlm_ros.ros.health import Snapshot

CAMERA_REASONS = frozenset(
    ("bad_image", "bad_camera_info", "bad_size", "size_mismatch", "no_pixels", "duplicate")
)
"""Frames are refused for these because of what the camera sends."""

CLOCK_REASONS = frozenset(("stale", "future", "clock_jump"))
"""Frames are refused for these because clocks disagree."""

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

Verdict = tuple[bytes, str]
"""A level and one sentence."""


@dataclass(frozen=True)
class Watched:
    """What the diagnostics are about.

    Attributes:
        name: The node's fully qualified name without the leading slash.
        state: The lifecycle state's label.
        health: What was counted.
        stream: When a camera counts as stalled and a frame as too old.
        limits: The other thresholds.
        engine: What the engine says of itself.
        clock: What there is to know of the node's clock.
        clock_unset: Whether the time shall come from /clock but none has come.
    """

    name: str
    state: str
    health: Snapshot
    stream: StreamConfig
    limits: DiagnosticsConfig
    engine: Mapping[str, str]
    clock: Mapping[str, str] = field(default_factory=dict)
    clock_unset: bool = False


def diagnostics(watched: Watched, stamp: Time) -> DiagnosticArray:
    """One status each for the answers (``depth``), the camera, the engine and the clock.

    Args:
        watched: How things stand.
        stamp: Now, on the node's clock.
    """
    aspects = {"depth": _depth, "camera": _camera, "engine": _engine, "clock": _clock}
    statuses = []
    for aspect, judge in aspects.items():
        (level, message), values = judge(watched)
        statuses.append(
            DiagnosticStatus(
                level=level, name=f"{watched.name}: {aspect}", message=message, hardware_id="depthlm",
                values=[KeyValue(key=key, value=value) for key, value in values.items()],
            )
        )  # fmt: skip
    return DiagnosticArray(header=Header(stamp=stamp), status=statuses)


def _depth(watched: Watched) -> tuple[Verdict, dict[str, str]]:
    health, total, recent = watched.health, watched.health.total, watched.health.recent
    per_s = 1.0 / max(health.span_s, 1e-3)
    values = {
        "state": watched.state,
        "frames_in": str(total.frames_in),
        "frames_answered": str(total.frames_answered),
        "frames_dropped": str(total.dropped.total()),
        **_counted("dropped", total.dropped),
        "points_asked": str(total.points_asked),
        "points_answered": str(total.points_answered),
        **_counted("failed_points", total.failed_points),
        "questions_asked": str(total.questions_asked),
        **_counted("failed_questions", total.failed_questions),
        **_counted("clicks", total.clicks),
        **_counted("withheld_obstacles", total.withheld),
        "answered_rate_hz": f"{recent.frames_answered * per_s:.2f}",
        "queries_per_s": f"{recent.points_asked * per_s:.2f}",
        "last_success_age_s": _age(health.success_age_s),
    }
    if health.latencies_s:
        middle, high = np.percentile(health.latencies_s, (50, 95))
        values["latency_p50_s"], values["latency_p95_s"] = f"{middle:.3f}", f"{high:.3f}"
        values["latency_max_s"] = f"{max(health.latencies_s):.3f}"
    return _judge_depth(watched), values


def _judge_depth(watched: Watched) -> Verdict:
    health, limits, recent = watched.health, watched.limits, watched.health.recent
    if watched.state != "active":
        return WARN, f"not active ({watched.state})"
    if _waiting_s(health) > watched.stream.stall_s or health.frame_age_s is None:
        return WARN, "no frames from the camera"
    silent_s = health.age_s if health.success_age_s is None else health.success_age_s
    # An answer may take max_age_s, and a camera may pause for stall_s, before anything is wrong.
    if silent_s > max(limits.silence_error_s, watched.stream.max_age_s, watched.stream.stall_s):
        reason = health.last_drop or "unknown"
        return ERROR, f"no frame answered for {silent_s:.0f} s; the last was dropped as {reason}"
    if health.success_age_s is None:
        return WARN, "no frame answered yet"
    # Of a frame that a newer one replaced, or that came twice, nothing is missing.
    refused = sum(n for reason, n in recent.dropped.items() if reason not in ("newer", "duplicate"))
    slow = float(np.percentile(health.latencies_s, 95)) if health.latencies_s else 0.0
    verdicts = [
        _share(refused, recent.frames_in, limits.refused_warn, limits.refused_error, "frames were refused"),
        _share(
            recent.points_asked - recent.points_answered, recent.points_asked,
            limits.failed_warn, limits.failed_error, "points got no depth",
        ),
        _share(
            recent.withheld.total(), recent.frames_answered, limits.withheld_warn, limits.withheld_error,
            _naming("answered frames gave no obstacles", recent.withheld),
        ),
    ]  # fmt: skip
    if slow > limits.latency_warn_s:
        verdicts.append((WARN, f"slow: {slow:.2f} s from a frame to its depth (95th percentile)"))
    return _worst(verdicts, "answering")


def _camera(watched: Watched) -> tuple[Verdict, dict[str, str]]:
    health, total = watched.health, watched.health.total
    values = {
        "images_in": str(total.images_in),
        "frame_rate_hz": "unknown" if health.frame_rate_hz is None else f"{health.frame_rate_hz:.2f}",
        "last_frame_age_s": _age(health.frame_age_s),
    }
    return _judge_camera(watched), values


def _judge_camera(watched: Watched) -> Verdict:
    health, limits, recent = watched.health, watched.limits, watched.health.recent
    if watched.state != "active":
        return OK, "not subscribed"
    waiting_s = _waiting_s(health)
    if waiting_s > watched.stream.stall_s:
        unpaired = " with a CameraInfo" if recent.images_in else ""
        level = ERROR if waiting_s > max(limits.stall_error_s, watched.stream.stall_s) else WARN
        return level, f"no image{unpaired} for {waiting_s:.0f} s"
    if health.frame_age_s is None:
        return WARN, "waiting for the first frame"
    verdicts = [_refused(watched, CAMERA_REASONS, "frames cannot be used")]
    rate = health.frame_rate_hz
    if rate is not None and rate < limits.min_rate_hz:
        verdicts.append((WARN, f"{rate:.1f} Hz, less than diagnostics.min_rate_hz ({limits.min_rate_hz:g})"))
    return _worst(verdicts, "frames arrive")


def _engine(watched: Watched) -> tuple[Verdict, dict[str, str]]:
    state, error = watched.health.engine, watched.health.engine_error
    values = {"engine_state": state, **{f"engine/{key}": text for key, text in watched.engine.items()}}
    if error:
        values["engine_error"] = error
    if state in ("failed", "failing"):
        return (ERROR, error or state), values
    return (WARN if state == "loading" else OK, "not loaded" if state == "none" else state), values


def _clock(watched: Watched) -> tuple[Verdict, dict[str, str]]:
    health = watched.health
    values = {
        **watched.clock,
        "clock_jumps": str(health.total.clock_jumps),
        "bad_stamps": str(health.total.bad_stamps),
    }
    if health.stamp_age_s is not None:
        values["stamp_age_s"] = f"{health.stamp_age_s:.3f}"
    verdicts = [_refused(watched, CLOCK_REASONS, "frames were stamped by another clock or too late")]
    if watched.clock_unset:
        verdicts.append((ERROR, "use_sim_time is set but nothing came on /clock"))
    if health.recent.clock_jumps:
        verdicts.append((WARN, "the clock jumped"))
    if health.recent.bad_stamps:
        verdicts.append((WARN, f"{health.recent.bad_stamps} stamps are no times"))
    return _worst(verdicts, "stamps fit this node's clock"), values


def _refused(watched: Watched, reasons: frozenset[str], complaint: str) -> Verdict:
    """How bad it is that frames were refused for any of some reasons; the most frequent is named."""
    recent, limits = watched.health.recent, watched.limits
    hits = Counter({reason: n for reason, n in recent.dropped.items() if reason in reasons})
    named = _naming(complaint, hits)
    return _share(hits.total(), recent.frames_in, limits.refused_warn, limits.refused_error, named)


def _naming(complaint: str, counts: Counter[str]) -> str:
    """A complaint with the most frequent of its reasons."""
    return f"{complaint} ({counts.most_common(1)[0][0]})" if counts else complaint


def _share(part: int, whole: int, warn: float, error: float, complaint: str) -> Verdict:
    share = part / max(whole, part, 1)
    level = ERROR if share > error else WARN if share > warn else OK
    return level, f"{part} of {max(whole, part)} {complaint}"


def _worst(verdicts: Iterable[Verdict], otherwise: str) -> Verdict:
    """The highest level with the sentences of all that are not OK, as ``diagnostic_updater`` merges them."""
    bad = [verdict for verdict in verdicts if verdict[0] != OK]
    if not bad:
        return OK, otherwise
    return max(level for level, _ in bad), "; ".join(message for _, message in bad)


def _waiting_s(health: Snapshot) -> float:
    return health.age_s if health.frame_age_s is None else health.frame_age_s


def _counted(what: str, counts: Counter[str]) -> dict[str, str]:
    return {f"{what}/{reason}": str(n) for reason, n in sorted(counts.items())}


def _age(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f}"
