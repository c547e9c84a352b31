"""Ends a process with the test run that started it, however that ends: a killed pytest cleans nothing up."""

from __future__ import annotations

import subprocess
from types import TracebackType

_WATCH = """
read -r _ && exit
kill -INT -"$1" || exit
for _ in 1 2 3 4 5 6 7 8 9 10; do
  kill -0 -"$1" || exit
  sleep 0.5
done
kill -KILL -"$1"
"""
"""Waits for a line or for the end of its input; only at the end it signals the group: interrupt, then kill."""


class Tether:
    """Between a process group and the process that holds this object.

    A shell of its own session reads from a pipe that only we write to, and that the system closes when we end. The
    parent-death signal would need no shell, but follows the *thread* that started the child, which may end sooner.

    Args:
        group: Id of the process group, whose leader was started with ``start_new_session=True``.
    """

    def __init__(self, group: int) -> None:
        self._watch = subprocess.Popen(
            ["sh", "-c", _WATCH, "tether", str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of the shell."""
        return self._watch.pid

    def release(self) -> None:
        """Let go: nothing is signalled any more. May be called again."""
        if self._watch.poll() is None:
            self._watch.communicate("done\n")

    def __enter__(self) -> Tether:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
