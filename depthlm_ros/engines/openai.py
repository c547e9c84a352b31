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
from types import TracebackType
from typing import Any, TypeVar

from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt
from depthlm_ros.engines.http_client import HttpClient
from depthlm_ros.engines.http_errors import CallError
from depthlm_ros.engines.http_images import ImageUris, KeptUris
from depthlm_ros.engines.http_pool import ServerPool
from depthlm_ros.engines.http_sending import Call, Sender
from depthlm_ros.engines.http_settings import ServerSettings

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


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
        self._sender: Sender | None = None
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
        self._sender = Sender(self._client, self._pool, self._settings)
        await self._pool.start()

    async def _close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()
        if self._client is not None:
            await self._client.aclose()
        self._client = self._pool = self._sender = self._slots = None

    async def _generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int, stop: tuple[str, ...], deadline: float | None
    ) -> list[Answer]:
        if not prompts:
            return []
        self._cancelled = cancelled = asyncio.Event()
        uris = ImageUris(prompts, self._settings.image_format, self._settings.jpeg_quality, kept=self._kept)
        call = Call(uris, max_new_tokens, stop, math.inf if deadline is None else deadline)
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

    async def _one(self, prompt: Prompt, call: Call) -> Answer | CallError:
        assert self._slots is not None
        try:
            async with self._slots:
                assert self._sender is not None
                return await self._sender.answer(prompt, call)
        except CallError as error:
            return error
        except Exception as error:
            _LOG.exception("a prompt could not be sent")
            return CallError(f"{type(error).__name__}: {error}")
        finally:
            call.uris.release(prompt)


def _as_answer(result: Answer | CallError | None) -> Answer:
    if result is None:
        return Answer("", finish=Finish.DEADLINE)
    if isinstance(result, CallError):
        return Answer("", finish=Finish.ERROR, error=str(result))
    return result
