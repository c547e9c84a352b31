"""Memory of this process and of its GPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MB = 1e6
_EVERY_S = 0.05


def resident_mb() -> float:
    """Memory of this process that is resident, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


@contextmanager
def peak_memory(device: str, peaks: dict[str, float]) -> Iterator[None]:
    """Note how much memory a ``with`` block takes at its peak, above what was there before it.

    Args:
        device: ``cpu`` or ``cuda``; with CUDA, ``gpu`` is noted too.
        peaks: Gets ``resident`` and ``gpu``, in MB; larger values that are there stay.
    """
    gpu = device.startswith("cuda")
    if gpu:
        import torch

        torch.cuda.reset_peak_memory_stats()
        gpu_before = torch.cuda.memory_allocated() / MB
    before = highest = resident_mb()
    over = threading.Event()

    def look() -> None:
        nonlocal highest
        while not over.wait(_EVERY_S):
            highest = max(highest, resident_mb())

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
        highest = max(highest, resident_mb())
        peaks["resident"] = max(peaks.get("resident", 0.0), highest - before)
        if gpu:
            peaks["gpu"] = max(peaks.get("gpu", 0.0), torch.cuda.max_memory_allocated() / MB - gpu_before)
