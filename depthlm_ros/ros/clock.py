"""The node's clock: how old a stamp is, how fast the time runs, and when it goes backwards."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rclpy.clock import ClockChange, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from std_msgs.msg import Header

from depthlm_ros.ros.messages import stamp_ns

STEP_BACK_S = 0.05
"""A system clock that is set back by less is being slewed, not set."""

_RATE_SPAN_S = 0.5
"""The speed of the time is measured over at least this long, since /clock comes in steps."""


class NodeClock:
    """Watches the clock of a node, simulated or the system's."""

    def __init__(self, node: Node, went_back: Callable[[str], None]) -> None:
        """Begin to watch.

        Args:
            node: Whose clock, of ROS time (https://design.ros2.org/articles/clock_and_time.html).
            went_back: Told how, in words, when the clock went backwards or became another one. Called in any thread,
                also that of /clock: it must be quick.
        """
        self._clock, self._went_back = node.get_clock(), went_back
        self._steps: deque[float] = deque(maxlen=3)
        self._rate, self._sample, self._offset = 1.0, (0.0, 0.0), 0.0
        self._begin_anew()
        threshold = JumpThreshold(
            min_forward=Duration(nanoseconds=1), min_backward=Duration(nanoseconds=-1), on_clock_change=True
        )
        self._handle = self._clock.create_jump_callback(threshold, post_callback=self._moved)

    def close(self) -> None:
        """Cease to watch."""
        self._handle.unregister()

    @property
    def simulated(self) -> bool:
        """Whether the time comes from /clock."""
        return bool(self._clock.ros_time_is_active)

    @property
    def unset(self) -> bool:
        """Whether the time shall come from /clock but none has come."""
        return self.simulated and not self._clock.now().nanoseconds

    @property
    def step_s(self) -> float:
        """The usual step of /clock in seconds: a frame may be ahead of the clock by as much; 0 for the system's."""
        # The first step leads from no time at all to the first one.
        steps = tuple(self._steps)  # another thread may clear them in between
        return min(steps) if self.simulated and len(steps) > 1 else 0.0

    def age_s(self, header: Header) -> float:
        """Seconds since a header's stamp."""
        return (int(self._clock.now().nanoseconds) - stamp_ns(header)) * 1e-9

    def rate(self) -> float:
        """Seconds on this clock per second on the steady one: the speed of a simulation or of a bag's replay."""
        now, there = time.monotonic(), self._now_s()
        before, was = self._sample
        if now - before >= _RATE_SPAN_S:
            self._sample, self._rate = (now, there), max(there - was, 0.0) / (now - before)
        return self._rate

    def details(self) -> dict[str, str]:
        """What a person wants to know of the clock, as {short name: text}."""
        if not self.simulated:
            return {"clock": "system"}
        if self.unset:
            return {"clock": "simulated, but nothing came on /clock"}
        return {"clock": f"simulated, {self._now_s():.3f} s", "clock_rate": f"{self.rate():.2f}"}

    def look(self) -> None:
        """Notice whether the system's clock was set back; to be called now and then.

        ROS tells of jumps of /clock alone.
        """
        if self.simulated:
            return
        # The true offset lies between the two, however long this thread has to wait in between.
        before = time.monotonic()
        there = self._now_s()
        least, most = there - time.monotonic(), there - before
        back_s, self._offset = self._offset - most, least
        if back_s > STEP_BACK_S:
            self._begin_anew()
            self._went_back(f"was set back by {back_s:.3f} s")

    def _moved(self, jump: TimeJump) -> None:
        if jump.clock_change != ClockChange.ROS_TIME_NO_CHANGE:
            self._begin_anew()
            self._went_back("is another one now (use_sim_time was changed)")
            return
        step_s = jump.delta.nanoseconds * 1e-9
        if step_s < 0.0:
            self._begin_anew()
            self._steps.clear()
            self._went_back(f"jumped back by {-step_s:.3f} s (a bag from its beginning, a simulation reset?)")
        else:
            self._steps.append(step_s)

    def _begin_anew(self) -> None:
        self._rate = 1.0
        there = self._now_s()
        self._sample = (time.monotonic(), there)
        self._offset = there - self._sample[0]

    def _now_s(self) -> float:
        return float(self._clock.now().nanoseconds) * 1e-9
