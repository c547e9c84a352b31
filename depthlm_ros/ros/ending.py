"""The end of the node's process: clean where it can be, and in time whatever still runs."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import NoReturn

from rclpy.executors import Executor
from rclpy.logging import get_logger

STOP_S = 1.0
"""How long a transition waits for the worker."""

CLOSE_S = 1.4
"""How long worker and engine together may take to end, where the process or the node's life ends with them."""

LAST_S = 1.7
"""From the signal until the process is ended by force. What is left of the 2 s of docs/launch.md is for the kernel,
which takes half a gigabyte and, with a GPU, its context from a process that ends."""

_CALLBACKS_S = 0.2
_WORDS_S = 0.1
_OURS = "depthlm_"
"""How the names of the node's own threads begin."""


class Watchdog:
    """Ends the process a while after its end was begun, whatever still runs then.

    Two threads wait for it from the start on, since at the end there may be none to be had; and one of them alone
    says why, since whatever keeps the process may hold the locks of the log, too.
    """

    def __init__(
        self,
        after_s: float = LAST_S,
        *,
        say: Callable[[str], None] | None = None,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """Begin to wait.

        Args:
            after_s: Seconds from :meth:`begin` to the end.
            say: Logs an error; None takes the node's log.
            leave: Ends the process with an exit code, which is 0.
        """
        self._after_s, self._leave = after_s, leave
        # An error, not a warning: with it ROS writes out what its log file still lacks.
        self._say = say or get_logger("depthlm").error
        self._begun, self._since = threading.Event(), 0.0
        for job in (self._last_words, self._end):
            threading.Thread(target=job, daemon=True, name="watchdog").start()

    def begin(self) -> None:
        """From now on the time runs."""
        self._since = time.monotonic()
        self._begun.set()

    def _wait(self, seconds: float) -> float:
        """Wait until so long after the beginning; returns how long it is ago."""
        self._begun.wait()
        time.sleep(max(self._since + seconds - time.monotonic(), 0.0))
        return time.monotonic() - self._since

    def _last_words(self) -> None:
        ago = self._wait(self._after_s - _WORDS_S)
        self._say(f"{ago:.1f} s after the end was asked for the process is ended while {still_running()}")
        flush()

    def _end(self) -> None:
        self._wait(self._after_s)
        self._leave(0)


def still_running() -> str:
    """What keeps the process, in words: where the main thread is, and the node's own threads."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    code = frame.f_code if frame else None
    where = (
        f"{Path(code.co_filename).name}:{frame.f_lineno}, {code.co_name}"
        if frame and code
        else "the interpreter"
    )
    return f"its main thread is in {where}" + "".join(f", {name} still works" for name in own_threads())


def own_threads() -> list[str]:
    """The node's own threads that have not ended: a model loads, answers, or is being freed."""
    return sorted({thread.name for thread in threading.enumerate() if thread.name.startswith(_OURS)})


def end_callbacks(executor: Executor, spinning: Future[None]) -> bool:
    """Shut an executor down, but do not wait for a callback that does not return.

    rclpy's own shutdown waits for all of them whatever time it is given; only the newest can be asked not to.

    Args:
        executor: Was told to end its spinning.
        spinning: Done once it has.

    Returns:
        Whether nothing of it runs any more.
    """
    wait((spinning,), _CALLBACKS_S)
    thread = threading.Thread(target=executor.shutdown, daemon=True)
    thread.start()
    thread.join(_CALLBACKS_S)
    return spinning.done() and not thread.is_alive()


def flush() -> None:
    """Write out what was printed."""
    sys.stdout.flush()
    sys.stderr.flush()


def leave(code: int) -> NoReturn:
    """End the process at once: taking the interpreter down around a thread that is inside the model can crash."""
    flush()
    os._exit(code)
