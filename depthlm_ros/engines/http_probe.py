"""Gets to know a server: is it well, does it have the model, what does it understand, does it see images."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from depthlm_ros.engines.base import EngineError, Prompt, PromptImage
from depthlm_ros.engines.http_client import HttpClient
from depthlm_ros.engines.http_dialect import OPTIONAL_FIELDS, Dialect, PrefixWay, chat_request
from depthlm_ros.engines.http_errors import CallError, ReplyError
from depthlm_ros.engines.http_images import data_uri
from depthlm_ros.engines.http_response import answer_of, answering_model_of, models_of, prompt_tokens_of
from depthlm_ros.engines.http_settings import ServerSettings
from depthlm_ros.engines.http_tokens import PROBE_IDS, PromptTokens

CHAT = "/v1/chat/completions"
_QUESTION, _WORD = "Name a number.", "the"
_IMAGE = PromptImage(np.full((56, 56, 3), 128, np.uint8))
"""56 pixels are a whole number of 14- and 28-pixel patches, and the least that Qwen2.5-VL takes unresized."""


async def get_to_know(client: HttpClient, base: str, settings: ServerSettings) -> Dialect:
    """Find out how to talk to a server, with a few requests of one or two tokens.

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
    try:
        kind = _kind_of_model(models_of(await client.get(base + "/v1/models")), settings.model)
        server = _Server(client, base + CHAT, settings.model)
        dialect = Dialect(kind, fields=await _understood_fields(server))
        dialect = await _with_prefix(server, dialect, settings)
        return await _seeing(server, dialect, settings)
    except ReplyError as error:
        raise CallError(str(error), server_failed=True) from None


async def confirm_model(client: HttpClient, base: str, model: str, kind: str) -> None:
    """See whether a server that was got to know still has the model and is of the same kind.

    Raises:
        CallError: It cannot be reached, or is another one now.
    """
    try:
        found = _kind_of_model(models_of(await client.get(base + "/v1/models")), model)
    except ReplyError as error:
        raise CallError(str(error), server_failed=True) from None
    if found != kind:
        raise CallError(
            f"another server answers there now ({found or 'unnamed'}, it was {kind or 'unnamed'})"
        )


class _Server:
    """Asks for the number of tokens of a prompt, which tells how the server rendered it."""

    def __init__(self, client: HttpClient, url: str, model: str) -> None:
        self.client, self.url, self.model = client, url, model

    async def prompt_tokens(
        self, dialect: Dialect, prefix: str = "", *, question: str = _QUESTION, **more: Any
    ) -> int | None:
        """Tokens of a question with a prefix; 0 where the server does not say, None where it refuses."""
        prompt = Prompt((), question, prefix=prefix)
        body = chat_request(self.model, prompt, (), dialect, max_tokens=1) | more
        try:
            return prompt_tokens_of(await self.client.post(self.url, body)) or 0
        except CallError as error:
            # 401 and 403 speak of the key and 404 of the path or the model, not of a field.
            if error.status is None or error.retry or error.status in (401, 403, 404):
                raise
            return None


def _kind_of_model(models: dict[str, str], wanted: str) -> str:
    found = ", ".join(repr(name) for name in sorted(models)) or "none"
    if not wanted:
        raise CallError(f"engine.model is empty; name one of the server's models: {found}")
    if wanted not in models:
        raise CallError(
            f"the server does not have the model {wanted!r}; it has {found}: set engine.model to one of them, or "
            "serve the model under that name"
        )
    return models[wanted]


async def _understood_fields(server: _Server) -> frozenset[str]:
    everything = frozenset(OPTIONAL_FIELDS)
    if await server.prompt_tokens(Dialect(fields=everything)) is not None:
        return everything
    understood: set[str] = set()
    for name in OPTIONAL_FIELDS:
        if await server.prompt_tokens(Dialect(fields=frozenset({name}))) is not None:
            understood.add(name)
    return frozenset(understood)


async def _with_prefix(server: _Server, dialect: Dialect, settings: ServerSettings) -> Dialect:
    if settings.prefix == PrefixWay.TOKENS.value:
        tokens = await _tokens(server, dialect, settings)
        if tokens is None:
            raise CallError(
                "engine.prefix is 'prompt_token_ids' but the server does not follow them, or counts other tokens "
                "than the tokenizer in engine.checkpoint; name the served checkpoint's directory there"
            )
        return dataclasses.replace(dialect, prefix=PrefixWay.TOKENS, tokens=tokens)
    if settings.prefix != "auto":
        return dataclasses.replace(dialect, prefix=PrefixWay(settings.prefix))
    way = await _prefix_way(server, dialect)
    tokens = await _tokens(server, dialect, settings) if way is PrefixWay.WHOLE else None
    return dataclasses.replace(dialect, prefix=PrefixWay.TOKENS if tokens else way, tokens=tokens)


async def _tokens(server: _Server, dialect: Dialect, settings: ServerSettings) -> PromptTokens | None:
    """What makes token ids for a server that follows them, if its tokenizer and template are those found here."""
    followed = await server.prompt_tokens(dialect, prompt_token_ids=list(PROBE_IDS))
    if followed != len(PROBE_IDS) or settings.checkpoint is None:
        return None
    try:
        tokens = await asyncio.to_thread(PromptTokens, settings.checkpoint)
    except EngineError:
        return None
    same = await server.prompt_tokens(dialect) == len(tokens.ids(Prompt((), _QUESTION)))
    return tokens if same else None


async def _prefix_way(server: _Server, dialect: Dialect) -> PrefixWay:
    """The first way that is not only accepted but followed.

    A lenient server accepts fields that it ignores, so the prompt's length is compared: a turn that was left open is
    shorter than one that was closed and followed by the start of a new one.
    """

    def speaking(way: PrefixWay) -> Dialect:
        return dataclasses.replace(dialect, prefix=way)

    closed = await server.prompt_tokens(speaking(PrefixWay.ASSISTANT), _WORD)
    for way in (PrefixWay.CONTINUE, PrefixWay.KWARGS):
        length = await server.prompt_tokens(speaking(way), _WORD)
        if length and (closed is None or length < closed):
            return way
    if closed:
        # Here the last message may be left open without being told: then it adds its own tokens and no more. How many
        # those are, the same word shows as the user's message, where the same kind of tokens stand around it.
        bare = await server.prompt_tokens(dialect)
        with_word = await server.prompt_tokens(dialect, question=_WORD)
        without = await server.prompt_tokens(dialect, question="")
        if bare and with_word and without and closed - bare == with_word - without:
            return PrefixWay.ASSISTANT
    return PrefixWay.WHOLE


async def _seeing(server: _Server, dialect: Dialect, settings: ServerSettings) -> Dialect:
    """Ask one question about an image as the engine will, so that what cannot work fails now."""
    prompt = Prompt((_IMAGE,), _QUESTION, prefix="The number is")
    uris: Sequence[str] = [data_uri(_IMAGE.pixels(), settings.image_format, settings.jpeg_quality)]
    body = chat_request(server.model, prompt, uris, dialect, max_tokens=2)
    try:
        reply = await server.client.post(server.url, body)
        answer = answer_of(reply)
    except CallError as error:
        if error.status is None or error.retry:
            raise
        raise CallError(
            f"a question about an image, with prefix {dialect.prefix.value!r}, was refused ({error}); serve a "
            "vision-language model, or choose another engine.prefix",
            status=error.status,
            server_failed=error.server_failed,
        ) from None
    return dataclasses.replace(dialect, logprobs=bool(answer.tokens), model=answering_model_of(reply))
