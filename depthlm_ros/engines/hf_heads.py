"""What prompts of a frame begin with, prefilled once: system message, image, and the start of the question."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from depthlm_ros.engines.hf_images import FRAMES_KEPT
from depthlm_ros.engines.hf_processor import AssembledEncoder, Encoded, Encoder

if TYPE_CHECKING:
    import torch

MASKED_ATTENTION = ("sdpa", "eager")
"""Attention implementations that take any mask; the flash kernels take none."""


@dataclass(frozen=True, eq=False)
class Head:
    """The start of prompts, images included, as the model has read it.

    Attributes:
        ids: Its token ids.
        images: Its prepared images; kept, so that their identity stays unique as long as this lives.
        layers: For each layer of the language model keys and values, each (1, heads, at least len(ids), size).
        shift: What is added to a text token's index to give its position: behind an image, multi-axis rotary
            positions (Qwen) run slower than indices do.
    """

    ids: list[int]
    images: tuple[Any, ...]
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    shift: int


def heads_for(model: Any, encoder: Encoder) -> Heads | None:
    """The heads of a model's frames; None where its prompts cannot go on from a common head in one sequence.

    That takes an encoder that tells images apart, attention that takes any mask, and layers that all see everything.
    """
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    full = kinds == {"full_attention"} and (
        getattr(text, "sliding_window", None) is None or not getattr(text, "use_sliding_window", True)
    )
    masked = getattr(text, "_attn_implementation", None) in MASKED_ATTENTION
    return Heads(model, encoder) if isinstance(encoder, AssembledEncoder) and masked and full else None


class Heads:
    """The heads of the newest frames.

    A head is never written to: those who continue from it put what they add into a cache of their own.

    Args:
        model: The model; see :func:`heads_for`.
        encoder: Its encoder.
    """

    def __init__(self, model: Any, encoder: AssembledEncoder) -> None:
        self._model, self._encoder = model, encoder
        self._kept: list[Head] = []

    def key(self, prompt: Encoded) -> Hashable:
        """Equal for prompts that share a head: the same images, and the same tokens up to the last of them."""
        end = self._encoder.image_end(prompt.ids)
        return (*(id(image) for image in prompt.images), *prompt.ids[:end])

    def head_of(self, prompts: Sequence[Encoded]) -> Head:
        """The head of prompts with one key: what all begin with, or as much of it as was prefilled before."""
        end = self._encoder.image_end(prompts[0].ids)
        images = prompts[0].images
        # At least one token must be left, whose logits say the first one of the answer.
        common = list(commonprefix([prompt.ids[:-1] for prompt in prompts]))
        for head in self._kept:
            same = len(head.images) == len(images) and all(
                a is b for a, b in zip(head.images, images, strict=True)
            )
            if same:
                length = len(commonprefix([head.ids, common]))
                if length >= end:
                    return Head(head.ids[:length], images, head.layers, head.shift)
        head = self._prefill(Encoded(common, images))
        self._kept = [head, *self._kept[: FRAMES_KEPT - 1]]
        return head

    def _prefill(self, start: Encoded) -> Head:
        from transformers import DynamicCache

        inputs = self._encoder.batch([start])
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        cache = DynamicCache()
        self._model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        deltas = getattr(self._model.model, "rope_deltas", None)
        return Head(
            list(start.ids),
            start.images,
            tuple((layer.keys, layer.values) for layer in cache.layers),
            0 if deltas is None else int(deltas),
        )
