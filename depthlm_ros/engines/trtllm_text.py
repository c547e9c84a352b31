"""From the token ids that TensorRT-LLM streams to an answer: text, log-probabilities, and where it stops.

Stop strings are looked for here, in the text. TensorRT-LLM looks for the token ids that a stop string has on its own
(``SamplingParams._setup``), which are others once the tokenizer joins it to the text before.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from depthlm_ros.engines.base import Answer, Finish, Token
from depthlm_ros.engines.hf_decoding import CONTEXT_TOKENS, TextStream


class StreamedAnswer:
    """Collects one answer from ever longer lists of token ids.

    Args:
        tokenizer: The checkpoint's tokenizer.
        context: The last ids of the prompt.
        ends: Ids that end an answer and are no part of it.
        stop: Strings that end an answer; the token that completes one is kept whole.
    """

    def __init__(
        self, tokenizer: Any, context: Sequence[int], *, ends: Collection[int], stop: Sequence[str]
    ) -> None:
        self._stream = TextStream(tokenizer, context[-CONTEXT_TOKENS:])
        self._ends, self._stop = frozenset(ends), tuple(text for text in stop if text)
        self._reach = max((len(text) for text in self._stop), default=1) - 1
        self._seen = 0
        self._text = ""
        self._tokens: list[Token] = []
        self.stopped = False

    def take(self, token_ids: Sequence[int], logprobs: Sequence[Any] | None) -> bool:
        """Take all tokens that there are so far.

        Args:
            token_ids: Ids of the decoded tokens, those of earlier calls included.
            logprobs: For each a {token id: object with ``logprob``} or a plain number, as the release gives them;
                None or too few where there are none.

        Returns:
            Whether the answer has ended: nothing after that is taken.

        Raises:
            ValueError: A log-probability is NaN or above 0: the model's logits are broken.
        """
        for place in range(self._seen, len(token_ids)):
            if self.stopped:
                break
            self._add(token_ids[place], _logprob(logprobs, place, token_ids[place]))
        self._seen = len(token_ids)
        return self.stopped

    def _add(self, token: int, logprob: float) -> None:
        if token in self._ends:
            self.stopped = True
            return
        piece = self._stream.add(token)
        tail = self._text[max(0, len(self._text) - self._reach) :] + piece
        self._text += piece
        self._tokens.append(Token(piece, logprob))
        self.stopped = any(text in tail for text in self._stop)

    def answer(self, finish: Finish) -> Answer:
        """The answer so far, ended for this reason unless it had ended by itself before."""
        rest = "" if self.stopped else self._stream.flush()
        tokens = self._tokens
        if rest and tokens:
            tokens = [*tokens[:-1], Token(tokens[-1].text + rest, tokens[-1].logprob)]
        return Answer(
            "".join(token.text for token in tokens), tuple(tokens), Finish.STOP if self.stopped else finish
        )


def _logprob(logprobs: Sequence[Any] | None, place: int, token: int) -> float:
    if logprobs is None or place >= len(logprobs):
        return math.nan
    entry = logprobs[place]
    if isinstance(entry, dict):
        if token not in entry:
            return math.nan
        entry = entry[token]
    value = float(getattr(entry, "logprob", entry))
    if math.isnan(value) or value > 1e-3:
        raise ValueError(
            f"expected a log-probability of 0 or less, got {value}; use another dtype or checkpoint"
        )
    return min(value, 0.0)
