"""Training sequences: exactly the engine's prompt, then the rest of the answer, with the loss on the answer alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.hf_processor import AssembledEncoder, Encoded
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.training.finetune.views import TrainingSample

IGNORED = -100
"""The label of what is not learnt, as everywhere in Hugging Face."""


@dataclass(frozen=True, eq=False)
class AnswerSequence:
    """One training sequence.

    Attributes:
        encoded: Prompt and answer as the encoder batches them.
        learnt: How many ids at the end are the answer: prefix, number, rest and end of turn.
    """

    encoded: Encoded
    learnt: int


class AnswerTokens:
    """Turns samples into sequences.

    Args:
        encoder: The engine's encoder of the checkpoint, so that training and inference see the same ids and pixels.
        profile: The answer's words.

    Raises:
        EngineError: The encoder is none that training can use.
    """

    def __init__(self, encoder: Any, profile: CheckpointProfile) -> None:
        if not isinstance(encoder, AssembledEncoder):
            raise EngineError(
                "training supports Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Pixtral and Mistral 3 checkpoints; this is "
                "another architecture"
            )
        self.encoder = encoder
        self._profile, self._tokenizer = profile, encoder.tokenizer

    def encode(self, sample: TrainingSample) -> AnswerSequence:
        """Prompt with prefix, as the engine feeds it, and the rest of the answer as the model is to go on.

        The prefix counts as answer: a model that was never taught it must learn it too.
        """
        given = self.encoder.encode(sample.prompt)
        bare = self.encoder.encode(replace(sample.prompt, prefix=""))
        if given.ids[: len(bare.ids)] != bare.ids:
            raise ValueError(
                f"the prompt prefix {sample.prompt.prefix!r} changes the tokens before it; end the chat template's "
                "assistant turn with a line break, or choose another prefix"
            )
        answer = self._profile.answer.format(depth=sample.metres)
        rest = self._tokenizer(answer[len(sample.prompt.prefix) :], add_special_tokens=False)["input_ids"]
        ids = [*given.ids, *rest, self._tokenizer.eos_token_id]
        return AnswerSequence(Encoded(ids, given.images), len(ids) - len(bare.ids))

    def collate(self, sequences: Sequence[AnswerSequence]) -> dict[str, Tensor]:
        """The model's inputs, padded on the left, and ``labels``: the answer's ids, :data:`IGNORED` elsewhere."""
        inputs = self.encoder.batch([sequence.encoded for sequence in sequences])
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        for row, sequence in enumerate(sequences):
            labels[row, -sequence.learnt :] = inputs["input_ids"][row, -sequence.learnt :]
        return inputs | {"labels": labels}


def answer_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of the answers, summed over their tokens.

    Args:
        model: The model, possibly wrapped for several devices.
        batch: From :meth:`AnswerTokens.collate`, on the model's device.

    Returns:
        The sum, a scalar.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"]
    # Answers are at the right end: only there are the logits of a whole vocabulary needed.
    first = int((labels != IGNORED).any(dim=0).int().argmax())
    kept = labels.shape[1] - first
    logits = model(**inputs, logits_to_keep=kept + 1, use_cache=False).logits
    targets = labels[:, -kept:]
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
