"""What runs inside a worker process: takes prompts from the channel, lets a backend answer them, says how it is.

Nothing here knows which library answers. Messages to the worker (``op``): ``start`` with the backend's settings and
how many prompts may be under way at once, ``generate``, ``cancel``, ``stop``. Messages from it (``event``): ``beat``,
``ready`` with facts for people, ``failed`` (it cannot start), ``answer``, ``done``, ``lost`` (it must start anew).
"""

from __future__ import annotations

import asyncio
import math
import os
import queue
import socket
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any, Protocol

from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt
from depthlm_ros.engines.worker_channel import Channel, ChannelClosedError
from depthlm_ros.engines.worker_images import unpack
from depthlm_ros.engines.worker_reaping import TOKEN_VARIABLE, kill_processes

BEAT_S = 0.5
"""Seconds between two signs of life."""


class BackendLostError(RuntimeError):
    """The backend cannot answer anything any more in this process; the message says why."""


class Backend(Protocol):
    """What answers inside a worker process."""

    def load(self, settings: dict[str, Any]) -> dict[str, str]:
        """Load the model; blocks. Returns facts for people, such as versions.

        Raises:
            EngineError: It cannot; the message says what to do.
        """
        ...

    async def warm_up(self) -> None:
        """Answer something, so that what is found out late by the library is found out before the first frame.

        Raises:
            EngineError: It cannot; the message says what to do.
        """
        ...

    async def answer(self, prompt: Prompt, max_new_tokens: int, stop: Sequence[str]) -> Answer:
        """Answer one prompt; when cancelled, the request is aborted.

        Raises:
            BackendLostError: Nothing can be answered any more.
        """
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


def run_worker(backend: Backend, descriptor: int) -> int:
    """Serve the channel at this descriptor until told to stop.

    When the other side is gone, all that this process started is killed and the process ends at once.

    Returns:
        The exit status.
    """
    # An MPI launcher that inherits it would keep the connection open after this process has crashed.
    os.set_inheritable(descriptor, False)
    return _Worker(backend, Channel(socket.socket(fileno=descriptor))).run()


class _Worker:
    def __init__(self, backend: Backend, channel: Channel) -> None:
        self._backend, self._channel = backend, channel
        self._messages: queue.SimpleQueue[tuple[dict[str, Any], list[int]]] = queue.SimpleQueue()
        self._arrived: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loaded = threading.Event()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(1)
        self._status = 0

    def run(self) -> int:
        first = self._channel.receive(None)
        assert first is not None
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        try:
            facts = self._backend.load(first[0]["settings"])
            asyncio.run(self._serve(facts, int(first[0]["at_once"])))
        except Exception as error:
            self._fail(error)
        finally:
            self._loaded.set()
        self._backend.close()
        return self._status

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, EngineError):
            traceback.print_exc()
        text = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        self._send({"event": "failed", "error": text, "refused": isinstance(error, EngineError)})
        self._status = 1

    def _read(self) -> None:
        try:
            while True:
                message = self._channel.receive(None)
                assert message is not None
                if message[0]["op"] == "stop" and not self._loaded.is_set():
                    break  # loading cannot be interrupted otherwise
                self._messages.put(message)
                if self._loop is not None and self._arrived is not None:
                    self._loop.call_soon_threadsafe(self._arrived.set)
        except (ChannelClosedError, RuntimeError):
            pass
        kill_processes(os.environ[TOKEN_VARIABLE], spare={os.getpid()})
        os._exit(2)

    async def _beat(self) -> None:
        # Comes from the loop that answers: a loop that hangs is silent.
        while True:
            self._send({"event": "beat"})
            await asyncio.sleep(BEAT_S)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._channel.send(message)
        except ChannelClosedError:
            kill_processes(os.environ[TOKEN_VARIABLE], spare={os.getpid()})
            os._exit(2)

    async def _serve(self, facts: dict[str, str], at_once: int) -> None:
        self._room = asyncio.Semaphore(at_once)
        await self._backend.warm_up()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loaded.set()
        self._send({"event": "ready", "facts": facts})
        beat = asyncio.create_task(self._beat())
        try:
            while True:
                self._arrived.clear()
                while not self._messages.empty():
                    message, files = self._messages.get()
                    if message["op"] == "stop":
                        return
                    self._handle(message, files)
                await self._arrived.wait()
        finally:
            beat.cancel()
            for task in self._calls.values():
                task.cancel()
            await asyncio.gather(*self._calls.values(), return_exceptions=True)

    def _handle(self, message: dict[str, Any], files: list[int]) -> None:
        call = message["call"]
        if message["op"] == "cancel":
            if call in self._calls:
                self._calls[call].cancel()
            return
        try:
            prompts = unpack(message["batch"], files)
        finally:
            for file in files:
                os.close(file)
        task = asyncio.create_task(self._call(call, prompts, message))
        self._calls[call] = task
        task.add_done_callback(lambda _: self._calls.pop(call, None))

    async def _call(self, call: int, prompts: list[Prompt], message: dict[str, Any]) -> None:
        """Answer the prompts of one call side by side; the backend's library makes batches of them."""
        seconds = message["seconds"]
        end = None if seconds is None else time.monotonic() + seconds
        tasks = [
            asyncio.create_task(self._one(call, i, prompt, message, end)) for i, prompt in enumerate(prompts)
        ]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            lost = [result for result in results if isinstance(result, BackendLostError)]
            if lost:
                self._send({"event": "lost", "error": str(lost[0])})
            self._send({"event": "done", "call": call})

    async def _one(
        self, call: int, index: int, prompt: Prompt, message: dict[str, Any], end: float | None
    ) -> None:
        try:
            async with self._room:
                # Preparing a prompt blocks the loop: between two, cancellations and signs of life get their turn.
                await asyncio.sleep(0)
                if end is not None and time.monotonic() > end:
                    return
                answer = await self._backend.answer(prompt, message["max_new_tokens"], message["stop"])
        except BackendLostError:
            traceback.print_exc()
            raise
        except Exception as error:
            traceback.print_exc()
            answer = Answer("", finish=Finish.ERROR, error=f"{type(error).__name__}: {error}")
        tokens = [(t.text, None if math.isnan(t.logprob) else t.logprob) for t in answer.tokens]
        self._send(
            {
                "event": "answer", "call": call, "index": index, "text": answer.text, "tokens": tokens,
                "finish": answer.finish.value, "error": answer.error,
            }
        )  # fmt: skip
