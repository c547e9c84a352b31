"""How long something took by itself, where other work may have the CPUs of this machine."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

_PRESSURE = Path("/proc/pressure/cpu")


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), _waited_s()

    def own_s(self) -> float:
        """Seconds so far, less those in which anything on this machine waited for a CPU: wall time where it is idle.

        The kernel counts the waiting per CPU and tells the mean, so that one process may have waited for as many
        times as long as there are CPUs. Where it does not tell, this is 0: nothing can be held against a promise.
        """
        if self._waited is None:
            return 0.0
        waited = (_waited_s() or 0.0) - self._waited
        return max(time.monotonic() - self._began - (os.cpu_count() or 1) * waited, 0.0)


def _waited_s() -> float | None:
    """Seconds since the machine's start in which something was ready to run and had no CPU; None: not known."""
    try:
        found = re.search(r"^some .*total=(\d+)", _PRESSURE.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1e-6 if found else None
