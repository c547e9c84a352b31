"""What the stand-ins answer with: the embedded checkpoint in this process, asked by chat messages."""

from __future__ import annotations

import base64
import io
import random
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from depthlm_ros.engines.base import Answer, Finish, Prompt, PromptImage, Token
from depthlm_ros.engines.hf_batch import BatchCall
from depthlm_ros.engines.hf_chat import chat_template
from depthlm_ros.engines.transformers import TransformersEngine

PLACEHOLDER, IMAGE_TOKENS = "<|image_pad|>", 16
"""What stands for an image in a rendered prompt, and how many tokens it counts once the image is there."""


class EmbeddedModel:
    """The embedded checkpoint behind a lock; a context manager."""

    def __init__(self, checkpoint: Path) -> None:
        from transformers import AutoTokenizer

        self.engine = TransformersEngine(checkpoint, device="cpu", dtype="float32", threads=1)
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
        self._template = chat_template(checkpoint, self._tokenizer)
        self._lock = threading.Lock()
        self._dice = random.Random(0)

    def __enter__(self) -> EmbeddedModel:
        self.engine.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.engine.__exit__(None, None, None)

    def render(self, messages: Sequence[dict[str, Any]], **how: bool) -> str:
        """Apply the chat template as transformers does; ``how`` goes to ``apply_chat_template``."""
        plain = [{"role": m["role"], "content": _template_content(m["content"])} for m in messages]
        text = self._tokenizer.apply_chat_template(plain, chat_template=self._template, tokenize=False, **how)
        return str(text)

    def text_of(self, ids: Sequence[int]) -> str:
        """Token ids as text, special tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def count(self, text: str) -> int:
        """Tokens of a rendered prompt, with those of its images."""
        images = text.count(PLACEHOLDER)
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"]) + images * (IMAGE_TOKENS - 1)

    def decode(
        self,
        messages: Sequence[dict[str, Any]],
        rendered: str,
        *,
        max_tokens: int,
        stop: Sequence[str],
        temperature: float,
        penalty: float,
    ) -> Answer:
        """Continue a rendered conversation, with a repetition penalty (1.0 is none) that transformers applies.

        At a temperature above 0 the answer's digits are thrown at random: a stand-in for sampling, which the engine
        behind it does not do, and enough to make a forgotten temperature show.
        """
        asked = [m for m in messages if m["role"] != "assistant"]
        for talk in (asked, separated(asked)):
            start = self.render(talk, add_generation_prompt=True)
            if rendered.startswith(start):
                break
        else:  # token ids that are no conversation
            return Answer(".", (Token(".", -1.0),), Finish.LENGTH)
        prompt = replace(_prompt(talk), prefix=rendered[len(start) :])
        with self._lock:
            if penalty == 1.0:
                (answer,) = self.engine.generate([prompt], max_new_tokens=max_tokens, stop=stop)
            else:
                answer = self._penalised(prompt, max_tokens, tuple(stop), penalty)
            if temperature > 0:
                thrown = re.sub(r"\d", lambda _: str(self._dice.randrange(10)), answer.text)
                answer = replace(answer, text=thrown, tokens=())
        return answer

    def _penalised(self, prompt: Prompt, max_tokens: int, stop: tuple[str, ...], penalty: float) -> Answer:
        model = self.engine._model
        model.generation_config.repetition_penalty = penalty
        try:
            (answer,) = BatchCall(model, self.engine._encoder, max_tokens, stop, lambda: False).run([prompt])
        finally:
            model.generation_config.repetition_penalty = None
        return answer


def separated(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with images that stand before the text, and a line break between: what trtllm-serve makes of them."""
    return [m | {"content": _separated_content(m["content"])} for m in messages]


def _separated_content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    images = [part for part in content if part["type"] == "image_url"]
    text = "\n".join(part["text"] for part in content if part["type"] == "text")
    return [*images, {"type": "text", "text": "\n" + text if images else text}]


def _template_content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [{"type": "image"} if part["type"] == "image_url" else part for part in content]


def _prompt(messages: Sequence[dict[str, Any]]) -> Prompt:
    user = messages[-1]["content"]
    parts = [{"type": "text", "text": user}] if isinstance(user, str) else user
    images = tuple(
        PromptImage(_pixels(part["image_url"]["url"])) for part in parts if part["type"] == "image_url"
    )
    return Prompt(
        images,
        next(part["text"] for part in parts if part["type"] == "text"),
        system=messages[0]["content"] if messages[0]["role"] == "system" else None,
        image_first=parts[0]["type"] == "image_url",
    )


def _pixels(uri: str) -> np.ndarray:
    head, data = uri.split(",", 1)
    assert re.fullmatch(r"data:image/(png|jpeg);base64", head), head
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB"))
