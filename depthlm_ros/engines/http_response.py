"""What a server's JSON says: the models it has, and the answer to one prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from depthlm_ros.engines.base import Answer, Finish, Token
from depthlm_ros.engines.http_errors import ReplyError

_FINISH = {"stop": Finish.STOP, "length": Finish.LENGTH}
_NO_LOGPROB = -9000.0
"""vLLM and TensorRT-LLM write -9999.0 where they have no log-probability."""


def models_of(payload: Any) -> dict[str, str]:
    """The models of a reply to ``/v1/models`` as {name: who serves it}.

    Raises:
        ReplyError: It is not a list of models.
    """
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, list) or not all(isinstance(card, dict) for card in data):
        raise ReplyError(
            '/v1/models: expected {"data": [{"id": ...}, ...]}; is this an OpenAI-compatible server?'
        )
    return {str(card.get("id")): str(card.get("owned_by") or "") for card in data}


def prompt_tokens_of(payload: Any) -> int | None:
    """How many tokens the prompt had by the server's count, or None where it does not say."""
    usage = payload.get("usage") if isinstance(payload, dict) else None
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else None


def answering_model_of(payload: Any) -> str:
    """The model that a reply names (some servers repeat the request's), or empty."""
    name = payload.get("model") if isinstance(payload, dict) else None
    return name if isinstance(name, str) else ""


def answer_of(payload: Any, *, written: str = "", stop: Sequence[str] = ()) -> Answer:
    """The answer in a reply to ``/v1/chat/completions``.

    Servers differ in whether the text keeps the stop string; as the engines' contract wants it, the token that
    completed it is kept where it came, and nothing behind it.

    Args:
        payload: The reply's JSON.
        written: The start of the answer that the model was to write itself and that is taken off.
        stop: The stop strings of the request.

    Returns:
        The answer; without tokens where the server sent no log-probabilities or they do not fit the text.

    Raises:
        ReplyError: It is no complete answer; the message says what came.
    """
    choice = _only_choice(payload)
    text = _text(choice)
    ended = choice.get("finish_reason")
    if ended not in _FINISH:
        raise ReplyError(f"finish_reason: expected 'stop' or 'length', got {str(ended)[:40]!r}")
    finish = _FINISH[ended]
    stopped_by = choice.get("stop_reason")
    if isinstance(stopped_by, str) and stopped_by in stop and stopped_by not in text:
        text += stopped_by
    tokens = _aligned(text, _logprob_entries(choice))
    text, tokens = _without_start(text, tokens, written)
    text, tokens, completed = _until_stop(text, tokens, stop)
    return Answer(text, tokens, Finish.STOP if completed else finish)


def _only_choice(payload: Any) -> dict[str, Any]:
    choices = payload.get("choices") if isinstance(payload, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise ReplyError(f"expected one entry in 'choices', got {_shape(payload, choices)}")
    choice: dict[str, Any] = choices[0]
    return choice


def _shape(payload: Any, choices: Any) -> str:
    if isinstance(choices, list):
        return f"{len(choices)}"
    return (
        f"an object with {sorted(map(str, payload))[:8]}"
        if isinstance(payload, dict)
        else type(payload).__name__
    )


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ReplyError("expected a 'message' in the choice, got none")
    content = message.get("content")
    if not content and (message.get("reasoning_content") or message.get("reasoning")):
        raise ReplyError(
            "the server moved the answer into its reasoning: start it without a reasoning parser "
            "(llama.cpp: --reasoning-format none)"
        )
    if content is not None and not isinstance(content, str):
        raise ReplyError(f"expected text in 'content', got {type(content).__name__}")
    return content or ""


def _logprob_entries(choice: dict[str, Any]) -> list[tuple[str, float]]:
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    entries: list[tuple[str, float]] = []
    for entry in content if isinstance(content, list) else ():
        token = entry.get("token") if isinstance(entry, dict) else None
        if not isinstance(token, str):
            return []
        entries.append((token, _logprob(entry.get("logprob"))))
    return entries


def _logprob(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    # Compared before anything else: an integer may be too large for a float, and NaN compares false.
    return float(value) if _NO_LOGPROB < value <= 1e-6 else math.nan


def _aligned(text: str, entries: Sequence[tuple[str, float]]) -> tuple[Token, ...]:
    """Lay the tokens over the text so that they join to it; none where they do not fit."""
    tokens: list[Token] = []
    rest = text
    for piece, logprob in entries:
        if not rest:
            break  # what follows was cut off the text: a stop string, the end-of-text token
        if not tokens and not rest.startswith(piece):
            piece = piece.lstrip()  # some tokenizers drop the first space of a text
        if not (rest.startswith(piece) or piece.startswith(rest)):
            return ()
        tokens.append(Token(rest[: len(piece)], logprob))
        rest = rest[len(piece) :]
    if tokens and rest:
        tokens.append(Token(rest, math.nan))
    return tuple(tokens)


def _without_start(text: str, tokens: tuple[Token, ...], start: str) -> tuple[str, tuple[Token, ...]]:
    """Take off the start of the answer, where the model wrote it as expected."""
    lead = len(text) - len(text.lstrip())
    if not start or not text.startswith(start, lead):
        return text, tokens
    end = lead + len(start)
    kept: list[Token] = []
    position = 0
    for token in tokens:
        position += len(token.text)
        if position > end:
            kept.append(Token(token.text[-(position - end) :], token.logprob))
    return text[end:], tuple(kept)


def _until_stop(
    text: str, tokens: tuple[Token, ...], stop: Sequence[str]
) -> tuple[str, tuple[Token, ...], bool]:
    """Cut behind the first completed stop string, or behind the token that completed it."""
    ends = [text.index(s) + len(s) for s in stop if s and s in text]
    if not ends:
        return text, tokens, False
    end, position = min(ends), 0
    for count, token in enumerate(tokens, 1):
        position += len(token.text)
        if position >= end:
            return text[:position], tokens[:count], True
    return text[:end], tokens, True
