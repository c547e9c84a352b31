"""GRPO's reward: minus the error in metres (L1, as in the paper's comparison of SFT and GRPO)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from depthlm_ros.answers import parse_answer
from depthlm_ros.engines.base import Answer, Finish
from depthlm_ros.profile import CheckpointProfile


class DepthReward:
    """Scores answers; given to TRL as a reward function.

    An answer without a usable number counts as an error of ``penalty_m``, and no error counts more than that: else
    a model that is far off would gain by saying nothing. The paper does not say what it did with such answers; the
    penalty is ours. Answers are read by the parser that reads them in use.

    Args:
        profile: How answers are read.
        penalty_m: See above, in metres.
        ends: Ids of tokens that end an answer; one that ends otherwise was cut.
    """

    __name__ = "negative_l1_m"

    def __init__(self, profile: CheckpointProfile, penalty_m: float, ends: frozenset[int]) -> None:
        self._profile, self._penalty_m, self._ends = profile, penalty_m, ends

    def score(self, text: str, complete: bool, metres: float) -> float:
        """The reward of one answer.

        Args:
            text: What was decoded after the prefix.
            complete: Whether it ended by itself; a number at the end of a cut text does not count.
            metres: The truth.

        Returns:
            From ``-penalty_m`` to 0, in metres.
        """
        ends = [text.find(stop) + len(stop) for stop in self._profile.stop if stop in text]
        if self._profile.prompt_prefix and ends:
            text, complete = text[: min(ends)], True
        finish = Finish.STOP if complete else Finish.LENGTH
        answered = parse_answer(Answer(text, finish=finish), self._profile).metres
        error = abs(answered - metres) if math.isfinite(answered) else math.inf
        return -min(error, self._penalty_m)

    def __call__(
        self,
        *,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        metres: Sequence[float],
        **_: Any,
    ) -> list[float]:
        """The rewards of a batch, in TRL's form.

        Args:
            completions: Each a conversation of one message of the assistant.
            completion_ids: The tokens of each.
            metres: The truth of each.
        """
        return [
            self.score(completion[0]["content"], bool(ids) and ids[-1] in self._ends, truth)
            for completion, ids, truth in zip(completions, completion_ids, metres, strict=True)
        ]
