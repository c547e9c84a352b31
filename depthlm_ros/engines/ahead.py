"""Prepares the next batch in a thread while the present one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from depthlm_ros.engines.base import Prompt

T = TypeVar("T")


class Ahead(Generic[T]):
    """Runs a function on batches of prompts, one at a time and in one thread, before its results are asked for.

    Used as a context manager: when it is left, its thread has ended. Without :meth:`want` there is no thread.

    Args:
        prepare: The function. What it raises is raised where its result is asked for.
    """

    def __init__(self, prepare: Callable[[Sequence[Prompt]], T]) -> None:
        self._prepare = prepare
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._begun: dict[int, tuple[Sequence[Prompt], Future[T]]] = {}

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._begun.clear()

    def want(self, batches: Sequence[Sequence[Prompt]]) -> None:
        """Begin with batches, the very objects that :meth:`get` will be given, in this order."""
        for batch in batches:
            if id(batch) not in self._begun:
                self._begun[id(batch)] = (batch, self._pool.submit(self._prepare, batch))

    def get(self, batch: Sequence[Prompt]) -> T:
        """The result of a batch, once."""
        if not self._begun:
            return self._prepare(batch)
        # Never beside another batch, so behind what has been begun.
        self.want([batch])
        return self._begun.pop(id(batch))[1].result()
