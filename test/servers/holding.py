"""A server that holds requests back and notices when the one who asks hangs up."""

from __future__ import annotations

import socket
import threading

from servers.standin import CHAT, Handler


class Holding:
    """A fault: a chat request is not answered; it waits until the client closes the connection, or for the end.

    Attributes:
        begun: Requests that came.
        deserted: Those whose client hung up.
    """

    def __init__(self) -> None:
        self.begun = self.deserted = 0
        self._counting, self._over = threading.Lock(), threading.Event()

    @property
    def waiting(self) -> int:
        """Requests whose client still waits."""
        return self.begun - self.deserted

    def release(self) -> None:
        """Answer every request from now on, also those that wait."""
        self._over.set()

    def __call__(self, handler: Handler) -> bool:
        if handler.path != CHAT or self._over.is_set():
            return False
        with self._counting:
            self.begun += 1
        handler.connection.settimeout(0.02)
        while not self._over.is_set():
            try:
                # A client sends nothing while it waits: what can be read is the end of the connection.
                handler.connection.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                continue
            except OSError:
                pass
            with self._counting:
                self.deserted += 1
            handler.close_connection = True
            return True
        handler.connection.settimeout(None)
        with self._counting:
            self.begun -= 1
        return False
