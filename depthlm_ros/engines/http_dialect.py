"""Chat-completion requests, in the dialect of the server that gets them.

Which server understands what, and where that was read: ``test/data/server_facts.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from depthlm_ros.engines.base import Prompt
from depthlm_ros.engines.http_tokens import PromptTokens


class PrefixWay(Enum):
    """How a server is given the start of the answer, so that it decodes only the rest."""

    CONTINUE = "continue_final_message"
    """A last assistant message and this field beside ``add_generation_prompt: false`` (vLLM, newer llama.cpp)."""
    KWARGS = "chat_template_kwargs"
    """The same field inside ``chat_template_kwargs``, which trtllm-serve hands to the tokenizer's template."""
    ASSISTANT = "assistant_message"
    """A last assistant message alone, which llama.cpp, or a chat template on the server, leaves open."""
    TOKENS = "prompt_token_ids"
    """The whole prompt as token ids, made here with the model's tokenizer (trtllm-serve)."""
    WHOLE = "whole_answer"
    """Not at all: the model decodes the start itself, and it is taken off afterwards."""


class Layout(Enum):
    """What a server puts between an image and the question behind it, found out with the image of the probe."""

    TEMPLATE = "template"
    """Nothing more than the checkpoint's chat template, or no line break as far as can be counted."""
    SEPARATED = "separated"
    """A line break (trtllm-serve with Qwen2.5-VL), which a checkpoint reads that was trained without."""
    UNKNOWN = "unknown"
    """The server does not count tokens, or its tokenizer does not show it."""


PENALTY_FIELDS: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "repeat_penalty": 1.0,
    "generation_config": '{"repetition_penalty": 1.0}',
}
"""Each asks for no repetition penalty: vLLM and trtllm-serve, llama.cpp, and `transformers serve` (a text that holds
JSON) know one of them. Where a request is silent, vLLM and `transformers serve` take the penalty of the checkpoint's
generation_config.json, also at temperature 0; Qwen2.5-VL's of 1.05 would change digits."""

OPTIONAL_FIELDS: dict[str, Any] = {
    "logprobs": True,
    "include_stop_str_in_output": True,
    "seed": 0,
    **PENALTY_FIELDS,
}
"""Fields that a strict server may refuse; each is sent where it is understood."""

_PREFIX_FIELDS: dict[PrefixWay, dict[str, Any]] = {
    PrefixWay.CONTINUE: {"continue_final_message": True, "add_generation_prompt": False},
    PrefixWay.KWARGS: {
        "chat_template_kwargs": {"continue_final_message": True},
        "add_generation_prompt": False,
    },
}


@dataclass(frozen=True)
class Dialect:
    """What one server understands.

    Attributes:
        kind: Who the server says it is (``owned_by`` of its model).
        prefix: How it is given the start of the answer.
        fields: Which of ``OPTIONAL_FIELDS`` it takes.
        logprobs: Whether its answers hold log-probabilities.
        tokens: Makes the ids for ``PrefixWay.TOKENS``; else None.
        layout: What it puts between image and question.
        model: The model that its answers name; empty where they name none.
    """

    kind: str = ""
    prefix: PrefixWay = PrefixWay.WHOLE
    fields: frozenset[str] = frozenset(OPTIONAL_FIELDS)
    logprobs: bool = False
    tokens: PromptTokens | None = None
    layout: Layout = Layout.TEMPLATE
    model: str = ""

    @property
    def asks_for_no_penalty(self) -> bool:
        """Whether the server takes a request for decoding without a repetition penalty; if not, its own applies."""
        return not self.fields.isdisjoint(PENALTY_FIELDS)


def messages_of(prompt: Prompt, uris: Sequence[str]) -> list[dict[str, Any]]:
    """The system and the user message of a prompt.

    Args:
        prompt: The prompt.
        uris: Data URIs of its images, in order.
    """
    images = [{"type": "image_url", "image_url": {"url": uri}} for uri in uris]
    text = {"type": "text", "text": prompt.question}
    messages: list[dict[str, Any]] = []
    if prompt.system is not None:
        messages.append({"role": "system", "content": prompt.system})
    content = [*images, text] if prompt.image_first else [text, *images]
    messages.append({"role": "user", "content": content})
    return messages


def chat_request(
    model: str,
    prompt: Prompt,
    uris: Sequence[str],
    dialect: Dialect,
    *,
    max_tokens: int,
    stop: Sequence[str] = (),
) -> dict[str, Any]:
    """The body of a request to ``/v1/chat/completions``.

    Args:
        model: The model's name at the server.
        prompt: What is asked.
        uris: Data URIs of its images, in order.
        dialect: What the server understands.
        max_tokens: The most tokens to decode behind the prompt's prefix.
        stop: Strings that end decoding.
    """
    messages = messages_of(prompt, uris)
    extra: dict[str, Any] = {}
    if dialect.tokens is not None:
        extra["prompt_token_ids"] = dialect.tokens.ids(prompt)
    elif prompt.prefix and dialect.prefix is PrefixWay.WHOLE:
        # The tokenizer is the server's; no token is shorter than a character, so this is always enough.
        max_tokens += len(prompt.prefix)
    elif prompt.prefix:
        messages.append({"role": "assistant", "content": prompt.prefix})
        extra.update(_PREFIX_FIELDS.get(dialect.prefix, {}))
    if stop:
        extra["stop"] = list(stop)
    extra.update({name: value for name, value in OPTIONAL_FIELDS.items() if name in dialect.fields})
    # The temperature is always sent: it defaults to sampling (1.0 at trtllm-serve and vLLM, 0.8 at llama.cpp).
    return {"model": model, "messages": messages, "temperature": 0.0, "max_tokens": max_tokens, **extra}
