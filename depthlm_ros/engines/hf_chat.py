"""A prompt as text: the checkpoint's chat template, and what it renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from depthlm_ros.engines.base import EngineError, Prompt
from depthlm_ros.engines.hf_checkpoint import read_json


def chat_template(checkpoint: Path, tokenizer: Any) -> str:
    """The chat template that the checkpoint's own processor would use.

    The order is that of transformers: the processor's templates first (``processor_config.json``, the legacy
    ``chat_template.json``, ``chat_template.jinja``), then the tokenizer's, which may know no images.

    Raises:
        EngineError: There is none.
    """
    for name in ("processor_config.json", "chat_template.json"):
        template = read_json(checkpoint / name).get("chat_template")
        if isinstance(template, str):
            return template
    jinja = checkpoint / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise EngineError(
            f"{checkpoint} has no chat template; put the original checkpoint's chat_template.jinja or "
            "chat_template.json into it"
        )
    return template


class ChatText:
    """Renders a prompt as the text that the model was trained on.

    Args:
        tokenizer: The checkpoint's tokenizer.
        template: The chat template, Jinja.
    """

    def __init__(self, tokenizer: Any, template: str) -> None:
        self._tokenizer, self._template = tokenizer, template

    def render(self, prompt: Prompt) -> str:
        """System message, user message with images, the start of the assistant's turn, and the prefix."""
        # Templates differ in the key under which they look for the text (early Pixtral ones want "content").
        text = {"type": "text", "text": prompt.question, "content": prompt.question}
        images: list[dict[str, str]] = [{"type": "image"} for _ in prompt.images]
        content = [*images, text] if prompt.image_first else [text, *images]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if prompt.system is not None:
            # A plain string: Pixtral's template joins it to other strings.
            messages.insert(0, {"role": "system", "content": prompt.system})
        rendered = self._tokenizer.apply_chat_template(
            messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
        )
        return str(rendered) + prompt.prefix

    def adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer is to add its special tokens: not if the template wrote the first one."""
        bos = self._tokenizer.bos_token
        return not (bos and text.startswith(bos))
