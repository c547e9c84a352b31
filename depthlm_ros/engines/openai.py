"""The ``openai`` engine: OpenAI-compatible servers, such as trtllm-serve, vLLM, llama.cpp or `transformers serve`.

The event loop lives in a thread of its own; callers see the synchronous protocol of every engine.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt
from depthlm_ros.engines.http_client import HttpClient
from depthlm_ros.engines.http_dialect import PrefixWay, chat_request
from depthlm_ros.engines.http_errors import CallError, ReplyError
from depthlm_ros.engines.http_images import ImageUris, KeptUris
from depthlm_ros.engines.http_pool import Endpoint, ServerPool
from depthlm_ros.engines.http_probe import CHAT
from depthlm_ros.engines.http_response import answer_of, answering_model_of
from depthlm_ros.engines.http_settings import ServerSettings

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_BACKOFF_S = 0.2
"""Scale of the random waits before a request is sent again: up to this, then up to twice this, and so on."""


class OpenAIEngine:
    """Asks one or more servers of the same model; see :class:`VlmEngine`.

    Args:
        settings: Where the servers are and how they are asked.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: HttpClient | None = None
        self._pool: ServerPool | None = None
        self._slots: asyncio.Semaphore | None = None
        self._cancelled: asyncio.Event | None = None
        self._kept = KeptUris()

    @property
    def model_name(self) -> str:
        """The model's name at the servers."""
        return f"{self._settings.model or 'unnamed model'} (openai)"

    def details(self) -> dict[str, str]:
        """The servers' states and how they are asked; see :meth:`VlmEngine.details`."""
        pool = self._pool
        said = {
            f"server/{number}": endpoint.describe()
            for number, endpoint in enumerate(pool.endpoints if pool else ())
        }
        said["images"] = self._settings.image_format
        if not self._settings.verify_tls:
            said["tls"] = "certificates are not checked"
        return said

    def __enter__(self) -> OpenAIEngine:
        """Connect, and find out what each server understands.

        Raises:
            EngineError: No server can be used, or none has the model; the message says what to do.
        """
        with self._lock:
            if self._loop is not None:
                raise EngineError("the engine is started already")
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="depthlm_openai")
            self._thread.start()
            try:
                self._run(self._open())
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections, once a call that is under way has returned."""
        with self._lock:
            if self._loop is not None:
                self._end()

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        deadline: float | None = None,
    ) -> list[Answer]:
        """Answer every prompt greedily; see :meth:`VlmEngine.generate`.

        Requests that are under way at the deadline, or when :meth:`cancel` is called, are given up by closing their
        connections, which is how servers learn that nobody waits any more.

        Raises:
            EngineError: The engine is not started, or no server could be asked at all.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected 1 or more, got {max_new_tokens}")
        with self._lock:
            if self._loop is None:
                raise EngineError("the engine is not started; use it in a with statement")
            return self._run(self._generate(prompts, max_new_tokens, tuple(stop), deadline))

    def cancel(self) -> None:
        """End a call that is under way in another thread; see :meth:`VlmEngine.cancel`."""
        loop, cancelled = self._loop, self._cancelled
        if loop is not None and cancelled is not None:
            with suppress(RuntimeError):  # the loop was closed meanwhile, with the call that was under way
                loop.call_soon_threadsafe(cancelled.set)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _end(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    async def _open(self) -> None:
        self._client = HttpClient(self._settings)
        self._slots = asyncio.Semaphore(self._settings.max_in_flight)
        self._pool = ServerPool(self._client, self._settings)
        await self._pool.start()

    async def _close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()
        if self._client is not None:
            await self._client.aclose()
        self._client = self._pool = self._slots = None

    async def _generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int, stop: tuple[str, ...], deadline: float | None
    ) -> list[Answer]:
        if not prompts:
            return []
        self._cancelled = cancelled = asyncio.Event()
        uris = ImageUris(prompts, self._settings.image_format, self._settings.jpeg_quality, kept=self._kept)
        call = _Call(uris, max_new_tokens, stop, math.inf if deadline is None else deadline)
        tasks = [asyncio.create_task(self._one(prompt, call)) for prompt in prompts]
        stopper = asyncio.create_task(cancelled.wait())
        ends: set[asyncio.Future[Any]] = {asyncio.gather(*tasks, return_exceptions=True), stopper}
        try:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            await asyncio.wait(ends, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._cancelled = None
            for task in (stopper, *tasks):
                task.cancel()
            await asyncio.wait({stopper, *tasks})
            await uris.aclose()
        results = [None if task.cancelled() else task.result() for task in tasks]
        lost = [result for result in results if isinstance(result, CallError) and result.server_failed]
        if len(lost) == len(results):
            raise EngineError(f"no server answered any of {len(lost)} requests: {lost[0]}")
        return [_as_answer(result) for result in results]

    async def _one(self, prompt: Prompt, call: _Call) -> Answer | CallError:
        assert self._slots is not None
        try:
            async with self._slots:
                return await self._asked(prompt, call)
        except CallError as error:
            return error
        except Exception as error:
            _LOG.exception("a prompt could not be sent")
            return CallError(f"{type(error).__name__}: {error}")
        finally:
            call.uris.release(prompt)

    async def _asked(self, prompt: Prompt, call: _Call) -> Answer:
        images = await call.uris.of(prompt)
        # A failure that is known now says more than the deadline that waiting would run into.
        in_time = stop_before_delay(max(0.0, call.deadline - time.monotonic()))
        attempts = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, CallError) and error.retry),
            stop=stop_after_attempt(1 + self._settings.retries) | in_time,
            wait=_wait_s,
            reraise=True,
        )
        failed: list[Endpoint] = []
        async for attempt in attempts:
            with attempt:
                return await self._sent(prompt, images, call, failed)
        raise AssertionError("the last attempt raises")

    async def _sent(self, prompt: Prompt, images: list[str], call: _Call, failed: list[Endpoint]) -> Answer:
        """Send a prompt once; a server that fails it joins ``failed``, and another one, if any, may be asked."""
        assert self._pool is not None
        endpoint = await self._pool.choose(avoid=failed)
        try:
            return await self._sent_to(endpoint, prompt, images, call)
        except CallError as error:
            failed.append(endpoint)
            if (error.server_failed or error.status == 429) and self._pool.has_another(failed):
                error.retry, error.retry_after_s = True, 0.0
            raise

    async def _sent_to(self, endpoint: Endpoint, prompt: Prompt, images: list[str], call: _Call) -> Answer:
        assert self._pool is not None
        assert self._client is not None
        dialect = endpoint.dialect
        body = chat_request(
            self._settings.model, prompt, images, dialect, max_tokens=call.max_new_tokens, stop=call.stop
        )
        written = prompt.prefix if dialect.prefix is PrefixWay.WHOLE else ""
        with self._pool.asking(endpoint):
            try:
                reply = await self._client.post(endpoint.url + CHAT, body)
                answer = answer_of(reply, written=written, stop=call.stop)
                _check_model(reply, dialect.model)
                return answer
            except CallError as error:
                error.args = (f"{endpoint.url}: {error}",)
                raise
            except ReplyError as error:
                raise CallError(f"{endpoint.url}: {error}", server_failed=True) from None


@dataclass(frozen=True)
class _Call:
    """What the prompts of one call of ``generate`` have in common."""

    uris: ImageUris
    max_new_tokens: int
    stop: tuple[str, ...]
    deadline: float


_jitter = wait_random_exponential(multiplier=_BACKOFF_S, max=10.0)


def _wait_s(state: RetryCallState) -> float:
    """Seconds before the next attempt: random, doubling, and not less than the server asked for."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked_s = error.retry_after_s if isinstance(error, CallError) else 0.0
    return asked_s + _jitter(state)


def _check_model(reply: Any, expected: str) -> None:
    found = answering_model_of(reply)
    if found and expected and found != expected:
        raise ReplyError(f"the model {found!r} answered, expected {expected!r}")


def _as_answer(result: Answer | CallError | None) -> Answer:
    if result is None:
        return Answer("", finish=Finish.DEADLINE)
    if isinstance(result, CallError):
        return Answer("", finish=Finish.ERROR, error=str(result))
    return result
