"""Messages between an engine and its worker process: JSON lines over a Unix socket, with open files beside them."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

SEND_S = 10.0
"""How long a message may wait for a receiver that does not read, in seconds."""

HURRY_S = 0.5
"""How long it may wait once nobody cares for it any more."""

_CHUNK = 1 << 16
_MOST_FILES = 8
_LOOK_S = 0.05


class ChannelClosedError(ConnectionError):
    """The other side is gone, or speaks no JSON lines."""


class Channel:
    """One end of the socket. Any thread may send; one thread receives.

    JSON rather than pickle: neither side can make the other run code.

    Args:
        connection: A connected Unix stream socket; the channel owns it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._sending = threading.Lock()
        self._buffer = bytearray()
        self._files: deque[int] = deque()
        self._closed_because = "the other process closed the connection"

    def send(
        self,
        message: Mapping[str, Any],
        files: Sequence[int] = (),
        *,
        within_s: float = SEND_S,
        hurry: threading.Event | None = None,
    ) -> None:
        """Send a message; the receiver gets its own descriptors of the files.

        A receiver that does not take it in time is given up: half a message is on its way to it.

        Args:
            message: What is sent.
            files: Open files that go with it.
            within_s: How long it may wait, for its turn and for the receiver.
            hurry: Once it is set, no more than :data:`HURRY_S` is left.

        Raises:
            ChannelClosedError: The other side is gone, or did not take the message in time.
            ValueError: The message holds a number that JSON does not know (NaN).
        """
        data = json.dumps({**message, "files": len(files)}, allow_nan=False).encode() + b"\n"
        end = time.monotonic() + within_s
        turn = self._sending.acquire(timeout=within_s)
        try:
            taken = turn and self._taken(memoryview(data), files, end, hurry)
            if not taken:
                self._closed_because = "the other process took no message in time"
                self._socket.shutdown(socket.SHUT_RDWR)
        except (OSError, ValueError) as error:  # ValueError: closed on this side
            raise ChannelClosedError(f"the other process does not listen ({error})") from error
        finally:
            if turn:
                self._sending.release()
        if not taken:
            raise ChannelClosedError(self._closed_because)

    def _taken(
        self, left: memoryview, files: Sequence[int], end: float, hurry: threading.Event | None
    ) -> bool:
        """Send, and say whether all was taken before the end."""
        while left:
            if hurry is not None and hurry.is_set():
                end, hurry = min(end, time.monotonic() + HURRY_S), None
            wait_s = end - time.monotonic()
            if select.select([], [self._socket], [], max(0.0, min(wait_s, _LOOK_S)))[1]:
                sent = (
                    socket.send_fds(self._socket, [left], list(files)) if files else self._socket.send(left)
                )
                left, files = left[sent:], ()
            elif wait_s <= 0.0:
                return False
        return True

    def receive(self, timeout: float | None) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and the descriptors that came with it, which the caller closes.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Returns:
            None when nothing came in time.

        Raises:
            ChannelClosedError: The other side is gone, or what it sent is no message.
        """
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                if not select.select([self._socket], [], [], timeout)[0]:
                    return None
                data, files, _, _ = socket.recv_fds(self._socket, _CHUNK, _MOST_FILES)
            except (OSError, ValueError) as error:
                raise ChannelClosedError(f"the connection broke ({error})") from error
            if not data:
                raise ChannelClosedError(self._closed_because)
            self._buffer += data
            self._files.extend(files)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
            wanted = int(message.pop("files"))
            return message, [self._files.popleft() for _ in range(wanted)]
        except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
            raise ChannelClosedError(f"expected a message as a JSON object, got {line[:80]!r}") from error

    def close(self) -> None:
        """Close the socket and what was received but never taken."""
        self._socket.close()
        while self._files:
            os.close(self._files.popleft())
