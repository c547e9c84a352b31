"""One prompt's way to an answer: which server gets it, and what happens when that one fails."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from depthlm_ros.engines.base import Answer, Prompt
from depthlm_ros.engines.http_client import HttpClient
from depthlm_ros.engines.http_counting import CHAT
from depthlm_ros.engines.http_dialect import PrefixWay, chat_request
from depthlm_ros.engines.http_errors import CallError, ReplyError
from depthlm_ros.engines.http_images import ImageUris
from depthlm_ros.engines.http_pool import Endpoint, ServerPool
from depthlm_ros.engines.http_response import answer_of, answering_model_of
from depthlm_ros.engines.http_settings import ServerSettings

_BACKOFF_S = 0.2
"""Scale of the random waits before a request is sent again: up to this, then up to twice this, and so on."""


@dataclass(frozen=True)
class Call:
    """What the prompts of one call of ``generate`` have in common.

    Attributes:
        uris: Makes their images' data URIs.
        max_new_tokens: The most tokens to decode.
        stop: Strings that end decoding.
        deadline: ``time.monotonic()`` at which nobody waits any more.
    """

    uris: ImageUris
    max_new_tokens: int
    stop: tuple[str, ...]
    deadline: float


class Sender:
    """Sends prompts to the servers of a pool; to be used inside one event loop.

    Args:
        client: Asks them.
        pool: Chooses them.
        settings: The model, and how often a request is sent again.
    """

    def __init__(self, client: HttpClient, pool: ServerPool, settings: ServerSettings) -> None:
        self._client, self._pool, self._settings = client, pool, settings

    async def answer(self, prompt: Prompt, call: Call) -> Answer:
        """Send a prompt until it is answered, or has failed as often as the settings allow.

        Raises:
            CallError: It has.
        """
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

    async def _sent(self, prompt: Prompt, images: list[str], call: Call, failed: list[Endpoint]) -> Answer:
        """Send a prompt once; a server that fails it joins ``failed``, and another one, if any, may be asked."""
        endpoint = await self._pool.choose(avoid=failed)
        try:
            return await self._sent_to(endpoint, prompt, images, call)
        except CallError as error:
            self._note(error, endpoint, failed)
            if error.status != 400 or not self._pool.has_another(failed):
                raise
            refusal = error
        return await self._second_opinion(endpoint, refusal, prompt, images, call, failed)

    async def _second_opinion(
        self,
        first: Endpoint,
        refusal: CallError,
        prompt: Prompt,
        images: list[str],
        call: Call,
        failed: list[Endpoint],
    ) -> Answer:
        """Ask one other server about what the first took for a bad request.

        trtllm-serve answers 400 also where it failed itself. One that fails at once is always the least busy, and
        would be given every request; so it is not believed alone.

        Raises:
            CallError: The refusal, where the other refuses as well: then it is the request's fault, and nobody is
                blamed. Else what the other failed with.
        """
        other = await self._pool.choose(avoid=failed)
        try:
            answer = await self._sent_to(other, prompt, images, call)
        except CallError as error:
            if error.status == 400:
                raise refusal from None
            self._note(error, other, failed)
            raise
        if other is not first:
            self._pool.held_against(first, refusal)
        return answer

    def _note(self, error: CallError, endpoint: Endpoint, failed: list[Endpoint]) -> None:
        failed.append(endpoint)
        if (error.server_failed or error.status == 429) and self._pool.has_another(failed):
            error.retry, error.retry_after_s = True, 0.0

    async def _sent_to(self, endpoint: Endpoint, prompt: Prompt, images: list[str], call: Call) -> Answer:
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
