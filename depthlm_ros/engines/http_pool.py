"""Several servers of one model: the least busy one is asked, a failing one is left alone and tried again."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.http_client import HttpClient
from depthlm_ros.engines.http_dialect import Dialect, Layout
from depthlm_ros.engines.http_errors import CallError
from depthlm_ros.engines.http_health import Breaker
from depthlm_ros.engines.http_models import confirm_model
from depthlm_ros.engines.http_probe import get_to_know
from depthlm_ros.engines.http_settings import ServerSettings

_LOG = logging.getLogger(__name__)
CONFIRM_AFTER_S = 5.0
"""After so long, and after a lost connection, a server is asked again which model it has: trtllm-serve does not look
at the name in a request, and one that was restarted meanwhile would answer with another model. Requests wait for what
it says, unless others are under way there: a restart would have lost them, and a server that does one thing at a time
says it only behind them."""
_LAYOUTS = {
    Layout.TEMPLATE: "",
    Layout.SEPARATED: ", with a line break between image and question: a checkpoint that was trained without may "
    "answer other numbers",
    Layout.UNKNOWN: ", whether it puts a line break between image and question is not known",
}
_LAYOUT_ADVICE = (
    "name the served checkpoint's directory in engine.checkpoint, so that prompts are rendered here and sent as "
    "token ids where the server takes them (trtllm-serve does), or use a server that follows the chat template (vLLM)"
)


class Endpoint:
    """One server.

    Attributes:
        url: Its base URL.
        dialect: What it understands, found out whenever it is (again) tried.
        breaker: Whether it may be asked.
        outstanding: Requests under way.
        answered: Requests answered so far.
        known_at: ``time.monotonic()`` when it last said that it has the model.
        busy_until: ``time.monotonic()`` until when it asked not to be asked.
        trial: Gets to know it, or has it say again which model it has; None when nothing of that is under way.
        trusted: Whether it may be asked during a trial.
        warned: Whether it was said what the server puts between image and question.
    """

    def __init__(self, url: str, recovery_s: float) -> None:
        self.url = url
        self.dialect = Dialect()
        self.breaker = Breaker(recovery_s)
        self.outstanding = self.answered = 0
        self.known_at = self.busy_until = -math.inf
        self.trial: asyncio.Task[None] | None = None
        self.trusted = self.warned = False

    def describe(self) -> str:
        """One line for people."""
        if not self.breaker.closed:
            return f"{self.url} left alone: {self.breaker.reason}"
        kind = f" ({self.dialect.kind})" if self.dialect.kind else ""
        scores = "with" if self.dialect.logprobs else "without"
        penalty = (
            "no repetition penalty asked for"
            if self.dialect.asks_for_no_penalty
            else "takes no word on repetition penalties: one of its own would change numbers"
        )
        return (
            f"{self.url}{kind} answering, {self.outstanding} under way, {self.answered} answered, prefix "
            f"{self.dialect.prefix.value}, {scores} log-probabilities, {penalty}{_LAYOUTS[self.dialect.layout]}"
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

    async def choose(self, avoid: Collection[Endpoint] = ()) -> Endpoint:
        """The least busy server that may be asked; waits for a trial that is under way where there is none.

        Args:
            avoid: Servers to be chosen only where there is no other.

        Raises:
            CallError: Every server is left alone for now.
        """
        for endpoint in self.endpoints:
            self._confirm_when_due(endpoint)
        while True:
            for endpoint in self.endpoints:
                self._try_when_due(endpoint)
            ready = self._ready()
            if ready:
                now = time.monotonic()
                return min(ready, key=lambda e: (e in avoid, e.busy_until > now, e.outstanding, e.answered))
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

    def has_another(self, avoid: Collection[Endpoint]) -> bool:
        """Whether a server other than these may be asked, and did not ask to wait."""
        now = time.monotonic()
        return any(e not in avoid and e.busy_until <= now for e in self._ready())

    def held_against(self, endpoint: Endpoint, error: CallError) -> None:
        """Count a refusal as the server's failure: another one answered the same prompt."""
        if endpoint.breaker.failed(str(error)):
            _LOG.warning("%s", endpoint.describe())

    def _ready(self) -> list[Endpoint]:
        return [e for e in self.endpoints if e.breaker.closed and (e.trial is None or e.trusted)]

    @contextmanager
    def asking(self, endpoint: Endpoint) -> Iterator[None]:
        """Count a request to a server, and what became of it."""
        endpoint.outstanding += 1
        try:
            yield
        except CallError as error:
            if error.retry_after_s > 0.0:
                endpoint.busy_until = time.monotonic() + error.retry_after_s
            if error.server_failed and error.status is None:
                endpoint.known_at, endpoint.trusted = -math.inf, False
            if error.server_failed and endpoint.breaker.failed(str(error)):
                _LOG.warning("%s", endpoint.describe())
            raise
        else:
            endpoint.answered += 1
            if endpoint.breaker.closed:
                endpoint.breaker.succeeded()
        finally:
            endpoint.outstanding -= 1

    def _confirm_when_due(self, endpoint: Endpoint) -> None:
        due = time.monotonic() - endpoint.known_at > CONFIRM_AFTER_S
        if due and endpoint.breaker.closed and endpoint.trial is None:
            endpoint.trusted = endpoint.outstanding > 0 and endpoint.known_at > -math.inf
            endpoint.trial = asyncio.create_task(self._confirm(endpoint))

    def _try_when_due(self, endpoint: Endpoint) -> None:
        breaker = endpoint.breaker
        if not breaker.closed and endpoint.trial is None and breaker.left_alone_s() <= 0.0:
            endpoint.trusted = False
            endpoint.trial = asyncio.create_task(self._try(endpoint))

    async def _try(self, endpoint: Endpoint) -> None:
        """Get to know a server (again): it may have come back as another one."""
        try:
            endpoint.dialect = await get_to_know(self._client, endpoint.url, self._settings)
            endpoint.known_at, endpoint.busy_until = time.monotonic(), -math.inf
            endpoint.breaker.succeeded()
            _LOG.info("%s", endpoint.describe())  # once when it starts and once when it comes back
            self._warn_of_layout(endpoint)
        except Exception as error:
            self._leave_alone(endpoint, error)
        finally:
            endpoint.trial = None

    @staticmethod
    def _warn_of_layout(endpoint: Endpoint) -> None:
        """Say once that the model reads another prompt than it was trained on, or that nobody can tell."""
        layout, kind = endpoint.dialect.layout, endpoint.dialect.kind
        doubtful = layout is Layout.UNKNOWN and kind == "tensorrt_llm"  # trtllm-serve is known to do it
        if not endpoint.warned and (layout is Layout.SEPARATED or doubtful):
            endpoint.warned = True
            _LOG.warning("%s%s; %s", endpoint.url, _LAYOUTS[layout], _LAYOUT_ADVICE)

    async def _confirm(self, endpoint: Endpoint) -> None:
        """See whether a server that answers still is the one that was got to know."""
        known_at, answered = endpoint.known_at, endpoint.answered
        try:
            await confirm_model(self._client, endpoint.url, self._settings.model, endpoint.dialect.kind)
            there = True
        except CallError as error:
            # There, and only busy: it says so, or it answered others meanwhile.
            busy = error.timed_out and endpoint.answered > answered
            there = error.status == 429 or busy
            if not there:
                self._leave_alone(endpoint, error)
        except Exception as error:
            there = False
            self._leave_alone(endpoint, error)
        finally:
            endpoint.trial = None
        if (
            there and endpoint.known_at == known_at
        ):  # else a connection was lost since: who answers now is not known
            endpoint.known_at = time.monotonic()

    @staticmethod
    def _leave_alone(endpoint: Endpoint, error: Exception) -> None:
        if isinstance(error, CallError):
            endpoint.breaker.open(str(error))
        else:
            _LOG.error("trying %s failed", endpoint.url, exc_info=error)
            endpoint.breaker.open(f"{type(error).__name__}: {error}")
        _LOG.debug("%s", endpoint.describe())
