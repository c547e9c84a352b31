"""What a machine has for running models: GPUs and their driver, and the packages of a Python.

No CUDA library but the driver's is loaded, nothing of torch is initialised, and no engine is imported.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""

_PROBE = """
import ctypes.util, importlib.util, json, sys
from importlib import metadata
found = {}
for name in %s:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
requires = metadata.requires("tensorrt_llm") or [] if "tensorrt_llm" in found else []
print(json.dumps({
    "python": sys.version.split()[0],
    "packages": found,
    "importable": importlib.util.find_spec("tensorrt_llm") is not None,
    "requires": requires,
    "libmpi": ctypes.util.find_library("mpi") or "",
}))
"""
PACKAGES = ("tensorrt_llm", "numpy", "torch", "transformers", "mpi4py", "pillow")


@dataclass(frozen=True)
class Gpu:
    """A CUDA device.

    Attributes:
        name: The maker's name.
        memory_gib: Its whole memory.
        capability: Compute capability, such as (9, 0).
    """

    name: str
    memory_gib: float
    capability: tuple[int, int]


@dataclass(frozen=True)
class Driver:
    """The CUDA driver.

    Attributes:
        cuda: The newest CUDA version that it runs, such as (13, 0); None where there is no driver.
        gpus: Its devices.
        problem: Why there is no driver or no device; empty where there is.
    """

    cuda: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class PythonFacts:
    """What one Python has.

    Attributes:
        python: Its version.
        packages: {distribution: version} of those of :data:`PACKAGES` that are installed.
        importable: Whether there is a module ``tensorrt_llm`` (which is not imported).
        requires: What TensorRT-LLM's own metadata requires.
        libmpi: The MPI library that the loader finds; empty without one.
        problem: Why nothing is known; empty where it is.
    """

    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    importable: bool = False
    requires: tuple[str, ...] = ()
    libmpi: str = ""
    problem: str = ""


def read_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver:
    """Ask the CUDA driver for its version and devices.

    Args:
        load: Opens the driver's library by name.
    """
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        return Driver(problem="no CUDA driver (libcuda.so.1)")
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    release = version.value // 1000, version.value % 1000 // 10
    status = cuda.cuInit(0)
    if status or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return Driver(release, problem=f"the CUDA driver is there but does not start (cuInit says {status})")
    gpus = tuple(_gpu(cuda, number) for number in range(count.value))
    return Driver(release, gpus, "" if gpus else "the CUDA driver finds no GPU")


def _gpu(cuda: Any, number: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(128)
    major, minor = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return Gpu(name.value.decode("utf-8", "replace"), memory.value / 2**30, (major.value, minor.value))


def read_python(python: str, timeout_s: float = 60.0) -> PythonFacts:
    """Ask a Python, in a process of its own, what is installed for it.

    Args:
        python: Its executable.
        timeout_s: How long it may take.
    """
    try:
        done = subprocess.run(
            [python, "-c", _PROBE % (PACKAGES,)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=True,
        )
        facts = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"it ended with status {error.returncode}"]
        return PythonFacts(problem=f"{python}: {lines[-1]}")
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return PythonFacts(problem=f"{python}: {error}")
    return PythonFacts(**{**facts, "requires": tuple(facts["requires"])})


def jetson() -> str:
    """The name of the Jetson that this is; empty on any other machine."""
    model = Path("/proc/device-tree/model")
    try:
        text = model.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""
    return text if "jetson" in text.lower() or "orin" in text.lower() or "thor" in text.lower() else ""


def weights_gib(checkpoint: Path) -> float:
    """Size of a checkpoint's weights."""
    return sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")) / 2**30
