"""An engine for tests: it runs no model and answers what the test wrote."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt, Token

Script = Callable[[Prompt], "str | Answer | Exception"]


class FakeEngine:
    """FOR TESTS ONLY: a :class:`VlmEngine` whose answers are scripted; nothing is looked at or inferred.

    Args:
        script: What to answer to a prompt: a text; a whole :class:`Answer`; an exception, which becomes
            ``Finish.ERROR``; or an :class:`EngineError`, which ``generate`` raises.
        batch_size: Prompts per batch.
        delay_s: Seconds that each batch takes.
        logprob: Log-probability of every token of a scripted text, whose tokens are its characters.

    Attributes:
        prompts: Every prompt that was answered, in order.
        generate_calls: How often ``generate`` was called.
        batches: How many batches were run.
        entered: How often the engine was started.
        running: Whether it is started now.
    """

    def __init__(
        self, script: Script, *, batch_size: int = 8, delay_s: float = 0.0, logprob: float = -0.1
    ) -> None:
        self._script, self._batch_size, self._delay_s, self._logprob = script, batch_size, delay_s, logprob
        self.prompts: list[Prompt] = []
        self.generate_calls = self.batches = self.entered = 0
        self.running = False
        self._cancelled = threading.Event()

    @property
    def model_name(self) -> str:
        """A name that says that nothing here is real."""
        return "fake (scripted answers, for tests)"

    def details(self) -> dict[str, str]:
        """How often it was asked."""
        return {"generate_calls": str(self.generate_calls)}

    def __enter__(self) -> FakeEngine:
        """Start, which does nothing but count."""
        self.entered += 1
        self.running = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.running = False

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        deadline: float | None = None,
    ) -> list[Answer]:
        """Answer from the script, cut at the first stop string and at ``max_new_tokens`` characters.

        Raises:
            EngineError: The engine was not started, or the script returned one.
        """
        if not self.running:
            raise EngineError("the engine is not started; use it in a with statement")
        self.generate_calls += 1
        self._cancelled.clear()
        answers: list[Answer] = []
        for first in range(0, len(prompts), self._batch_size):
            batch = prompts[first : first + self._batch_size]
            if self._cancelled.is_set() or (deadline is not None and time.monotonic() > deadline):
                answers += [Answer("", finish=Finish.DEADLINE)] * len(batch)
                continue
            self.batches += 1
            if self._delay_s:
                time.sleep(self._delay_s)
            answers += [self._answer(prompt, max_new_tokens, stop) for prompt in batch]
        return answers

    def cancel(self) -> None:
        """End a call that is under way, before its next batch."""
        self._cancelled.set()

    def _answer(self, prompt: Prompt, max_new_tokens: int, stop: Sequence[str]) -> Answer:
        self.prompts.append(prompt)
        said = self._script(prompt)
        if isinstance(said, EngineError):
            raise said
        if isinstance(said, Exception):
            return Answer("", finish=Finish.ERROR, error=str(said))
        if isinstance(said, Answer):
            return said
        ends = [said.index(s) + len(s) for s in stop if s and s in said]
        text = said[: min(ends)] if ends else said
        finish = Finish.LENGTH if len(text) > max_new_tokens else Finish.STOP
        text = text[:max_new_tokens]
        return Answer(text, tuple(Token(character, self._logprob) for character in text), finish)
