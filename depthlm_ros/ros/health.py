"""What the node counts: frames, points, questions, latencies, and complaints that are not repeated too often."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from depthlm_ros.geometry import SparseDepth

SAY_AGAIN_S = 30.0
"""A complaint of one kind is logged at most this often; its counter counts every time."""

NEVER_ASKED = frozenset(("undrawable", "over_budget"))
"""Pixels with these statuses got no depth, but the model was not asked either."""

_KEPT = 4096
"""Arrivals and latencies that are kept at most."""


@dataclass
class Counts:
    """What was counted since activation.

    Attributes:
        images_in: Images received, also those without a CameraInfo.
        frames_in: Pairs of an image and its CameraInfo, and images that repeat the stamp of one.
        frames_answered: Frames for which depth was published.
        dropped: Frames given up, by reason.
        points_asked: Pixels asked, by the stream and by services.
        points_answered: Pixels that got a depth.
        failed_points: Pixels that got none, by reason; those of ``NEVER_ASKED`` were not asked.
        questions_asked: Spatial questions.
        failed_questions: Spatial questions without a value, by reason.
        withheld: Obstacle clouds of answered frames that were not published, by reason.
        clicks: Clicked points, by what became of them.
        clock_jumps: How often the node's clock went backwards.
        bad_stamps: Messages whose stamp is no time; they are never paired, so they are no frames.
    """

    images_in: int = 0
    frames_in: int = 0
    frames_answered: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    points_asked: int = 0
    points_answered: int = 0
    failed_points: Counter[str] = field(default_factory=Counter)
    questions_asked: int = 0
    failed_questions: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)
    clicks: Counter[str] = field(default_factory=Counter)
    clock_jumps: int = 0
    bad_stamps: int = 0

    def __sub__(self, earlier: Counts) -> Counts:
        """What was counted since ``earlier``."""
        return Counts(**{name: value - getattr(earlier, name) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Snapshot:
    """The node's health at one moment; every time is an age in seconds on the steady clock.

    Attributes:
        total: Counted since activation.
        recent: Counted in the last ``span_s`` seconds.
        span_s: About the window that was asked for, or the time since activation where that is shorter.
        frame_age_s: Since the last frame came; None without one.
        success_age_s: Since a frame was answered; None without one.
        age_s: Since activation.
        frame_rate_hz: Of the frames that came in the window; None with fewer than two.
        latencies_s: From arrival to publication, of the frames answered in the window.
        stamp_age_s: Age of the newest frame's stamp when it came, on the node's clock; None without a frame.
        last_drop: Reason of the last dropped frame, or empty.
        engine: What the engine is doing: ``none``, ``loading``, ``ready``, ``failing`` or ``failed``.
        engine_error: What it said last when it failed; empty once it answers again.
    """

    total: Counts
    recent: Counts
    span_s: float
    frame_age_s: float | None
    success_age_s: float | None
    age_s: float
    frame_rate_hz: float | None
    latencies_s: tuple[float, ...]
    stamp_age_s: float | None
    last_drop: str
    engine: str
    engine_error: str


class Health:
    """Counters since activation, safe to use from every thread of the node."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        """Start at zero.

        Args:
            complain: Logs a warning.
        """
        self._complain = complain
        self._lock = threading.Lock()
        self._engine, self._engine_error = "none", ""
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far; what the engine is doing stays."""
        with self._lock:
            self.total = Counts()
            self.last_drop = ""
            self.began = time.monotonic()
            self.last_frame: float | None = None
            self.last_success: float | None = None
            self._stamp_age_s: float | None = None
            self._arrivals: deque[float] = deque(maxlen=_KEPT)
            self._latencies: deque[tuple[float, float]] = deque(maxlen=_KEPT)
            self._past: deque[tuple[float, Counts]] = deque([(self.began, Counts())])
            self._said: dict[str, float] = {}

    def image_arrived(self) -> None:
        """Count an image, whether or not its CameraInfo comes."""
        with self._lock:
            self.total.images_in += 1

    def frame_arrived(self, stamp_age_s: float | None = None) -> None:
        """Count a paired frame.

        Args:
            stamp_age_s: Seconds since its stamp, on the node's clock.
        """
        with self._lock:
            self.total.frames_in += 1
            self.last_frame = time.monotonic()
            self._arrivals.append(self.last_frame)
            self._stamp_age_s = stamp_age_s

    def frame_repeated(self, explanation: str) -> None:
        """Count an image whose stamp was accepted before as a frame that is dropped; the camera's rate is without it.

        Args:
            explanation: Says which, and what may be the cause.
        """
        with self._lock:
            self.total.frames_in += 1
            self.last_frame = time.monotonic()
        self.dropped_frame("duplicate", explanation)

    def dropped_frame(self, reason: str, explanation: str = "") -> None:
        """Count a frame that gave no output, and say why once in a while where there is an explanation."""
        with self._lock:
            self.total.dropped[reason] += 1
            self.last_drop = reason
            if reason == "engine":
                self._engine, self._engine_error = "failing", explanation
        if explanation:
            self.say(reason, f"frame dropped ({reason}): {explanation}")

    def answered_frame(self, sparse: SparseDepth, latency_s: float) -> None:
        """Count a frame whose points were published."""
        with self._lock:
            self.total.frames_answered += 1
            self.last_success = time.monotonic()
            self._latencies.append((self.last_success, latency_s))
        self.asked_points(sparse)

    def asked_points(self, sparse: SparseDepth) -> None:
        """Count points by what became of them; what could not be asked is a failure, but was not asked."""
        reasons = sparse.reasons()
        with self._lock:
            self.total.points_asked += sum(n for k, n in reasons.items() if k not in NEVER_ASKED)
            self.total.points_answered += reasons.get("ok", 0)
            self.total.failed_points.update({k: n for k, n in reasons.items() if k != "ok"})
            if sparse.error:
                self._engine, self._engine_error = "failing", sparse.error
            elif reasons.get("ok"):
                self._engine, self._engine_error = "ready", ""
        if sparse.error:
            self.say("engine_error", f"the engine failed on single pixels: {sparse.error}")

    def withheld_obstacles(self, reason: str, explanation: str) -> None:
        """Count an obstacle cloud that is not published although its frame was answered, and say why."""
        with self._lock:
            self.total.withheld[reason] += 1
        self.say(reason, explanation)

    def asked_question(self, status: str) -> None:
        """Count a spatial question by what became of it; the points that it was computed from are counted apart.

        Args:
            status: ``ok``, or why there is no value.
        """
        with self._lock:
            self.total.questions_asked += 1
            if status != "ok":
                self.total.failed_questions[status] += 1

    def clicked(self, status: str) -> None:
        """Count a click by what became of it.

        Args:
            status: ``ok``, or why there is no point.
        """
        with self._lock:
            self.total.clicks[status] += 1

    def clock_jumped(self) -> None:
        """Count a jump of the node's clock."""
        with self._lock:
            self.total.clock_jumps += 1

    def bad_stamp(self, explanation: str) -> None:
        """Count a message whose stamp is no time, and say so once in a while."""
        with self._lock:
            self.total.bad_stamps += 1
        self.say("bad_stamp", f"message dropped (bad_stamp): {explanation}")

    def engine_is(self, state: str, error: str = "") -> None:
        """Note what the engine is doing, as in :class:`Snapshot`."""
        with self._lock:
            self._engine, self._engine_error = state, error

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
                "frames_in": self.total.frames_in,
                "frames_answered": self.total.frames_answered,
                "frames_dropped": self.total.dropped.total(),
                "points_asked": self.total.points_asked,
                "points_answered": self.total.points_answered,
            }

    def snapshot(self, window_s: float) -> Snapshot:
        """How things stand now. Called once a second: what is recent reaches back to an earlier call.

        Args:
            window_s: How far back ``recent``, the rate and the latencies reach.
        """
        now = time.monotonic()
        with self._lock:
            total = self.total - Counts()
            while len(self._past) > 1 and self._past[1][0] <= now - window_s:
                self._past.popleft()
            then, earlier = self._past[0]
            self._past.append((now, total))
            arrivals = [t for t in self._arrivals if t >= now - window_s]
            rate = (len(arrivals) - 1) / max(arrivals[-1] - arrivals[0], 1e-3) if len(arrivals) > 1 else None
            return Snapshot(
                total=total,
                recent=total - earlier,
                span_s=now - then,
                frame_age_s=None if self.last_frame is None else now - self.last_frame,
                success_age_s=None if self.last_success is None else now - self.last_success,
                age_s=now - self.began,
                frame_rate_hz=rate,
                latencies_s=tuple(latency for t, latency in self._latencies if t >= now - window_s),
                stamp_age_s=self._stamp_age_s,
                last_drop=self.last_drop,
                engine=self._engine,
                engine_error=self._engine_error,
            )
