"""One ``generate`` that a worker process works on: the answers that came, and why others did not."""

from __future__ import annotations

import math
import threading
from typing import Any

from depthlm_ros.engines.base import Answer, EngineError, Finish, Token


class Call:
    """Answers as they come from the worker. One thread waits, another fills.

    Args:
        number: What the worker knows it by; never used twice.
        size: How many prompts it has.

    Attributes:
        over: Set once nothing more is waited for.
    """

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.over = threading.Event()
        self._answers: list[Answer | None] = [None] * size
        self._failure = ""

    def take(self, message: dict[str, Any]) -> None:
        """Take one answer as the worker sent it, unless nothing more is waited for.

        Raises:
            ValueError, KeyError, TypeError, IndexError: It is none.
        """
        tokens = tuple(
            Token(str(text), math.nan if logprob is None else float(logprob))
            for text, logprob in message["tokens"]
        )
        index = message["index"]
        if not 0 <= index < len(self._answers):
            raise IndexError(f"there is no prompt {index}")
        answer = Answer(str(message["text"]), tokens, Finish(message["finish"]), str(message["error"]))
        if not self.over.is_set():
            self._answers[index] = answer

    def fail(self, reason: str) -> None:
        """End it: the worker is gone."""
        if not self.over.is_set():
            self._failure = reason
            self.over.set()

    def result(self) -> list[Answer]:
        """The answers in order. What has none was too late or, when the worker is gone, failed.

        Raises:
            EngineError: The worker is gone and had answered nothing.
        """
        if self._failure and self._answers and not any(self._answers):
            raise EngineError(self._failure)
        missing = (
            Answer("", finish=Finish.ERROR, error=self._failure)
            if self._failure
            else Answer("", finish=Finish.DEADLINE)
        )
        return [answer or missing for answer in self._answers]
