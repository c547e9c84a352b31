"""Helpers of the set-up (``setup_env.py``): interpreters, system tools, logged commands, stamps.

Standard library only, and readable by any Python 3.8 or newer: this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterable, Iterator, NoReturn  # noqa: UP035  (runs on 3.8 to say what is wrong)

OLDEST, NEWEST = (3, 10), (3, 12)
LOG_LINES_SHOWN = 15

# What a log says, and what to do about it. The first match wins.
REMEDIES = [
    ("No space left on device", "The disk is full: free about 5 GB and run the same command again."),
    ("Temporary failure in name resolution", "There is no network: connect and run the same command again."),
    ("Failed to establish a new connection", "There is no network: connect and run the same command again."),
    ("NameResolutionError", "There is no network: connect and run the same command again."),
    ("connection broken by", "There is no network: connect and run the same command again."),
    ("Read timed out", "The network is slow: run the same command again, or set PIP_DEFAULT_TIMEOUT=300."),
    ("CERTIFICATE_VERIFY_FAILED", "A proxy replaces certificates: set PIP_CERT to your company's bundle."),
    (
        "No matching distribution found for ros-",
        "PyPI has no ROS wheel for this platform: install ROS 2 (humble, jazzy or kilted), source its "
        "setup.bash and run the same command again.",
    ),
    (
        "No matching distribution found for torch",
        "No PyTorch wheel for this platform at this index, or no network: check both, and TORCH_INDEX_URL "
        "(see `make help`).",
    ),
    (
        "Permission denied",
        "A file of .venv belongs to someone else: `make clean`, then the same command again.",
    ),
]
OTHERWISE = "Read the log; `make clean` and the same command again starts from nothing."


def fail(message: str) -> NoReturn:
    """Ends the set-up with one clear message.

    Args:
        message: What is wrong and what to do.
    """
    sys.stdout.flush()
    print(f"\nset-up stopped: {message}", file=sys.stderr)
    raise SystemExit(1)


def remedy(log_text: str) -> str:
    """Finds what to do about a failed command.

    Args:
        log_text: What the command printed.

    Returns:
        A sentence for the user.
    """
    return next((advice for sign, advice in REMEDIES if sign in log_text), OTHERWISE)


def run_logged(command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Runs a command into a log; on failure shows the log's end and what to do, and stops.

    Args:
        command: The program and its arguments.
        log: Appended to.
        env: The whole environment; None for the current one.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        stream.write("$ " + " ".join(command) + "\n")
        stream.flush()
        before = stream.tell()
        code = subprocess.call(command, stdout=stream, stderr=subprocess.STDOUT, env=env)
    if code != 0:
        text = log.read_bytes()[before:].decode("utf-8", "replace")
        tail = "\n".join("    " + line for line in text.splitlines()[-LOG_LINES_SHOWN:])
        fail(f"{Path(command[0]).name} failed with code {code}. The end of {log}:\n{tail}\n{remedy(text)}")


def run_timed(name: str, action: Callable[[], None]) -> None:
    """Runs one step and prints its name and how long it took, on one line.

    Args:
        name: What the step does, in a few words.
        action: The step.
    """
    print(f"  {name} ...", end="", flush=True)
    start = time.monotonic()
    action()
    print(f" {time.monotonic() - start:.1f} s", flush=True)


def digest(*parts: object) -> str:
    """Hashes what a step depends on.

    Args:
        *parts: Files and directories as `Path` (their names and contents count), anything else as text.

    Returns:
        A hexadecimal SHA-256.
    """
    sha = hashlib.sha256()
    for part in parts:
        files = sorted(_files_of(part)) if isinstance(part, Path) else []
        for file in files:
            sha.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
        if not isinstance(part, Path):
            sha.update(str(part).encode() + b"\0")
    return sha.hexdigest()


def _files_of(path: Path) -> Iterator[Path]:
    if path.is_dir():
        ignored = ("__pycache__", "build")
        yield from (
            f
            for f in path.rglob("*")
            if f.is_file() and not any(p in ignored or p.endswith(".egg-info") for p in f.parts)
        )
    elif path.is_file():
        yield path


class Stamps:
    """Remembers which steps are done, and from what, in one JSON file.

    A step's stamp is written only after the step has ended well, so an interrupted set-up goes on
    where it stopped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            loaded = {}
        self._done: dict[str, str] = loaded if isinstance(loaded, dict) else {}

    def is_current(self, step: str, key: str) -> bool:
        """Tells whether `step` was done from just this `key`."""
        return self._done.get(step) == key

    def record(self, step: str, key: str | None) -> None:
        """Records `step` as done from `key`; None forgets it."""
        self._done.pop(step, None)
        if key is not None:
            self._done[step] = key
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._done, indent=1), encoding="utf-8")
        partial.replace(self._path)


