"""Which processes carry the mark of some worker: for tests that see that none is left."""

from __future__ import annotations

from pathlib import Path

from depthlm_ros.engines.worker_reaping import TOKEN_VARIABLE


def marked_processes() -> set[int]:
    """Every running process that carries the token of some worker."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and TOKEN_VARIABLE.encode() in (entry / "environ").read_bytes():
                found.add(int(entry.name))
        except OSError:
            pass
    return found
