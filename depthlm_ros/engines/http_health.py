"""A circuit breaker: a server that fails is left alone for a while, then tried with something small."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES_IN_A_ROW = 3
"""So many failures without a success between them open the breaker."""
FIRST_WAIT_S = 0.5
"""How long a server is left alone at first; doubled each time that trying it fails."""


class Breaker:
    """Says whether a server may be asked; not safe to use from several threads.

    Args:
        longest_wait_s: The waits stop growing there.
        clock: Seconds that only go forward.
    """

    def __init__(self, longest_wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_s, self._clock = longest_wait_s, clock
        self._failures = 0
        self._wait_s = 0.0
        self._until: float | None = None
        self.reason = ""

    @property
    def closed(self) -> bool:
        """Whether the server may be asked."""
        return self._until is None

    def left_alone_s(self) -> float:
        """Seconds until an open breaker allows a trial; 0 where it does now."""
        return max(0.0, self._until - self._clock()) if self._until is not None else 0.0

    def succeeded(self) -> None:
        """A request, or the trial of an open breaker, was answered."""
        self._failures, self._wait_s, self._until, self.reason = 0, 0.0, None, ""

    def failed(self, reason: str) -> bool:
        """A request failed by the server's fault; what was under way when the breaker opened changes nothing.

        Returns:
            Whether the breaker opened with it.
        """
        if not self.closed:
            return False
        self.reason = reason
        self._failures += 1
        if self._failures < FAILURES_IN_A_ROW:
            return False
        self.open(reason)
        return True

    def open(self, reason: str) -> None:
        """Leave the server alone from now on, twice as long as the last time."""
        self.reason = reason
        self._wait_s = min(self._longest_s, self._wait_s * 2 or FIRST_WAIT_S)
        self._until = self._clock() + self._wait_s
