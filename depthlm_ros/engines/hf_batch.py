"""One batch of prompts: prepared by the host, then decoded by the model, in the way that shares the most exactly."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from depthlm_ros.engines.base import Answer, Finish, Prompt
from depthlm_ros.engines.hf_decoding import CONTEXT_TOKENS, GreedyDecoding
from depthlm_ros.engines.hf_packed import decode_packed, packs
from depthlm_ros.engines.hf_processor import Encoded, Encoder

if TYPE_CHECKING:
    import torch

    from depthlm_ros.engines.hf_heads import Heads
    from depthlm_ros.engines.hf_reuse import MarkerReuse


def failed(error: Exception) -> Answer:
    """The answer to a prompt on which the engine failed."""
    return Answer("", finish=Finish.ERROR, error=f"{type(error).__name__}: {error}")


@dataclass(frozen=True, eq=False)
class PreparedBatch:
    """A batch whose host work is done.

    Attributes:
        answers: For each prompt None, or why it cannot be asked.
        encoded: The prompts that can be asked.
        whole: Which of these the model is to take from their first token.
        inputs: The model's inputs for those; empty if there are none.
        shared: Groups of the others that begin alike, image included.
        reused: Groups of those that differ in nothing but a marker in a frame, for :class:`MarkerReuse`.
    """

    answers: list[Answer | None]
    encoded: list[Encoded]
    whole: list[int]
    inputs: dict[str, torch.Tensor]
    shared: list[list[int]]
    reused: list[list[int]]


class BatchCall:
    """One call of ``generate``: what is common to its batches.

    Args:
        model: The model.
        encoder: Its encoder.
        max_new_tokens: The most tokens to decode per prompt.
        stop: Strings that end decoding.
        late: Says whether decoding is to end now.
        heads: Reads what prompts with untouched images have in common once; None takes every prompt whole.
        reuse: Answers marked images from their frame, approximately; None takes them whole.
        in_training: Whether the model is trained on afterwards. PyTorch's inference mode, quicker by a little, would
            leave a model that is sharded over processes with weights that take no gradient.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        max_new_tokens: int,
        stop: tuple[str, ...],
        late: Callable[[], bool],
        *,
        heads: Heads | None = None,
        reuse: MarkerReuse | None = None,
        in_training: bool = False,
    ) -> None:
        self._model, self._encoder, self._heads, self._in_training = model, encoder, heads, in_training
        self._reuse = reuse
        self._max_new_tokens, self._stop, self.late = max_new_tokens, stop, late
        eos = model.generation_config.eos_token_id
        ends = [eos] if isinstance(eos, int) else (eos or [])
        self._eos = frozenset((*ends, encoder.tokenizer.eos_token_id)) - {None}

    def run(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Run one batch; prompts that cannot be encoded fail alone."""
        return self.decode(self.prepare(prompts))

    def prepare(self, prompts: Sequence[Prompt]) -> PreparedBatch:
        """Do a batch's host work, which needs nothing of the model: it may be busy with another batch meanwhile."""
        encoded: list[Encoded] = []
        answers: list[Answer | None] = []
        whole: list[int] = []
        groups: dict[Hashable, list[int]] = {}
        marked: dict[Hashable, list[int]] = {}
        for prompt in prompts:
            try:
                item = self._encoder.encode(prompt)
            except (ValueError, IndexError, TypeError) as error:
                answers.append(failed(error))
                continue
            answers.append(None)
            painted = any(image.paint is not None for image in prompt.images)
            share = self._heads is not None and bool(prompt.images) and not painted
            members = groups.setdefault(self._heads.key(item), []) if self._heads and share else whole
            if self._reuse is not None and (key := self._reuse.key(item)) is not None:
                members = marked.setdefault(key, [])
            members.append(len(encoded))
            encoded.append(item)
        inputs = self._encoder.batch([encoded[index] for index in whole]) if whole else {}
        return PreparedBatch(answers, encoded, whole, inputs, list(groups.values()), list(marked.values()))

    def decode(self, batch: PreparedBatch) -> list[Answer]:
        """Have the model answer a prepared batch.

        The deadline is looked at after each token, and before each part of the batch but the first.
        """
        import torch

        decoded: dict[int, Answer] = {}
        with torch.no_grad() if self._in_training else torch.inference_mode():
            if batch.whole:
                decoded |= self._decode_whole(batch)
            for group in batch.shared:
                for pack in packs([batch.encoded[index].ids for index in group]):
                    members = [group[row] for row in pack]
                    if decoded and self.late():
                        decoded |= dict.fromkeys(members, Answer("", finish=Finish.DEADLINE))
                    else:
                        decoded |= self._decode_shared(batch, group, members)
            for group in batch.reused:
                if decoded and self.late():
                    decoded |= dict.fromkeys(group, Answer("", finish=Finish.DEADLINE))
                elif self._reuse is not None:
                    watch = self._watch(batch, group)
                    self._reuse.decode([batch.encoded[index] for index in group], watch, self._max_new_tokens)
                    decoded |= dict(zip(group, watch.answers(), strict=True))
        rest = iter([decoded[index] for index in range(len(batch.encoded))])
        return [answer if answer is not None else next(rest) for answer in batch.answers]

    def _decode_whole(self, batch: PreparedBatch) -> dict[int, Answer]:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        watch = self._watch(batch, batch.whole)
        inputs = dict(batch.inputs)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        self._model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=self._max_new_tokens,
            logits_processor=LogitsProcessorList([watch.record]),
            stopping_criteria=StoppingCriteriaList([watch.done]),
        )
        return dict(zip(batch.whole, watch.answers(), strict=True))

    def _decode_shared(self, batch: PreparedBatch, group: list[int], members: list[int]) -> dict[int, Answer]:
        assert self._heads is not None
        head = self._heads.head_of([batch.encoded[index] for index in group])
        watch = self._watch(batch, members)
        decode_packed(self._model, head, [batch.encoded[index].ids for index in members], watch)
        return dict(zip(members, watch.answers(), strict=True))

    def _watch(self, batch: PreparedBatch, members: list[int]) -> GreedyDecoding:
        return GreedyDecoding(
            self._encoder.tokenizer,
            [batch.encoded[index].ids[-CONTEXT_TOKENS:] for index in members],
            eos=self._eos,
            stop=self._stop,
            max_new_tokens=self._max_new_tokens,
            late=self.late,
        )
