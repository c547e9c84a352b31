"""Whether a server hands the model what its chat template says, or lays out image and question in its own way.

trtllm-serve puts a Qwen2.5-VL image before the text with a line break between, which the template has not. Token ids
made here go around that; where they cannot be used, the difference is at least noticed.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import numpy as np

from depthlm_ros.engines.base import EngineError, Prompt, PromptImage
from depthlm_ros.engines.http_counting import TokenCounter
from depthlm_ros.engines.http_dialect import Dialect, Layout
from depthlm_ros.engines.http_tokens import PROBE_IDS, PromptTokens

IMAGE = PromptImage(np.full((56, 56, 3), 128, np.uint8))
"""56 pixels are a whole number of 14- and 28-pixel patches, and the least that Qwen2.5-VL takes unresized."""
_QUESTION = "Name a number"
"""Ends with a letter: tokenizers join a line break to the full stop before it."""
_SAMPLES = (
    Prompt((), _QUESTION),
    Prompt((), "How far is (1234, 567)? 2.50 m, größer, 距离。", system="You are a helpful assistant."),
    Prompt((), "one\n\ntwo  three\n\t0.0001"),
)
"""Other tokenizers, and other templates, count other lengths of at least one of these."""


async def matching_tokens(
    counter: TokenCounter, dialect: Dialect, checkpoint: Path | None
) -> PromptTokens | None:
    """What makes token ids for a server that follows them, if its tokenizer and template are those found here.

    Args:
        counter: The server.
        dialect: How it is asked.
        checkpoint: A directory that may hold the served model's tokenizer and chat template.

    Raises:
        CallError: The server cannot be asked.
    """
    if checkpoint is None:
        return None
    # A lenient server ignores the field, and counts the question.
    followed = await counter.count(dialect, _SAMPLES[0], prompt_token_ids=list(PROBE_IDS))
    if followed != len(PROBE_IDS):
        return None
    try:
        tokens = await asyncio.to_thread(PromptTokens, checkpoint)
    except EngineError:
        return None
    for sample in _SAMPLES:
        if await counter.count(dialect, sample) != len(tokens.ids(sample)):
            return None
    return tokens


async def layout_of(counter: TokenCounter, dialect: Dialect, uri: str, tokens: PromptTokens | None) -> Layout:
    """Find out whether a line break stands between an image and the question.

    Args:
        counter: The server.
        dialect: How it is asked, not by token ids.
        uri: Data URI of :data:`IMAGE`.
        tokens: Makes the ids of the same prompt, if the server follows them.

    Raises:
        CallError: The server cannot be asked.
    """
    asked = Prompt((IMAGE,), _QUESTION)
    length = await counter.count(dialect, asked, [uri])
    if not length:
        return Layout.UNKNOWN
    if tokens is not None:
        exact = await counter.count(dataclasses.replace(dialect, tokens=tokens), asked, [uri])
        if exact and exact > len(tokens.ids(asked)):
            return Layout.TEMPLATE if length == exact else Layout.SEPARATED
    if not await _shows_line_breaks(counter, dialect):
        return Layout.UNKNOWN
    # A further line break joins one that is there already, and is a token of its own where there is none.
    longer = await counter.count(dialect, Prompt((IMAGE,), "\n" + _QUESTION), [uri])
    return {length: Layout.SEPARATED, length + 1: Layout.TEMPLATE}.get(longer or 0, Layout.UNKNOWN)


async def _shows_line_breaks(counter: TokenCounter, dialect: Dialect) -> bool:
    """Whether two line breaks in a row are one token (as in Qwen's tokenizer), and the template strips none."""
    one, two, bare, ended = [
        await counter.count(dialect, Prompt((), text))
        for text in ("Name\na number", "Name\n\na number", _QUESTION, _QUESTION + "\n")
    ]
    return bool(one and one == two and bare and ended and ended > bare)
