"""Creates ``.venv`` with everything that `make demo` and `make test` need. Run by ``make setup``.

Without ROS, a real rclpy comes from PyPI. With ROS 2 sourced, that ROS is used and nothing of it is
installed. Either way our messages are built into the virtual environment and the Python modules are
taken from this checkout. Only steps whose inputs changed since the last run run again. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import setup_tools as tools

ROOT = Path(__file__).resolve().parent.parent
_PROGRAM = """\
import sys

from depthlm_ros.cli import main

# Rendering spawns processes, which import this file again.
if __name__ == "__main__":
    sys.exit(main())
"""
REQUIREMENTS = ROOT / "requirements"
STANDINS = ("cv_bridge", "message_filters", "sensor_msgs_py")
# Looked for after every set-up: a virtual environment that lost one of these is repaired.
NEED_TORCH = ("torch", "transformers", "accelerate", "datasets", "peft", "trl")
EXPECTED = (
    f"{' '.join(NEED_TORCH)} cv2 scipy typer rclpy cv_bridge message_filters sensor_msgs_py sensor_msgs.msg "
    "std_msgs.msg geometry_msgs.msg diagnostic_msgs.msg lifecycle_msgs.msg rcl_interfaces.msg pytest "
    "ruff mypy depthlm_ros.msg"
)


class Setup:
    """One run of the set-up.

    Args:
        venv: Where the virtual environment is made.
        skip_torch: Leave out PyTorch and what needs it; for trying the ROS part alone.
    """

    def __init__(self, venv: Path, skip_torch: bool = False) -> None:
        self.venv = venv
        self.bin = venv / "bin"
        self.python = str(self.bin / "python")
        self.skip_torch = skip_torch
        self.ros = self._sourced_ros()
        self.base_python = self._base_python()
        version = tools.python_version(self.base_python)
        assert version is not None
        self.site = venv / "lib" / "python{}.{}".format(*version) / "site-packages"
        self.env = self._environment()
        self.identity = tools.digest(self.base_python, version, self.ros, str(venv))

    # --- what we start from ---------------------------------------------------------------------

    @staticmethod
    def _sourced_ros() -> str | None:
        """The name of the sourced ROS 2 distribution, or None.

        Not its prefixes: sourcing a workspace, or this environment's own env.sh, does not make it another ROS.
        """
        return os.environ.get("ROS_DISTRO") or None

    def _base_python(self) -> str:
        wanted = os.environ.get("PYTHON")
        if self.ros:
            names = [wanted] if wanted else ["/usr/bin/python3", "python3"]
            found = tools.choose_python(names, lambda p: tools.ask_python(p, "import rclpy") is not None)
            if found is None:
                tools.fail(
                    f"ROS_DISTRO is set, but {' and '.join(names)} (3.10 to 3.12) cannot import rclpy. Source "
                    "/opt/ros/<distro>/setup.bash; or, to use ROS from PyPI instead, start a shell in which no "
                    "ROS is sourced."
                )
            return found
        names = [wanted] if wanted else ["python3", "python3.12", "python3.11", "python3.10"]
        found = tools.choose_python(names)
        if found is None:
            tools.fail(
                f"none of {', '.join(names)} is a Python 3.10, 3.11 or 3.12. Install one (Debian and Ubuntu: "
                "sudo apt-get install python3 python3-venv python3-dev) and name it if it is not on the PATH: "
                "make setup PYTHON=/path/to/python3.11"
            )
        return found

    def _environment(self) -> dict[str, str]:
        env = tools.clean_environment()
        env["PATH"] = f"{self.bin}{os.pathsep}{env.get('PATH', os.defpath)}"
        for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
            inherited = env.get(name, "") if self.ros else ""
            env[name] = os.pathsep.join(p for p in (str(self.venv), inherited) if p)
        libraries = (str(self.venv / "lib"), env.get("LD_LIBRARY_PATH", ""))
        env["LD_LIBRARY_PATH"] = os.pathsep.join(p for p in libraries if p)
        if not self.ros:
            env.pop("PYTHONPATH", None)
        return env

    # --- the steps ------------------------------------------------------------------------------

    def run(self) -> None:
        """Runs every step that is not up to date, then checks the result."""
        source = f"ROS 2 {self.ros} (sourced)" if self.ros else "ROS 2 kilted from PyPI"
        print(f"set-up: {self.venv}, {source}, {self.base_python}", flush=True)
        stamps = self._stamps()
        if (
            not stamps.is_current("venv", self.identity)
            or tools.ask_python(self.python, "import pip") is None
        ):
            stamps = self._create_venv()
        self._run_steps(stamps)
        # pip does not see that files of a package are gone, so that only a new environment repairs it.
        for repair in ("our own part", "everything"):
            if not (broken := self._what_is_broken()):
                return
            print(f"  {broken}: making {repair} anew", flush=True)
            if repair == "everything":
                stamps = self._create_venv()
            for name in ("messages", "standins", "links"):
                stamps.record(name, None)
            self._run_steps(stamps)
        if broken := self._what_is_broken():
            tools.fail(f"{self.venv} does not work: {broken}\n{tools.OTHERWISE}")

    def _stamps(self) -> tools.Stamps:
        return tools.Stamps(self.venv / "setup.json")

    def _run_steps(self, stamps: tools.Stamps) -> None:
        interfaces = [ROOT / name for name in ("msg", "srv", "CMakeLists.txt", "package.xml")]
        numbers = REQUIREMENTS / ("numpy-ros.txt" if self.ros else "numpy.txt")
        lists = [REQUIREMENTS / "base.txt", REQUIREMENTS / "dev.txt", numbers]
        if not self.skip_torch:
            lists.append(REQUIREMENTS / "train.txt")
        torch, ros = REQUIREMENTS / "torch.txt", REQUIREMENTS / "ros.txt"
        steps = [
            ("torch", "PyTorch (large unless it is a CPU build)", self._install_torch, [torch]),
            ("packages", "Python packages", lambda: self._install_packages(lists), [torch, *lists]),
            ("ros", "ROS 2 wheels", self._install_ros, [ros, numbers]),
            ("messages", "messages", self._build_messages, [ros, numbers, *interfaces]),
            ("standins", "stand-ins", self._install_standins, [ros, ROOT / "standins"]),
            ("links", "links to this checkout", self._write_links, [Path(__file__), ROOT]),
        ]
        for name, title, action, inputs in steps:
            if (name == "torch" and self.skip_torch) or (name == "ros" and self.ros):
                continue
            parts = [str(p) if p == ROOT else p for p in inputs]
            key = tools.digest(self.identity, *parts)
            if not stamps.is_current(name, key):
                tools.run_timed(title, action)
                stamps.record(name, key)

    def _create_venv(self) -> tools.Stamps:
        tools.check_system(self.base_python, without_ros=not self.ros)
        tools.run_timed("virtual environment", self._recreate)
        stamps = self._stamps()
        stamps.record("venv", self.identity)
        return stamps

    def _recreate(self) -> None:
        if self.venv.exists():
            if not (self.venv / "pyvenv.cfg").exists() and any(self.venv.iterdir()):
                tools.fail(f"{self.venv} is not a virtual environment; move it away.")
            # First, so that what an interruption leaves is not taken for whole.
            (self.venv / "setup.json").unlink(missing_ok=True)
        options = ["--system-site-packages"] if self.ros else []
        command = [self.base_python, "-m", "venv", "--clear", *options, str(self.venv)]
        tools.run_logged(command, ROOT / "log" / "setup-venv.log", tools.clean_environment())
        # colcon would take the packages in here for sources of the workspace.
        (self.venv / "COLCON_IGNORE").touch()

    def _pip(self, log: str, *arguments: str) -> None:
        command = [self.python, "-m", "pip", "install", "--disable-pip-version-check", *arguments]
        tools.run_logged(command, ROOT / "log" / f"setup-{log}.log", self.env)

    def _install_torch(self) -> None:
        index = os.environ.get("TORCH_INDEX_URL")
        self._pip("torch", *(["--index-url", index] if index else []), "-r", str(REQUIREMENTS / "torch.txt"))

    def _install_packages(self, lists: list[Path]) -> None:
        wanted = [line.strip() for file in lists for line in file.read_text().splitlines()]
        wanted = [line for line in wanted if line and not line.startswith("#")]
        if self.skip_torch:
            wanted = [line for line in wanted if not line.startswith("transformers")]
        if self.ros and tools.ask_python(self.python, "import cv2", self.env) is not None:
            # The OpenCV that this ROS's cv_bridge was built against.
            wanted = [line for line in wanted if not line.startswith("opencv")]
        constraint = [] if self.skip_torch else ["-c", str(REQUIREMENTS / "torch.txt")]
        self._pip("packages", *constraint, *wanted)

    def _install_ros(self) -> None:
        # numpy is named again so that nothing of ROS brings another one.
        self._pip("ros", "-r", str(REQUIREMENTS / "ros.txt"), "-c", str(REQUIREMENTS / "numpy.txt"), "numpy")
        ask = "import sysconfig, numpy; print(sysconfig.get_path('include')); print(numpy.get_include())"
        answer = tools.ask_python(self.python, ask, self.env)
        if answer is None:
            tools.fail(f"{self.python} cannot import numpy: `make clean`, then the same command again.")
        tools.relocate_cmake_files(self.venv, *answer.splitlines())

    def _build_messages(self) -> None:
        log = ROOT / "log" / "setup-messages.log"
        cmake = shutil.which("cmake", path=self.env["PATH"])
        if cmake is None:
            self._pip("messages", "cmake>=3.16,<5")
            cmake = str(self.bin / "cmake")
        build = self.venv / "build-messages"
        shutil.rmtree(build, ignore_errors=True)
        # What an earlier run installed: an interface that was removed since must not stay.
        for pattern in ("share/depthlm_ros", "include/depthlm_ros", "lib/libdepthlm_ros__*"):
            for old in self.venv.glob(pattern):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        generated = self.site / "depthlm_ros"
        shutil.rmtree(generated, ignore_errors=True)
        options = [f"-DPYTHON_INSTALL_DIR={self.site.relative_to(self.venv)}", "-DDEPTHLM_MESSAGES_ONLY=ON"]
        tools.build_messages(cmake, ROOT, build, self.venv, self.python, options, log, self.env)
        # Without its (empty) __init__.py this directory does not hide the checkout's package, whose own
        # __init__.py then finds `msg` and `srv` here.
        (generated / "__init__.py").unlink()
        shutil.rmtree(generated / "__pycache__", ignore_errors=True)
        shutil.rmtree(build, ignore_errors=True)

    def _install_standins(self) -> None:
        uninstall = [self.python, "-m", "pip", "uninstall", "-y", "depthlm-ros-standins"]
        tools.run_logged(uninstall, ROOT / "log" / "setup-standins.log", self.env)
        absent = [
            name for name in STANDINS if tools.ask_python(self.python, f"import {name}", self.env) is None
        ]
        if not absent:
            return
        # Built from a copy: setuptools leaves its traces beside the sources.
        copy = self.venv / "build-standins"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(ROOT / "standins", copy)
        self.env["DEPTHLM_STANDINS"] = " ".join(absent)
        self._pip("standins", "--no-build-isolation", "--no-deps", str(copy))
        shutil.rmtree(copy, ignore_errors=True)

    def _write_links(self) -> None:
        (self.site / "depthlm_ros_checkout.pth").write_text(f"{ROOT}\n", encoding="utf-8")
        # ROS 2 before kilted reads the old name; kilted warns about it.
        old_ros = bool(self.ros) and self.ros in ("humble", "iron", "jazzy")
        variables = ["FASTDDS_DEFAULT_PROFILES_FILE", *["FASTRTPS_DEFAULT_PROFILES_FILE"] * old_ros]
        profile = shlex.quote(str(ROOT / "config" / "fastdds.xml"))
        lines = [
            "# Source this to use the virtual environment with our messages: . .venv/env.sh",
            "unset _ROS_WHEELS_BOOTSTRAP_COMPLETE",
            *(
                f'export {name}={shlex.quote(str(path))}"${{{name}:+:${name}}}"'
                for name, path in [
                    ("PATH", self.bin),
                    ("LD_LIBRARY_PATH", self.venv / "lib"),
                    ("AMENT_PREFIX_PATH", self.venv),
                ]
            ),
            # Large images over BEST_EFFORT need it; a profile of the user's own wins.
            *(f': "${{{name}:={profile}}}" && export {name}' for name in variables),
        ]
        env_file = self.venv / "env.sh"
        env_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        program = self.venv / "libexec" / "depthlm"
        program.parent.mkdir(exist_ok=True)
        program.write_text(_PROGRAM, encoding="utf-8")
        command = self.bin / "depthlm"
        python, source = shlex.quote(self.python), shlex.quote(str(env_file))
        text = f'#!/bin/sh\n. {source}\nexec {python} {shlex.quote(str(program))} "$@"\n'
        command.write_text(text, encoding="utf-8")
        command.chmod(0o755)

    def _what_is_broken(self) -> str:
        """What is amiss, in a few words; empty when nothing is."""
        left_out = NEED_TORCH if self.skip_torch else ()
        expected = [name for name in EXPECTED.split() if name not in left_out]
        code = (
            "from importlib.util import find_spec as f\n"
            f"print(next((n for n in {expected!r} if f(n) is None), ''))\n"
            "import rclpy, cv2\n"
            "from depthlm_ros.msg import SparseDepth; SparseDepth()\n"
        )
        answer = tools.ask_python(self.python, code, self.env)
        return "it cannot import what it should" if answer is None else answer and f"no {answer}"


def main() -> None:
    """Runs the set-up; two at a time wait for each other."""
    start = time.monotonic()
    venv = Path(os.environ.get("DEPTHLM_VENV", ROOT / ".venv")).absolute()
    with open(__file__, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Setup(venv, skip_torch="--skip-torch" in sys.argv[1:]).run()
    print(f"set-up: ready after {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
