"""A process that a test started ends with the test run, also with one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tether import Tether

FOREVER = 60.0
PROGRAM = """
import subprocess, sys, threading, time
sys.path.insert(0, {here!r})
from tether import Tether

def start():
    global tether
    child = subprocess.Popen({child!r}, start_new_session=True, stdout=subprocess.DEVNULL)
    tether = Tether(child.pid)
    print(child.pid, tether.pid, flush=True)

thread = threading.Thread(target=start)
thread.start()
thread.join()
time.sleep(300)
"""


def is_there(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    end = time.monotonic() + FOREVER
    while is_there(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_there(pid)


@pytest.mark.parametrize(
    "child",
    [["sleep", "300"], ["sh", "-c", "trap '' INT TERM; while :; do sleep 0.2; done"]],
    ids=["polite", "deaf"],
)
def test_what_a_killed_run_has_started_ends(child: list[str]) -> None:
    text = textwrap.dedent(PROGRAM).format(here=str(Path(__file__).parent), child=child)
    parent = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        started, watch = (int(number) for number in parent.stdout.readline().split())
        # The thread that started it has ended, which a parent-death signal would take for the parent's death.
        time.sleep(0.5)
        assert is_there(started)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert gone(started)
    assert gone(watch)


def test_what_is_released_lives_on() -> None:
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        with Tether(child.pid) as tether:
            tether.release()
        assert gone(tether.pid)
        time.sleep(0.2)
        assert child.poll() is None
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