def ask_python(python: str, code: str, env: dict[str, str] | None = None) -> str | None:
    """Runs a line in another interpreter.

    Args:
        python: The interpreter.
        code: What it runs.
        env: The whole environment; None for the current one.

    Returns:
        What it printed, stripped; None when it could not be run or failed.
    """
    try:
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, env=env, timeout=300, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def python_version(python: str) -> tuple[int, int] | None:
    """Asks an interpreter for its version, as (major, minor); None where it does not run."""
    answer = ask_python(python, "import sys; print(*sys.version_info[:2])")
    major_minor = tuple(int(n) for n in (answer or "").split())
    return major_minor if len(major_minor) == 2 else None  # type: ignore[return-value]


def choose_python(candidates: Iterable[str], works: Callable[[str], bool] = lambda _: True) -> str | None:
    """Takes the first interpreter whose version is supported.

    Args:
        candidates: Names or paths, best first.
        works: A further condition.

    Returns:
        The interpreter's full path, or None.
    """
    for name in candidates:
        path = shutil.which(name)
        version = python_version(path) if path else None
        if path and version and OLDEST <= version <= NEWEST and works(path):
            # The real interpreter rather than a version manager's launcher.
            return ask_python(path, "import sys; print(sys.executable)") or path
    return None


def check_system(python: str, without_ros: bool) -> None:
    """Checks what pip cannot install; names all that is missing at once, with the command that adds it.

    Args:
        python: The interpreter that the virtual environment will use.
        without_ros: Whether the ROS wheels will be needed.
    """
    if without_ros and (sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64")):
        fail(
            f"PyPI has ROS wheels for Linux on x86-64 only, and this is {sys.platform} on {platform.machine()}. "
            "Install ROS 2 (humble, jazzy or kilted), source its setup.bash and run the same command again."
        )
    version = ".".join(str(n) for n in python_version(python) or ())
    missing = []
    if ask_python(python, "import venv, ensurepip") is None:
        missing.append((f"the venv module of Python {version}", f"python{version}-venv"))
    header = ask_python(
        python, "import sysconfig, os; print(os.path.exists(sysconfig.get_path('include') + '/Python.h'))"
    )
    if header != "True":
        missing.append((f"the C headers of Python {version} (Python.h)", f"python{version}-dev"))
    if not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        missing.append(("a C++ compiler", "g++"))
    if not any(shutil.which(name) for name in ("make", "ninja")):
        missing.append(("make", "make"))
    if missing:
        what = ", ".join(name for name, _ in missing)
        packages = " ".join(package for _, package in missing)
        fail(
            f"{what} not found. Install with\n    sudo apt-get install {packages}\nand run the same command again."
        )


def relocate_cmake_files(prefix: Path, python_include: str, numpy_include: str) -> int:
    """Points the ROS wheels' CMake files at this machine's Python and numpy headers.

    The wheels carry the paths of the machine that built them (``/opt/python/cp3XX-cp3XX/...``), and CMake
    refuses a target whose include directories do not exist.

    Args:
        prefix: The virtual environment; only files under its ``share`` are touched.
        python_include: Directory of ``Python.h``.
        numpy_include: ``numpy.get_include()``.

    Returns:
        How many files changed.
    """
    import re

    # The headers first: what is left of the build machine's root is not an include directory.
    rules = [
        (
            re.compile(r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/_?core/include"),
            numpy_include,
        ),
        (re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+"), python_include),
    ]
    changed = 0
    for file in prefix.glob("share/*/cmake/*.cmake"):
        text = fixed = file.read_text(encoding="utf-8")
        for pattern, replacement in rules:
            fixed = pattern.sub(lambda _, path=replacement: path, fixed)
        if fixed != text:
            file.write_text(fixed, encoding="utf-8")
            changed += 1
    return changed


def build_messages(
    cmake: str,
    source: Path,
    build: Path,
    prefix: Path,
    python: str,
    options: list[str],
    log: Path,
    env: dict[str, str],
) -> None:
    """Builds and installs a package of messages.

    Args:
        cmake: The program.
        source: Where its CMakeLists.txt is.
        build: Where it is built.
        prefix: Where it is installed.
        python: The interpreter that it is for.
        options: More of CMake's, the directory of the Python modules (``PYTHON_INSTALL_DIR``) among them.
        log: What the commands print goes to its end.
        env: The whole environment.
    """
    configure = [
        *(cmake, "-S", str(source), "-B", str(build)),
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
        f"-DPython3_EXECUTABLE={python}",
        f"-DPYTHON_EXECUTABLE={python}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
        *options,
    ]
    run_logged(configure, log, env)
    jobs = str(os.cpu_count() or 1)
    run_logged([cmake, "--build", str(build), "--target", "install", "-j", jobs], log, env)


def clean_environment() -> dict[str, str]:
    """The environment for child processes: without the traces of another virtual environment."""
    dropped = ("VIRTUAL_ENV", "PYTHONHOME", "PIP_REQUIRE_VIRTUALENV", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    return {k: v for k, v in os.environ.items() if k not in dropped}
