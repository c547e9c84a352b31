"""What the node counts and says about itself: counters, throttled complaints, diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from depthlm_ros.geometry import SparseDepth

SAY_AGAIN_S = 30.0
"""A complaint of one kind is logged at most this often; its counter counts every time."""


class Health:
    """Counters since activation, safe to use from every thread of the node."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        """Start at zero.

        Args:
            complain: Logs a warning.
        """
        self._complain = complain
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        with self._lock:
            self.frames_in = self.frames_answered = self.points_asked = self.points_answered = 0
            self.dropped: Counter[str] = Counter()
            self.failed_points: Counter[str] = Counter()
            self.questions_asked = 0
            self.failed_questions: Counter[str] = Counter()
            self.latencies: deque[float] = deque(maxlen=200)
            self.arrivals: deque[float] = deque(maxlen=50)
            self.last_drop = ""
            self.began = time.monotonic()
            self.last_frame: float | None = None
            self.last_success: float | None = None
            self._said: dict[str, float] = {}

    def frame_arrived(self) -> None:
        """Count a paired frame."""
        with self._lock:
            self.frames_in += 1
            self.last_frame = time.monotonic()
            self.arrivals.append(self.last_frame)

    def dropped_frame(self, reason: str, explanation: str = "") -> None:
        """Count a frame that gave no output, and say why once in a while where there is an explanation."""
        with self._lock:
            self.dropped[reason] += 1
            self.last_drop = reason
        if explanation:
            self.say(reason, f"frame dropped ({reason}): {explanation}")

    def answered_frame(self, sparse: SparseDepth, latency_s: float) -> None:
        """Count a frame whose points were published."""
        with self._lock:
            self.frames_answered += 1
            self.last_success = time.monotonic()
            self.latencies.append(latency_s)
        self.asked_points(sparse)

    def asked_points(self, sparse: SparseDepth) -> None:
        """Count points by what became of them; what could not be asked is a failure, but was not asked."""
        reasons = sparse.reasons()
        with self._lock:
            self.points_asked += sum(reasons.values()) - reasons.get("undrawable", 0)
            self.points_answered += reasons.get("ok", 0)
            self.failed_points.update({k: n for k, n in reasons.items() if k != "ok"})
        if sparse.error:
            self.say("engine_error", f"the engine failed on single pixels: {sparse.error}")

    def asked_question(self, status: str) -> None:
        """Count a spatial question by what became of it; the points that it was computed from are counted apart.

        Args:
            status: ``ok``, or why there is no value.
        """
        with self._lock:
            self.questions_asked += 1
            if status != "ok":
                self.failed_questions[status] += 1

    def say(self, kind: str, text: str) -> None:
        """Log a warning unless one of its kind was logged a short while ago."""
        now = time.monotonic()
        with self._lock:
            if now - self._said.get(kind, -SAY_AGAIN_S) < SAY_AGAIN_S:
                return
            self._said[kind] = now
        self._complain(text)

    def counters(self) -> dict[str, int]:
        """The counter fields of SparseDepth.msg."""
        with self._lock:
            return {
                "frames_in": self.frames_in,
                "frames_answered": self.frames_answered,
                "frames_dropped": self.dropped.total(),
                "points_asked": self.points_asked,
                "points_answered": self.points_answered,
            }

    def diagnostics(
        self,
        stamp: Time,
        name: str,
        state: str,
        stall_s: float,
        silence_s: float,
        engine: Mapping[str, str] | None = None,
    ) -> DiagnosticArray:
        """A DiagnosticArray with one status: level, one sentence, and every counter.

        Args:
            stamp: Now, on the node's clock.
            name: Name of the status, as diagnostic_updater builds it (``node: topic``).
            state: The lifecycle state's label.
            stall_s: Without a frame for this long the camera counts as stalled.
            silence_s: Without an answered frame for this long, while frames arrive, something is wrong.
            engine: What the engine says of itself, if there is one.
        """
        now = time.monotonic()
        values = {"state": state, **{k: str(n) for k, n in self.counters().items()}}
        values.update({f"engine/{k}": text for k, text in (engine or {}).items()})
        with self._lock:
            values.update({f"dropped/{k}": str(n) for k, n in self.dropped.items()})
            values.update({f"failed_points/{k}": str(n) for k, n in self.failed_points.items()})
            values["questions_asked"] = str(self.questions_asked)
            values.update({f"failed_questions/{k}": str(n) for k, n in self.failed_questions.items()})
            if self.latencies:
                middle, high = np.percentile(self.latencies, (50, 95))
                values.update({"latency_p50_s": f"{middle:.3f}", "latency_p95_s": f"{high:.3f}"})
            ages = {
                "last_frame_age_s": self.last_frame,
                "last_success_age_s": self.last_success,
            }
            values.update({k: f"{now - t:.1f}" if t is not None else "never" for k, t in ages.items()})
            if len(self.arrivals) > 1:
                span = self.arrivals[-1] - self.arrivals[0]
                values["frame_rate_hz"] = f"{(len(self.arrivals) - 1) / max(span, 1e-3):.2f}"
            stalled = self.last_frame is None or now - self.last_frame > stall_s
            silent_s = now - (self.last_success if self.last_success is not None else self.began)
            answered, last_drop = self.last_success is not None, self.last_drop
        level, message = DiagnosticStatus.OK, "answering"
        if state != "active":
            level, message = DiagnosticStatus.WARN, f"not active ({state})"
        elif stalled:
            level, message = DiagnosticStatus.WARN, "no frames from the camera"
        elif silent_s > silence_s:
            level = DiagnosticStatus.ERROR
            message = (
                f"no frame answered for {silent_s:.0f} s; the last was dropped as {last_drop or 'unknown'}"
            )
        elif not answered:
            level, message = DiagnosticStatus.WARN, "no frame answered yet"
        status = DiagnosticStatus(
            level=level, name=name, message=message, hardware_id="depthlm",
            values=[KeyValue(key=k, value=v) for k, v in values.items()],
        )  # fmt: skip
        return DiagnosticArray(header=Header(stamp=stamp), status=[status])
