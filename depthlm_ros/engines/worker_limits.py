"""How much patience is had with a worker process."""

from __future__ import annotations

from dataclasses import dataclass

GRACE_S = 0.3
"""How long after a deadline the answers that were ready by then are waited for."""


@dataclass(frozen=True)
class Limits:
    """How much patience the supervisor has.

    Attributes:
        start_s: Longest time from the start of a worker until it is ready.
        silence_s: Longest time without a sign of life, or without an answer while it works; then it is killed.
        restarts: How often in a row it is started anew without an answer in between.
        first_delay_s: Pause before the first new start; each next one is twice as long.
        most_delay_s: The longest pause.
    """

    start_s: float = 600.0
    silence_s: float = 30.0
    restarts: int = 5
    first_delay_s: float = 1.0
    most_delay_s: float = 60.0

    def delay(self, failures: int) -> float:
        """Seconds to wait before the start that follows this many failures in a row."""
        return float(min(self.first_delay_s * 2.0 ** (failures - 1), self.most_delay_s))
