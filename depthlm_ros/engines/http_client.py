"""One HTTP request with bounded time and size; every way in which it fails becomes a :class:`CallError`."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

import httpx

from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.http_errors import CallError, retry_after_s, scrubbed, status_error
from depthlm_ros.engines.http_settings import ServerSettings, tls_context

LARGEST_REPLY = 8 * 1024 * 1024
"""Bytes; an answer of a few thousand tokens with log-probabilities stays far below."""


class HttpClient:
    """Asks OpenAI-compatible servers; to be made and used inside one event loop.

    Args:
        settings: Time limits, key and TLS.

    Raises:
        EngineError: The TLS settings, or the proxy of the environment, are wrong.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        headers = {"Authorization": f"Bearer {settings.key}"} if settings.key else {}
        verify = tls_context(settings)
        try:
            self._client = httpx.AsyncClient(
                headers=headers,
                verify=verify,
                timeout=httpx.Timeout(settings.read_timeout_s, connect=settings.connect_timeout_s, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.max_in_flight),
            )
        except (ImportError, ValueError) as error:
            raise EngineError(
                f"the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used ({error}); unset it, or "
                "name the servers of engine.base_urls in NO_PROXY"
            ) from None

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def get(self, url: str) -> Any:
        """GET a JSON document.

        Raises:
            CallError: It cannot be had.
        """
        return _json(await self._call("GET", url, None))

    async def post(self, url: str, body: dict[str, Any]) -> Any:
        """POST a JSON document and read one back.

        Raises:
            CallError: No answer can be had.
        """
        return _json(await self._call("POST", url, json.dumps(body).encode("utf-8")))

    async def check_health(self, base: str) -> None:
        """Ask ``/health``; a server without it passes.

        Raises:
            CallError: The server cannot be reached or says that it is not well.
        """
        try:
            await self._call("GET", base + "/health", None)
        except CallError as error:
            if error.status not in (404, 405):
                raise

    async def _call(self, method: str, url: str, body: bytes | None) -> bytes:
        limit = self._settings.read_timeout_s
        try:
            # The client's own read limit is per piece, so a server that drips could go on for ever.
            return await asyncio.wait_for(self._exchange(method, url, body), limit)
        except CallError:
            raise
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _no_connection(error, self._settings.connect_timeout_s) from None
        except (asyncio.TimeoutError, TimeoutError, httpx.TimeoutException):
            raise CallError(
                f"no whole answer within {limit:g} s (engine.read_timeout_s)",
                server_failed=True,
                timed_out=True,
            ) from None
        except httpx.HTTPError as error:
            # Not the error's text: httpx quotes headers that it cannot send.
            reason = f"the connection was lost ({type(error).__name__})"
            raise CallError(reason, retry=True, server_failed=True) from None

    async def _exchange(self, method: str, url: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        async with self._client.stream(method, url, content=body, headers=headers) as response:
            received = bytearray()
            async for piece in response.aiter_bytes():
                received += piece
                if len(received) > LARGEST_REPLY:
                    raise CallError(f"the answer is larger than {LARGEST_REPLY} bytes", server_failed=True)
            if response.status_code == 200:
                return bytes(received)
            words = scrubbed(received.decode("utf-8", "replace"), self._settings.key)
            wait_s = retry_after_s(response.headers.get("Retry-After"))
            raise status_error(response.status_code, words, wait_s, self._settings.read_timeout_s)


def _json(received: bytes) -> Any:
    try:
        return json.loads(received)
    except (ValueError, RecursionError):
        raise CallError("the answer is not JSON", server_failed=True) from None


def _no_connection(error: Exception, limit_s: float) -> CallError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            reason = (
                f"the TLS connection was refused ({cause.reason or cause}); name the authority that signed the "
                "server's certificate in engine.tls_ca_file"
            )
            return CallError(reason, server_failed=True)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectTimeout):
        reason = f"no connection within {limit_s:g} s (engine.connect_timeout_s)"
    else:
        reason = "no connection; is the server running?"
    return CallError(reason, retry=True, server_failed=True)
