"""Attention of a vision tower over many windows and images at once.

A tower lays the patches of all images of a batch one behind the other; each attends within its window or its image.
With ``sdpa``, transformers calls the kernel once for every window (Qwen2.5-VL: thousands of times a layer for a batch
of large images), or once with a mask over all pairs of patches of the whole batch (Pixtral: with 32 images, 32 times
the work). To flash kernels it hands over where the segments end. Here ``sdpa`` serves that interface, called once for
each length of segment.
"""

from __future__ import annotations

import inspect
from collections.abc import MutableMapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ATTENTION = "depthlm_flash_segments"
"""The name under which transformers knows this attention; it hands segments over to names that hold "flash"."""


def attend_in_segments(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Let each patch attend to the patches of its own segment.

    Args:
        module: Unused.
        query: (1, heads, patches, size).
        key: Like ``query``.
        value: Like ``query``.
        attention_mask: None: the segments say it all.
        cu_seq_lens_q: Where the segments begin, and the end of the last, (segments + 1,), integers.
        scaling: Factor of the scores; None is 1 / sqrt(size).
        dropout: Share of the scores that are dropped; 0 outside of training.

    Returns:
        (1, patches, heads, size), and None for the weights.
    """
    import torch

    assert attention_mask is None
    out = torch.empty_like(query)
    heads, size = query.shape[1], query.shape[3]
    for length, patches in _by_length(cu_seq_lens_q):
        q, k, v = (
            tensor[0, :, patches].reshape(heads, -1, length, size).transpose(0, 1)
            for tensor in (query, key, value)
        )
        result = torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        out[0, :, patches] = result.transpose(0, 1).flatten(1, 2)
    return out.transpose(1, 2).contiguous(), None


def _by_length(bounds: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """Each length of segment with the patches of all segments that have it, on the device of the bounds.

    A tower hands the same tensor to all of its layers. Reading it waits for a GPU, so that is done once and kept as
    long as the tensor lives.
    """
    import torch

    found = _kept().get(bounds)
    if found is None:
        on_host = torch.tensor(bounds.tolist())
        starts, lengths = on_host[:-1], on_host.diff()
        found = [
            (length, (starts[lengths == length, None] + torch.arange(length)).flatten().to(bounds.device))
            for length in sorted({*lengths.tolist()} - {0})
        ]
        _kept()[bounds] = found
    return found


@cache
def _kept() -> MutableMapping[torch.Tensor, list[tuple[int, torch.Tensor]]]:
    from torch.utils.weak import WeakTensorKeyDictionary

    return WeakTensorKeyDictionary()


def attend_by_segments(model: Any) -> bool:
    """Have a model's vision tower attend as :func:`attend_in_segments` does, if it can.

    Args:
        model: A model that runs with ``sdpa``; its language model is left as it is.

    Returns:
        Whether it does now: the installed transformers must hand segments over to this kind of tower.
    """
    from transformers import AttentionInterface

    inner = model.model
    tower = getattr(inner, "visual", None) or getattr(inner, "vision_tower", None)
    if tower is None or getattr(tower.config, "_attn_implementation", None) != "sdpa":
        return False
    try:
        source = inspect.getsource(inspect.getmodule(type(tower)))  # type: ignore[arg-type]
    except (OSError, TypeError):  # installed without sources
        return False
    if "cu_seq_lens_q" not in source or "is_flash_attention_requested" not in source:
        return False
    AttentionInterface.register(ATTENTION, attend_in_segments)
    for module in tower.modules():
        if getattr(module, "config", None) is not None:
            module.config._attn_implementation = ATTENTION
    return True
