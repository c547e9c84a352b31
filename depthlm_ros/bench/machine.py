"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from depthlm_ros import __version__


def machine_record(device: str, dtype: str) -> dict[str, Any]:
    """Device, dtype, threads and versions.

    Args:
        device: ``cpu`` or ``cuda``.
        dtype: Of the model.
    """
    import torch
    import transformers

    cuda = device.startswith("cuda")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name() if cuda else processor_name(),
        "dtype": dtype,
        "attention": "sdpa",
        "threads": torch.get_num_threads(),
        "cores": usable,
        "load_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "depthlm_ros": __version__,
    }


def processor_name() -> str:
    """The processor's name as Linux knows it, or its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
