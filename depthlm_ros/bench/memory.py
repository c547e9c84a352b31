"""Memory of this process and of its GPU."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

MB = 1e6
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""Written to ``clear_refs``, it sets the kernel's mark of the highest resident memory back to what there is now."""

Peaks = dict[str, dict[str, float]]
"""{``resident`` or ``gpu``: {``above_rest``, ``peak``}}, in MB."""


def resident_mb() -> float:
    """Memory of this process that is resident, in MB (Linux)."""
    return _status_mb("VmRSS")


def _status_mb(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no {name}")
    return int(found[1]) * 1024 / MB


def give_back() -> None:
    """Give the system what was freed. Other C libraries than glibc do so by themselves, or cannot be asked to."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_memory(device: str, work: Callable[[], object]) -> Peaks:
    """How much memory a piece of work takes at its peak.

    What was freed before is given back first: memory that an earlier piece of work left to be used again would
    hide what this one needs, so that figures would depend on the order.

    Args:
        device: ``cpu`` or ``cuda``.
        work: What is done, once.

    Returns:
        ``resident`` and, with CUDA, ``gpu``: the peak, and by how much it is above what was there before. On a kernel
        that keeps no mark of the peak there is no ``resident``.
    """
    give_back()
    peaks: Peaks = {}
    gpu = device.startswith("cuda")
    if gpu:
        import torch

        torch.cuda.reset_peak_memory_stats()
        gpu_rest = torch.cuda.memory_allocated() / MB
    # The kernel's own mark misses no peak, however short; looking from a thread would, and would take time.
    marked = _reset_peak()
    rest = resident_mb()
    work()
    if marked:
        # The mark and what is resident are counted a few pages apart.
        peak = max(_status_mb("VmHWM"), rest)
        peaks["resident"] = {"above_rest": peak - rest, "peak": peak}
    if gpu:
        peak = torch.cuda.max_memory_allocated() / MB
        peaks["gpu"] = {"above_rest": peak - gpu_rest, "peak": peak}
    return peaks


def _reset_peak() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True
