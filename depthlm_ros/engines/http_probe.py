"""Gets to know a server: is it well, does it have the model, what does it understand, does it see images."""

from __future__ import annotations

import dataclasses
import logging

from depthlm_ros.engines.base import Prompt
from depthlm_ros.engines.http_client import HttpClient
from depthlm_ros.engines.http_counting import TokenCounter
from depthlm_ros.engines.http_dialect import OPTIONAL_FIELDS, Dialect, PrefixWay, chat_request
from depthlm_ros.engines.http_errors import CallError, ReplyError
from depthlm_ros.engines.http_images import data_uri
from depthlm_ros.engines.http_layout import IMAGE, layout_of, matching_tokens
from depthlm_ros.engines.http_models import kind_of
from depthlm_ros.engines.http_response import answer_of, answering_model_of, prompt_tokens_of
from depthlm_ros.engines.http_settings import ServerSettings

_LOG = logging.getLogger(__name__)
_QUESTION, _WORD = "Name a number.", "the"


class _RefusedError(CallError):
    """A question about an image cannot be asked in one way; it may be in another."""


async def get_to_know(client: HttpClient, base: str, settings: ServerSettings) -> Dialect:
    """Find out how to talk to a server, with some requests of one or two tokens.

    Args:
        client: The client.
        base: The server's base URL.
        settings: The model, and the prefix's way or ``auto``.

    Returns:
        What the server understands.

    Raises:
        CallError: The server cannot be used now; the message says why and what to do.
    """
    await client.check_health(base)
    kind = await kind_of(client, base, settings.model)
    counter = TokenCounter(client, base, settings.model)
    dialect = Dialect(kind, fields=await _understood_fields(counter))
    try:
        return await _settled(counter, dialect, settings)
    except ReplyError as error:
        raise CallError(str(error), server_failed=True) from None


async def _understood_fields(counter: TokenCounter) -> frozenset[str]:
    asked, everything = Prompt((), _QUESTION), frozenset(OPTIONAL_FIELDS)
    if await counter.count(Dialect(fields=everything), asked) is not None:
        return everything
    understood: set[str] = set()
    for name in OPTIONAL_FIELDS:
        if await counter.count(Dialect(fields=frozenset({name})), asked) is not None:
            understood.add(name)
    return frozenset(understood)


async def _settled(counter: TokenCounter, dialect: Dialect, settings: ServerSettings) -> Dialect:
    """Choose how prompts and the start of the answer are given, and prove it with an image.

    Token ids come first: with them the model reads what the checkpoint's template says, whatever the server's own
    rendering is.
    """
    auto, by_ids = settings.prefix == "auto", settings.prefix == PrefixWay.TOKENS.value
    tokens = await matching_tokens(counter, dialect, settings.checkpoint)
    if tokens is not None and (auto or by_ids):
        try:
            return await _seeing(
                counter, dataclasses.replace(dialect, prefix=PrefixWay.TOKENS, tokens=tokens), settings
            )
        except _RefusedError as error:
            if by_ids:
                raise
            _LOG.info("%s: prompts are not sent as token ids: %s", counter.url, error)
    if by_ids:
        raise CallError(
            "engine.prefix is 'prompt_token_ids' but the server does not follow them, or counts other tokens "
            "than the tokenizer in engine.checkpoint; name the served checkpoint's directory there"
        )
    way = await _prefix_way(counter, dialect) if auto else PrefixWay(settings.prefix)
    dialect = await _seeing(counter, dataclasses.replace(dialect, prefix=way), settings)
    layout = await layout_of(counter, dialect, _uri(settings), tokens)
    return dataclasses.replace(dialect, layout=layout)


async def _prefix_way(counter: TokenCounter, dialect: Dialect) -> PrefixWay:
    """The first way that is not only accepted but followed.

    A lenient server accepts fields that it ignores, so the prompt's length is compared: a turn that was left open is
    shorter than one that was closed and followed by the start of a new one.
    """

    async def length(way: PrefixWay, question: str = _QUESTION, prefix: str = "") -> int | None:
        speaking = dataclasses.replace(dialect, prefix=way)
        return await counter.count(speaking, Prompt((), question, prefix=prefix))

    closed = await length(PrefixWay.ASSISTANT, prefix=_WORD)
    for way in (PrefixWay.CONTINUE, PrefixWay.KWARGS):
        open_turn = await length(way, prefix=_WORD)
        if open_turn and (closed is None or open_turn < closed):
            return way
    if closed:
        # Here the last message may be left open without being told: then it adds its own tokens and no more. How many
        # those are, the same word shows as the user's message, where the same kind of tokens stand around it.
        bare = await length(PrefixWay.WHOLE)
        with_word = await length(PrefixWay.WHOLE, _WORD)
        without = await length(PrefixWay.WHOLE, "")
        if bare and with_word and without and closed - bare == with_word - without:
            return PrefixWay.ASSISTANT
    return PrefixWay.WHOLE


def _uri(settings: ServerSettings) -> str:
    return data_uri(IMAGE.pixels(), settings.image_format, settings.jpeg_quality)


async def _seeing(counter: TokenCounter, dialect: Dialect, settings: ServerSettings) -> Dialect:
    """Ask one question about an image as the engine will, so that what cannot work fails now."""
    prompt = Prompt((IMAGE,), _QUESTION, prefix="The number is")
    body = chat_request(counter.model, prompt, [_uri(settings)], dialect, max_tokens=2)
    try:
        reply = await counter.client.post(counter.url, body)
        answer = answer_of(reply)
    except CallError as error:
        if error.status is None or error.retry:
            raise
        raise _RefusedError(
            f"a question about an image, with prefix {dialect.prefix.value!r}, was refused ({error}); serve a "
            "vision-language model, or choose another engine.prefix",
            status=error.status,
            server_failed=error.server_failed,
        ) from None
    if dialect.tokens is not None and (prompt_tokens_of(reply) or 0) <= len(body["prompt_token_ids"]):
        # The ids have one placeholder for the image, and a server that looks at it counts the image's tokens.
        raise _RefusedError(
            "the server does not look at the image beside prompt_token_ids; choose another engine.prefix"
        )
    return dataclasses.replace(dialect, logprobs=bool(answer.tokens), model=answering_model_of(reply))
