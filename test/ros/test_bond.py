"""The node's half of a bond against another process that holds the other half as nav2_lifecycle_manager does."""

from __future__ import annotations

import importlib.util
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from graph import Bench, NodeProcess, alone
from lifecycle_msgs.msg import Transition

CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE = Transition.TRANSITION_DEACTIVATE
HERE = Path(__file__).parent
INSTALLED = importlib.util.find_spec("bond") is not None
FOREVER = 120.0
"""Longer than any test waits, and longer than any half of a bond has patience where that is not what is tested."""


@pytest.fixture(scope="module", autouse=True)
def _bond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Makes ``bond`` importable for the processes of these tests: where it is missing, its message is built."""
    if INSTALLED:
        yield
        return
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("needs bond_core (ros-$ROS_DISTRO-bond), or cmake to build its message")
    spec = importlib.util.spec_from_file_location(
        "setup_tools", HERE.parents[1] / "scripts" / "setup_tools.py"
    )
    assert spec is not None
    assert spec.loader is not None
    tools = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tools)
    place = tmp_path_factory.mktemp("bond")
    prefix, modules = place / "prefix", "lib/python"
    before = {
        name: os.environ.get(name, "") for name in ("CMAKE_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
    }
    prefixes = {**os.environ, "CMAKE_PREFIX_PATH": os.pathsep.join((sys.prefix, before["CMAKE_PREFIX_PATH"]))}
    tools.build_messages(
        cmake, HERE / "bond_message", place / "build", prefix, sys.executable, [f"-DPYTHON_INSTALL_DIR={modules}"],
        place / "log", prefixes,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, found in (("LD_LIBRARY_PATH", prefix / "lib"), ("PYTHONPATH", prefix / modules)):
            patch.setenv(name, os.pathsep.join((str(found), before[name])))
        yield


class Manager:
    """The other half, in a process of its own."""

    def __init__(self, bench: Bench, name: str, **patience: float) -> None:
        command = [sys.executable, str(HERE / "bond_peer.py"), bench.get_namespace(), name]
        command += [text for option, value in patience.items() for text in (f"--{option}", str(value))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put("the process has ended")

    def says(self) -> str:
        """What becomes of its half next; waits for it."""
        return self._lines.get(timeout=FOREVER)

    def is_silent(self) -> bool:
        return self._lines.empty()

    def break_off(self) -> None:
        self._process.stdin.write("break\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.stdin.close()
        assert self._process.wait(FOREVER) == 0


@contextmanager
def manager(
    bench: Bench, name: str = "depthlm", connect: float = FOREVER, heartbeat: float = FOREVER, misses: int = 0
) -> Iterator[Manager]:
    """The half of a manager that has just begun."""
    found = Manager(bench, name, connect=connect, heartbeat=heartbeat, misses=misses)
    try:
        assert found.says() == "waiting"
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[NodeProcess, Bench]]:
    """A configured node."""
    with alone() as (node, bench):
        assert bench.transition(CONFIGURE)
        yield node, bench


def test_a_bond_is_formed_with_activation_and_broken_with_deactivation(
    running: tuple[NodeProcess, Bench],
) -> None:
    _, bench = running
    for _ in range(2):
        with manager(bench) as ours, manager(bench, name="another_node") as another:
            bench.wait(lambda: len(bench.get_publishers_info_by_topic(f"{bench.get_namespace()}/bond")) == 3)
            bench.spin(1.0)
            assert ours.is_silent()
            assert bench.transition(ACTIVATE)
            assert ours.says() == "alive"
            assert bench.transition(DEACTIVATE)
            assert ours.says() == "dead broken by the other"
            assert another.is_silent()


def test_a_node_goes_on_when_its_manager_ends_the_bond(running: tuple[NodeProcess, Bench]) -> None:
    node, bench = running
    assert bench.transition(ACTIVATE)
    with manager(bench, misses=3) as ours:
        assert ours.says() == "alive"
        ours.break_off()
        assert ours.says() == "awaiting the other's death"
        assert ours.says() == "dead answered"
    assert bench.send_until_answered()
    with manager(bench, connect=3.0) as late:
        assert late.says() == "dead no counterpart"
    assert bench.transition(DEACTIVATE)
    assert bench.transition(ACTIVATE)
    with manager(bench) as ours:
        assert ours.says() == "alive"
        assert bench.transition(DEACTIVATE)
        assert ours.says() == "dead broken by the other"
    assert not node.logged("Traceback"), "\n".join(node.log)


def test_the_bond_is_lost_when_the_process_is_killed() -> None:
    # Nobody publishes /clock: signs of life do not wait for it.
    with alone("lifecycle.autostart:=true", "lifecycle.bond:=required", "use_sim_time:=true") as (
        node,
        bench,
    ):
        bench.wait(lambda: bench.state() == "active", FOREVER)
        with manager(bench, heartbeat=4.0) as ours:
            assert ours.says() == "alive"
            bench.spin(5.0)
            assert ours.is_silent()
            node.process.kill()
            assert ours.says() == "dead no heartbeat"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_a_signal_ends_breaks_its_bond(signum: int) -> None:
    with alone("lifecycle.autostart:=true") as (node, bench):
        bench.wait(lambda: bench.state() == "active", FOREVER)
        with manager(bench) as ours:
            assert ours.says() == "alive"
            assert node.end(signum) == 0, "\n".join(node.log)
            assert ours.says() == "dead broken by the other"
        assert not node.logged("Traceback"), "\n".join(node.log)


def test_without_a_manager_the_node_falls_silent_after_a_while(running: tuple[NodeProcess, Bench]) -> None:
    _, bench = running
    assert bench.transition(ACTIVATE)
    bench.spin(11.0)
    with manager(bench, connect=3.0) as late:
        assert late.says() == "dead no counterpart"
    assert bench.transition(DEACTIVATE)


def test_nobody_is_bound_who_does_not_want_to_be() -> None:
    with alone("lifecycle.autostart:=true", "lifecycle.bond:=never") as (node, bench):
        bench.wait(lambda: bench.state() == "active", FOREVER)
        topic = f"{bench.get_namespace()}/bond"
        assert (bench.count_publishers(topic), bench.count_subscribers(topic)) == (0, 0)
        assert not node.logged("bond")


@pytest.mark.skipif(INSTALLED, reason="the package bond is installed here")
@pytest.mark.parametrize(("wanted", "possible"), [("auto", True), ("required", False)])
def test_where_there_is_no_package_bond_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, wanted: str, possible: bool
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.environ["PYTHONPATH"].split(os.pathsep, 1)[1])
    with alone(f"lifecycle.bond:={wanted}") as (node, bench):
        assert bench.transition(CONFIGURE) is possible
        bench.wait(lambda: node.logged("the package 'bond' is not installed"))
        assert node.logged("install ros-$ROS_DISTRO-bond")
        assert bool(node.logged("cannot configure: lifecycle.bond is 'required'")) is not possible
        if possible:
            assert bench.transition(ACTIVATE)
            assert bench.send_until_answered()
