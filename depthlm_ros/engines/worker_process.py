"""One worker process: how it is started, what it said last, and how it ends for certain."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.worker_channel import Channel, ChannelClosedError
from depthlm_ros.engines.worker_reaping import TOKEN_VARIABLE, kill_processes

IDLE_STOP_S, BUSY_STOP_S = 1.0, 0.3
"""How long a worker may take to end by itself once it is told to. One that still works on something is not likely to
hear it; a node must be gone within two seconds."""

_KILL_S, _REAP_S = 0.5, 0.2

_LOG = logging.getLogger(__name__)
_LINES, _WIDTH = 6, 300


class WorkerProcess:
    """A process of its own session, with a channel to it.

    It never outlives this process: when this one is gone, however it ended, the channel closes, and the worker then
    kills all that it started and itself (:func:`worker_main.run_worker`).

    Args:
        argv: The command; the number of the channel's descriptor is added as its last argument.

    Raises:
        EngineError: The command cannot be run.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._token = secrets.token_hex(16)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.channel = Channel(ours)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*argv, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, TOKEN_VARIABLE: self._token},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in a terminal is for the parent, which then stops the worker
                )
        except OSError as error:
            self.channel.close()
            raise EngineError(
                f"the worker process cannot be started: {argv[0]}: {error}; check engine.worker_python"
            ) from error
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._drain = threading.Thread(target=self._read_log, name="worker log", daemon=True)
        self._drain.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone. What it started may still hold its end of the channel."""
        return self._process.poll() is not None

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            if line:
                self._lines.append(line[:_WIDTH])
                _LOG.debug("worker %d: %s", self.pid, line)

    def how_it_ended(self, otherwise: str = "", *, hurry: threading.Event | None = None) -> str:
        """How the process ended, with the last lines that it wrote.

        Args:
            otherwise: What is said of it if it still runs after a second.
            hurry: Once it is set, that second is not waited for.
        """
        end, hurry = time.monotonic() + 1.0, hurry or threading.Event()
        while (status := self._process.poll()) is None and time.monotonic() < end and not hurry.wait(0.02):
            pass
        if status is None:
            ended = f"runs but {otherwise}"
        else:
            ended = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
            self._drain.join(0.5)  # what it wrote last is still on its way
        return f"{ended}{self.last_words()}"

    def last_words(self) -> str:
        """The last lines that it wrote, as the end of a sentence; empty without any."""
        return f"; its last lines: {' | '.join(self._lines)}" if self._lines else ""

    def stop(self, *, busy: bool = False) -> None:
        """End it and all that it started: by asking, then by force. Returns within about a second and a half.

        Args:
            busy: Whether it still works on something.
        """
        end = time.monotonic() + (BUSY_STOP_S if busy else IDLE_STOP_S)
        try:
            self.channel.send({"op": "stop"}, within_s=BUSY_STOP_S)
            self._process.wait(max(0.0, end - time.monotonic()))
        except (ChannelClosedError, subprocess.TimeoutExpired):
            _LOG.debug("worker %d does not end by itself and is killed", self.pid)
            if not self.ended:  # else its number may be another's by now
                os.killpg(self.pid, signal.SIGKILL)
        left = kill_processes(self._token, wait_s=_KILL_S)
        if left:
            _LOG.error(
                "processes %s of the worker cannot be killed yet (a GPU driver holds them)", sorted(left)
            )
        self.channel.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)
        self._drain.join(_REAP_S)
        if self._process.stdout is not None and not self._drain.is_alive():
            self._process.stdout.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
