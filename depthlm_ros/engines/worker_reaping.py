"""Finds and ends every process that a worker started, wherever it went.

MPI launchers put what they start into sessions and groups of their own, under parents of their own; what they all
keep is the environment that they were started with.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

TOKEN_VARIABLE = "DEPTHLM_WORKER_TOKEN"
"""Environment variable that marks a worker and all that descends from it; its value is different for each."""


def processes_of(token: str) -> set[int]:
    """Ids of the running processes that were started with this token."""
    mark = f"{TOKEN_VARIABLE}={token}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # Gone meanwhile, or another user's.
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
    return found


def kill_processes(token: str, *, spare: Collection[int] = (), wait_s: float = 1.0) -> set[int]:
    """Kill every process with this token, again and again until none is left.

    Args:
        token: The mark that they carry.
        spare: Processes that stay.
        wait_s: How long to go on. A process in an uninterruptible system call (a GPU driver's) dies later.

    Returns:
        Those that were still there at the end.
    """
    end = time.monotonic() + wait_s
    while True:
        left = processes_of(token) - set(spare)
        for process in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)
