"""Messages between an engine and its worker process: JSON lines over a Unix socket, with open files beside them."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

SEND_S = 10.0
"""How long a message may wait for a receiver that does not read, in seconds."""

_CHUNK = 1 << 16
_MOST_FILES = 8


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
        self._socket.settimeout(SEND_S)
        self._sending = threading.Lock()
        self._buffer = bytearray()
        self._files: deque[int] = deque()

    def send(self, message: Mapping[str, Any], files: Sequence[int] = ()) -> None:
        """Send a message; the receiver gets its own descriptors of the files.

        Raises:
            ChannelClosedError: The other side is gone or has not read for :data:`SEND_S`.
            ValueError: The message holds a number that JSON does not know (NaN).
        """
        data = json.dumps({**message, "files": len(files)}, allow_nan=False).encode() + b"\n"
        try:
            with self._sending:
                sent = socket.send_fds(self._socket, [data], list(files)) if files else 0
                self._socket.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise ChannelClosedError(f"the other process does not listen ({error})") from error

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
                raise ChannelClosedError("the other process closed the connection")
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
