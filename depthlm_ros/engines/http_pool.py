"""Several servers of one model: the least busy one is asked, a failing one is left alone and tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.http_client import HttpClient
from depthlm_ros.engines.http_dialect import Dialect
from depthlm_ros.engines.http_errors import CallError
from depthlm_ros.engines.http_health import Breaker
from depthlm_ros.engines.http_probe import get_to_know
from depthlm_ros.engines.http_settings import ServerSettings

_LOG = logging.getLogger(__name__)


class Endpoint:
    """One server.

    Attributes:
        url: Its base URL.
        dialect: What it understands, found out whenever it is (again) tried.
        breaker: Whether it may be asked.
        outstanding: Requests under way.
        answered: Requests answered so far.
    """

    def __init__(self, url: str, recovery_s: float) -> None:
        self.url = url
        self.dialect = Dialect()
        self.breaker = Breaker(recovery_s)
        self.outstanding = self.answered = 0
        self.trial: asyncio.Task[None] | None = None

    def describe(self) -> str:
        """One line for people."""
        if not self.breaker.closed:
            return f"{self.url} left alone: {self.breaker.reason}"
        kind = f" ({self.dialect.kind})" if self.dialect.kind else ""
        scores = "with" if self.dialect.logprobs else "without"
        return (
            f"{self.url}{kind} answering, {self.outstanding} under way, {self.answered} answered, prefix "
            f"{self.dialect.prefix.value}, {scores} log-probabilities"
        )


class ServerPool:
    """Chooses servers; to be used inside one event loop.

    Args:
        client: Asks them.
        settings: Which ones, and how long a failing one is left alone.
    """

    def __init__(self, client: HttpClient, settings: ServerSettings) -> None:
        self._client, self._settings = client, settings
        self.endpoints: Sequence[Endpoint] = [Endpoint(url, settings.recovery_s) for url in settings.urls]

    async def start(self) -> None:
        """Get to know every server.

        Raises:
            EngineError: None can be used; the message says why for each.
        """
        await asyncio.gather(*(self._try(endpoint) for endpoint in self.endpoints))
        if not any(endpoint.breaker.closed for endpoint in self.endpoints):
            reasons = "; ".join(f"{e.url}: {e.breaker.reason}" for e in self.endpoints)
            raise EngineError(f"no server of engine.base_urls can be used: {reasons}")

    async def aclose(self) -> None:
        """End trials that are under way."""
        trials = [e.trial for e in self.endpoints if e.trial is not None]
        for trial in trials:
            trial.cancel()
        await asyncio.gather(*trials, return_exceptions=True)

    async def choose(self) -> Endpoint:
        """The least busy server that may be asked; waits for a trial that is under way where there is none.

        Raises:
            CallError: Every server is left alone for now.
        """
        while True:
            for endpoint in self.endpoints:
                self._try_when_due(endpoint)
            ready = [endpoint for endpoint in self.endpoints if endpoint.breaker.closed]
            if ready:
                return min(ready, key=lambda endpoint: (endpoint.outstanding, endpoint.answered))
            trials = [endpoint.trial for endpoint in self.endpoints if endpoint.trial is not None]
            if not trials:
                wait_s = min(endpoint.breaker.left_alone_s() for endpoint in self.endpoints)
                reasons = "; ".join(f"{e.url}: {e.breaker.reason}" for e in self.endpoints)
                raise CallError(
                    f"no server can be asked for another {wait_s:.1f} s ({reasons})",
                    retry=True,
                    retry_after_s=wait_s,
                    server_failed=True,
                )
            await asyncio.wait(trials, return_when=asyncio.FIRST_COMPLETED)

    @contextmanager
    def asking(self, endpoint: Endpoint) -> Iterator[None]:
        """Count a request to a server, and what became of it."""
        endpoint.outstanding += 1
        try:
            yield
        except CallError as error:
            if error.server_failed and endpoint.breaker.failed(str(error)):
                _LOG.warning("%s", endpoint.describe())
            raise
        else:
            endpoint.answered += 1
            if endpoint.breaker.closed:
                endpoint.breaker.succeeded()
        finally:
            endpoint.outstanding -= 1

    def _try_when_due(self, endpoint: Endpoint) -> None:
        breaker = endpoint.breaker
        if not breaker.closed and endpoint.trial is None and breaker.left_alone_s() <= 0.0:
            endpoint.trial = asyncio.create_task(self._try(endpoint))

    async def _try(self, endpoint: Endpoint) -> None:
        """Get to know a server (again): it may have come back as another one."""
        try:
            endpoint.dialect = await get_to_know(self._client, endpoint.url, self._settings)
            endpoint.breaker.succeeded()
            _LOG.info("%s", endpoint.describe())  # once when it starts and once when it comes back
        except CallError as error:
            endpoint.breaker.open(str(error))
            _LOG.debug("%s", endpoint.describe())
        finally:
            endpoint.trial = None
