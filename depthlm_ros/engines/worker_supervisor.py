"""Keeps one worker process alive: starts it, watches it, starts it anew after a crash, and ends it."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt
from depthlm_ros.engines.worker_call import Call
from depthlm_ros.engines.worker_channel import HURRY_S, ChannelClosedError
from depthlm_ros.engines.worker_images import pack
from depthlm_ros.engines.worker_limits import GRACE_S, Limits
from depthlm_ros.engines.worker_process import WorkerProcess

_LOG = logging.getLogger(__name__)
_POLL_S = 0.05


class _State(Enum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting before the next start"
    GIVEN_UP = "given up"
    STOPPED = "stopped"


@dataclass(frozen=True)
class _Death:
    """Why a worker ended, and whether another would end alike."""

    reason: str
    refused: bool = False


class Supervisor:
    """A worker process that is there whenever it can be.

    Args:
        argv: The worker's command, see :class:`WorkerProcess`.
        settings: What its backend is told, fit for JSON.
        at_once: The most prompts that it works on at a time.
        limits: How much patience to have.
    """

    def __init__(
        self, argv: Sequence[str], settings: dict[str, Any], *, at_once: int, limits: Limits
    ) -> None:
        self._argv, self._settings, self._at_once, self._limits = tuple(argv), settings, at_once, limits
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._state, self._reason, self._facts = _State.STOPPED, "", dict[str, str]()
        self._failures = self._deaths = 0
        self._was_ready = self._waiting = False
        self._worker: WorkerProcess | None = None
        self._call: Call | None = None
        self._open: set[int] = set()
        self._heard = self._progress = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> dict[str, str]:
        """Start the worker and wait until it is ready.

        Returns:
            What it says of itself, such as versions.

        Raises:
            EngineError: It did not get ready; the message says why.
        """
        self._stopping.clear()
        self._state, self._reason, self._failures, self._was_ready = _State.STARTING, "", 0, False
        self._thread = threading.Thread(target=self._keep, name="worker supervisor", daemon=True)
        self._thread.start()
        try:
            self._wait_ready(None)
        except BaseException:
            self.stop()
            raise
        return dict(self._facts)

    def stop(self) -> None:
        """End the worker, within about a second and a half; what it is working on fails."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def details(self) -> dict[str, str]:
        """State, crashes and what the worker says of itself, for people."""
        with self._changed:
            found = {"worker": self._state.value, "worker_crashes": str(self._deaths), **self._facts}
            if self._reason:
                found["last_crash"] = self._reason
            return found

    def call(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str], deadline: float | None
    ) -> list[Answer]:
        """Let the worker answer; see :meth:`VlmEngine.generate`. One thread at a time.

        While the worker is being started anew, this waits for it, until the deadline.

        Raises:
            EngineError: There is no worker, or it crashed before it answered anything.
        """
        worker = self._wait_ready(deadline)
        if worker is None:
            return [Answer("", finish=Finish.DEADLINE)] * len(prompts)
        batch, files = pack(prompts)
        call = Call(next(self._numbers), len(prompts))
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        with self._changed:
            if self._worker is not worker:
                raise EngineError(self._reason)
            self._call, self._progress = call, time.monotonic()
            self._open.add(call.number)
        try:
            with suppress(ChannelClosedError):  # the supervising thread sees it too, and knows why
                worker.channel.send(
                    {
                        "op": "generate", "call": call.number, "batch": batch, "max_new_tokens": max_new_tokens,
                        "stop": list(stop), "seconds": seconds,
                    },
                    files,
                    hurry=call.over,
                )  # fmt: skip
        finally:
            for file in files:
                os.close(file)
        if not call.over.wait(None if seconds is None else seconds + GRACE_S):
            self.cancel()
        return call.result()

    def cancel(self) -> None:
        """End the call that is under way, if any."""
        with self._changed:
            call, worker = self._call, self._worker
            self._waiting = False
            self._changed.notify_all()
        if call is not None and worker is not None and not call.over.is_set():
            call.over.set()
            with suppress(ChannelClosedError):
                worker.channel.send({"op": "cancel", "call": call.number}, within_s=2 * HURRY_S)

    def _wait_ready(self, deadline: float | None) -> WorkerProcess | None:
        """The worker once it is ready, or None when :meth:`cancel` was called before."""
        with self._changed:
            self._waiting = True
            while self._state in (_State.STARTING, _State.WAITING):
                if not self._waiting:
                    return None
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    why = f" after this: {self._reason}" if self._reason else ""
                    raise EngineError(f"the worker process is being started{why}")
                self._changed.wait(left)
            if self._state is not _State.READY or self._worker is None:
                raise EngineError(self._reason or "the worker process is not started")
            return self._worker

    def _keep(self) -> None:
        try:
            while (death := self._live()) is not None:
                self._failures += 1
                final = death.refused or not self._was_ready or self._failures > self._limits.restarts
                delay = self._limits.delay(self._failures)
                _LOG.log(
                    logging.DEBUG if not self._was_ready else logging.ERROR,
                    "%s; %s", death.reason, "giving up" if final else f"starting it anew in {delay:g} s",
                )  # fmt: skip
                self._enter(_State.GIVEN_UP if final else _State.WAITING, death.reason)
                if final:
                    return
                if self._stopping.wait(delay):
                    break
                self._enter(_State.STARTING, death.reason)
            self._enter(_State.STOPPED, "the engine was stopped")
        except Exception as error:  # a mistake of ours must not leave callers waiting
            _LOG.exception("the supervisor of the worker process failed")
            self._enter(_State.GIVEN_UP, f"the supervisor failed: {type(error).__name__}: {error}")

    def _enter(self, state: _State, reason: str) -> None:
        with self._changed:
            self._state, self._reason = state, reason
            if state is not _State.READY and self._call is not None:
                self._call.fail(reason)
                self._call = None
            self._changed.notify_all()

    def _live(self) -> _Death | None:
        """The life of one worker. Returns why it ended, or None when it was told to."""
        try:
            worker = WorkerProcess(self._argv)
        except EngineError as error:
            return _Death(str(error), refused=True)
        with self._changed:
            self._worker = worker
            self._open.clear()
        death: _Death | None = None
        try:
            with suppress(ChannelClosedError):
                worker.channel.send({"op": "start", "settings": self._settings, "at_once": self._at_once})
            death = self._attend(worker)
        finally:
            with self._changed:
                self._worker = None
                if self._call is not None:
                    self._call.fail(death.reason if death else "the engine was stopped")
                    self._call = None
                self._deaths += death is not None
                if self._state is _State.READY:
                    self._state, self._reason = _State.WAITING, death.reason if death else ""
            worker.stop(busy=bool(self._open))
        return death

    def _attend(self, worker: WorkerProcess) -> _Death | None:
        born = self._heard = time.monotonic()
        while not self._stopping.is_set():
            ended = worker.ended  # before the last look for what it may have said
            try:
                received = worker.channel.receive(_POLL_S)
            except ChannelClosedError as error:
                how = worker.how_it_ended(str(error), hurry=self._stopping)
                return None if self._stopping.is_set() else _Death(f"the worker process {how}")
            now = time.monotonic()
            if received is None and ended:
                return _Death(f"the worker process {worker.how_it_ended()}")
            if received is not None:
                self._heard = now
                try:
                    death = self._hear(received[0])
                except (ValueError, KeyError, TypeError, IndexError) as error:
                    return _Death(
                        f"the worker process sent what is no message ({error!r}){worker.last_words()}"
                    )
                if death is not None:
                    return death
            impatient = self._patience(now, born)
            if impatient:
                return _Death(f"the worker process {impatient}{worker.last_words()}")
        return None

    def _patience(self, now: float, born: float) -> str:
        """What the worker takes too long for, or nothing."""
        if self._state is not _State.READY:
            if now - born > self._limits.start_s:
                return (
                    f"was not ready after {self._limits.start_s:g} s and was killed; if the model only loads slowly, "
                    "raise engine.start_timeout_s"
                )
            return ""
        silence = self._limits.silence_s
        if now - self._heard > silence:
            return f"gave no sign of life for {silence:g} s and was killed"
        if self._open and now - self._progress > silence:
            return f"answered nothing for {silence:g} s (engine.silence_s) and was killed"
        return ""

    def _hear(self, message: dict[str, Any]) -> _Death | None:
        handlers: dict[str, Callable[[dict[str, Any]], _Death | None]] = {
            "beat": lambda _: None,
            "ready": self._on_ready,
            "answer": self._on_answer,
            "done": self._on_done,
            "failed": lambda m: _Death(f"the worker cannot start: {m['error']}", refused=bool(m["refused"])),
            "lost": lambda m: _Death(f"the worker cannot go on: {m['error']}"),
        }
        return handlers[message["event"]](message)

    def _on_ready(self, message: dict[str, Any]) -> None:
        with self._changed:
            self._facts = {str(key): str(value) for key, value in message["facts"].items()}
            self._was_ready = True
        self._enter(_State.READY, self._reason)

    def _on_answer(self, message: dict[str, Any]) -> None:
        with self._changed:
            self._progress = time.monotonic()
            if self._call is not None and self._call.number == message["call"]:
                self._call.take(message)
                if message["finish"] != "error":
                    self._failures = 0

    def _on_done(self, message: dict[str, Any]) -> None:
        with self._changed:
            self._progress = time.monotonic()
            self._open.discard(message["call"])
            if self._call is not None and self._call.number == message["call"]:
                self._call.over.set()
                self._call = None
