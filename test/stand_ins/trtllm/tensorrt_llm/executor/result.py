"""STANDS IN for TensorRT-LLM; see the README beside it."""

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Logprob:
    logprob: float


@dataclass(slots=True)
class CompletionOutput:
    token_ids: list[int] = field(default_factory=list)
    logprobs: list = field(default_factory=list)
    finish_reason: str | None = None


class GenerationResult:
    def __init__(self, token_ids, reason, pause, plain):
        self._all, self._reason, self._pause, self._plain = token_ids, reason, pause, plain
        self._output = CompletionOutput()
        self._done = False
        self.aborts = 0

    @property
    def outputs(self):
        return [self._output]

    @property
    def finished(self):
        return self._done

    def abort(self):
        self.aborts += 1

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._done:
            raise StopAsyncIteration
        await asyncio.sleep(self._pause)
        place = len(self._output.token_ids)
        if place < len(self._all):
            token = self._all[place]
            self._output.token_ids.append(token)
            logprob = -0.25 if place % 2 else -0.5
            self._output.logprobs.append(
                logprob if self._plain else {token: Logprob(logprob), -1: Logprob(-9.0)}
            )
        if len(self._output.token_ids) == len(self._all):
            self._done, self._output.finish_reason = True, self._reason
        return self
