"""Prompts as token ids, for servers that take ``prompt_token_ids`` in place of their own chat template."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from depthlm_ros.engines.base import EngineError, Prompt
from depthlm_ros.engines.hf_chat import ChatText, chat_template

PROBE_IDS = (1, 2, 3)
"""Ids that every vocabulary has; a server that follows them counts as many tokens."""


class PromptTokens:
    """Renders and tokenises prompts as the checkpoint's own tokenizer does; an image is its one placeholder.

    trtllm-serve turns the ids of a prompt with images into text again and expands the placeholders itself.

    Args:
        checkpoint: A directory with the tokenizer and the chat template of the served model.

    Raises:
        EngineError: They cannot be loaded.
    """

    def __init__(self, checkpoint: Path) -> None:
        try:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(
                checkpoint, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            raise EngineError(f"{checkpoint}: the tokenizer cannot be loaded ({error})") from error
        self._chat = ChatText(self._tokenizer, chat_template(checkpoint, self._tokenizer))
        # With a marker every query of every frame has the same text.
        self._ids_of_text = lru_cache(maxsize=512)(self._tokenise)

    def ids(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, its prefix included."""
        return list(self._ids_of_text(self._chat.render(prompt)))

    def _tokenise(self, text: str) -> tuple[int, ...]:
        added = self._chat.adds_special_tokens(text)
        return tuple(self._tokenizer(text, add_special_tokens=added)["input_ids"])
