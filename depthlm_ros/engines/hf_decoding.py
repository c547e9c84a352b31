"""Greedy decoding of a batch: text as it comes, log-probabilities, and when each sequence is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from depthlm_ros.engines.base import Answer, Finish, Token

if TYPE_CHECKING:
    import torch

CONTEXT_TOKENS = 6
"""Prompt tokens before which the first decoded token is turned into text, so that its space survives."""


class TextStream:
    """Turns token ids into text one by one, so that the pieces join to the text of all of them.

    A byte-level token may hold only part of a character: its piece is empty, and the token that completes
    the character has all of it.

    Args:
        tokenizer: The checkpoint's tokenizer.
        context: Ids that come before the first one. A tokenizer may drop the leading space of a text that it
            decodes on its own; it does not drop it in the middle of one.
    """

    def __init__(self, tokenizer: Any, context: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(context)
        self._shown = self._decode(self._ids)

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def add(self, token: int) -> str:
        """The text that one more token adds; special tokens add none."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith("\ufffd") or not text.startswith(self._shown):
            return ""  # an unfinished character
        piece = text[len(self._shown) :]
        # Only a short tail is decoded again, however long the answer gets.
        self._ids = self._ids[-CONTEXT_TOKENS:]
        self._shown = self._decode(self._ids)
        if self._shown.endswith("\ufffd") or not text.endswith(self._shown):
            self._ids, self._shown = [token], self._decode([token])
        return piece

    def flush(self) -> str:
        """What an unfinished character at the end of the text reads as (U+FFFD)."""
        text = self._decode(self._ids)
        return text[len(self._shown) :] if text.startswith(self._shown) else ""


class _Sequence:
    """One sequence of the batch."""

    def __init__(self, stream: TextStream) -> None:
        self.stream = stream
        self.text = ""
        self.tokens: list[Token] = []
        self.finish: Finish | None = None
        self.error = ""


class GreedyDecoding:
    """Watches ``generate`` decode a batch greedily; one object serves one batch.

    Its two methods are given to ``generate`` as a logits processor and a stopping criterion. Of each step's
    logits only one number per sequence is kept.

    Args:
        tokenizer: The checkpoint's tokenizer.
        contexts: For each sequence the last ids of its prompt.
        eos: Ids that end a sequence.
        stop: Strings that end a sequence once its decoded text contains one.
        max_new_tokens: The most tokens to decode per sequence.
        late: Says, after each token, whether decoding is to end now.
    """

    def __init__(
        self,
        tokenizer: Any,
        contexts: Sequence[Sequence[int]],
        *,
        eos: frozenset[int],
        stop: Sequence[str],
        max_new_tokens: int,
        late: Callable[[], bool],
    ) -> None:
        self._sequences = [_Sequence(TextStream(tokenizer, ids[-CONTEXT_TOKENS:])) for ids in contexts]
        self._eos, self._stop = eos, tuple(s for s in stop if s)
        self._max_new_tokens, self._late = max_new_tokens, late
        self._logprobs: torch.Tensor | None = None

    def record(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Note the log-probability of the likeliest token, which greedy decoding is about to choose.

        Args:
            input_ids: Unused; (batch, length), int64.
            logits: The model's raw logits as float32, (batch, vocabulary).

        Returns:
            The logits, unchanged.
        """
        self._logprobs = logits.amax(dim=-1) - logits.logsumexp(dim=-1)
        return logits

    def done(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Take the step's tokens and say which sequences are done.

        Args:
            input_ids: (batch, length), int64; the last column is new.
            scores: Unused.

        Returns:
            Booleans of shape (batch,).
        """
        import torch

        assert self._logprobs is not None
        # One copy from the device a step, for the ids and the log-probabilities together.
        step = torch.stack((input_ids[:, -1].double(), self._logprobs.double())).tolist()
        for sequence, token, logprob in zip(self._sequences, *step, strict=True):
            if sequence.finish is None:
                self._take(sequence, int(token), logprob)
        if self._late():
            for sequence in self._sequences:
                sequence.finish = sequence.finish or Finish.DEADLINE
        over = [sequence.finish is not None for sequence in self._sequences]
        return torch.tensor(over, dtype=torch.bool, device=input_ids.device)

    def _take(self, sequence: _Sequence, token: int, logprob: float) -> None:
        if math.isnan(logprob):
            sequence.finish = Finish.ERROR
            sequence.error = "the model's logits are not finite; use dtype bfloat16 or float32"
            return
        if token in self._eos:
            sequence.finish = Finish.STOP
            return
        piece = sequence.stream.add(token)
        # A stop string ends in the new piece, so nothing further back needs to be searched again.
        seen = max((len(s) for s in self._stop), default=1) - 1
        tail = sequence.text[max(0, len(sequence.text) - seen) :] + piece
        sequence.text += piece
        sequence.tokens.append(Token(piece, logprob))
        if any(s in tail for s in self._stop):
            sequence.finish = Finish.STOP
        elif len(sequence.tokens) >= self._max_new_tokens:
            sequence.finish = Finish.LENGTH

    def answers(self) -> list[Answer]:
        """The answers of the batch, once ``generate`` has returned."""
        return [self._answer(sequence) for sequence in self._sequences]

    @staticmethod
    def _answer(sequence: _Sequence) -> Answer:
        finish = sequence.finish or Finish.LENGTH
        if finish in (Finish.DEADLINE, Finish.ERROR):
            return Answer("", (), finish, sequence.error)
        tokens, rest = sequence.tokens, sequence.stream.flush()
        if rest and tokens:
            tokens[-1] = Token(tokens[-1].text + rest, tokens[-1].logprob)
        return Answer(sequence.text + rest, tuple(tokens), finish)
