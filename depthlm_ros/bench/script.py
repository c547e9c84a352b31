"""What random weights are to say: after all logits are computed, the next word of a given answer gets the highest.

Random weights never end a sentence: decoding would run to its limit, which differs between the procedures. Here both
decode the same answer, the official procedure all of it, ours from the prompt prefix to the number's end. Nothing is
saved by it: every layer and every logit is computed first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from depthlm_ros.bench.clock import Watch
from depthlm_ros.profile import DEPTHLM_ANSWER, DEPTHLM_PREFIX

SPOKEN_M = 3.51
"""The depth that every answer names, in metres."""

_LEAD = 30.0
"""How far the next word is put above the highest logit: its probability rounds to 1."""


@dataclass
class Heard:
    """What the model itself would have said at the number's tokens, before the script was put on top.

    Attributes:
        tokens: Its likeliest token per batch, each of shape (batch,).
        logprobs: Natural logarithm of that token's probability, likewise.
    """

    tokens: list[Any] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)


class Script:
    """Makes a watched model say one answer; used as a context manager.

    Args:
        watch: The model's watch; it tells a prefill from a step.
        head: The model's ``lm_head``.
        tokenizer: Its tokenizer.

    Raises:
        ValueError: The prompt prefix does not end where a token ends.
    """

    def __init__(self, watch: Watch, head: Any, tokenizer: Any) -> None:
        self._watch, self._head = watch, head
        text = DEPTHLM_ANSWER.format(depth=SPOKEN_M)
        number = text[: text.index(" meters")]
        whole, prefix, said = (self._ids(tokenizer, t) for t in (text, DEPTHLM_PREFIX, number))
        if whole[: len(prefix)] != prefix or whole[: len(said)] != said:
            raise ValueError(
                "the tokenizer cuts the answer elsewhere than behind the prompt prefix and the number"
            )
        self.tokens = [*whole, int(tokenizer.eos_token_id)]
        """Ids of the whole answer, with the end."""
        self.prefix = len(prefix)
        """How many of them are the prompt prefix."""
        self.number = range(len(prefix), len(said))
        """Which of them are the number."""
        self.start = 0
        """Where the next answer begins: 0, or :attr:`prefix` where the prompt has it already."""
        self.heard: Heard | None = None
        self._position = 0

    @staticmethod
    def _ids(tokenizer: Any, text: str) -> list[int]:
        return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]

    def __enter__(self) -> Script:
        """Begin to speak."""
        self._watch.on_prefill.append(self._restart)
        self._watch.on_step.append(self._advance)
        self._hook = self._head.register_forward_hook(self._speak)
        return self

    def __exit__(self, *_: object) -> None:
        """Let the model speak for itself again."""
        self._hook.remove()
        self._watch.on_prefill.remove(self._restart)
        self._watch.on_step.remove(self._advance)

    def _restart(self) -> None:
        self._position = self.start

    def _advance(self) -> None:
        self._position += 1

    def _speak(self, module: Any, args: Any, logits: Any) -> Any:
        # What reaches the head is one hidden state per sequence, whether in rows or one behind the other.
        last = logits.reshape(-1, logits.shape[-1]).float()
        if self.heard is not None and self._position in self.number:
            top = last.max(dim=-1)
            self.heard.tokens.append(top.indices.cpu())
            self.heard.logprobs.append((top.values - last.logsumexp(dim=-1)).cpu())
        token = self.tokens[min(self._position, len(self.tokens) - 1)]
        logits = logits.clone()
        logits[..., token] = (logits.amax(dim=-1) + _LEAD).to(logits.dtype)
        return logits
