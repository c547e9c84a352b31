"""A model for tests of the transport alone: it looks at nothing and says one sentence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from depthlm_ros.engines.base import Answer, Finish, Token

SAYS = (" ", "2", ".", "50", " meters", " away", ".")


class ScriptedModel:
    """FOR TESTS ONLY: stands where the embedded checkpoint stands in a stand-in; tokens are characters.

    Attributes:
        delay_s: Seconds that an answer takes.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0

    def render(self, messages: Sequence[dict[str, Any]], **how: bool) -> str:
        """A template with turns that are closed, unless the last message is to be continued."""
        text = "".join(f"<{m['role']}>{m['content']}</>" for m in messages)
        if how.get("continue_final_message"):
            return text.removesuffix("</>")
        return text + "<assistant>" if how.get("add_generation_prompt") else text

    def text_of(self, ids: Sequence[int]) -> str:
        """Ids are characters."""
        return "".join(map(chr, ids))

    def count(self, text: str) -> int:
        """One token per character."""
        return len(text)

    def decode(
        self,
        messages: Sequence[dict[str, Any]],
        rendered: str,
        *,
        max_tokens: int,
        stop: Sequence[str],
        **_: Any,
    ) -> Answer:
        """Say the sentence, up to a stop string or the limit."""
        time.sleep(self.delay_s)
        said: list[str] = []
        finish = Finish.STOP
        for piece in SAYS:
            if len(said) == max_tokens:
                finish = Finish.LENGTH
                break
            said.append(piece)
            if any(s in piece for s in stop):
                break
        return Answer("".join(said), tuple(Token(piece, -0.1) for piece in said), finish)
