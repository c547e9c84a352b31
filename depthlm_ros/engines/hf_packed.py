"""Many continuations of one head, decoded as one sequence.

The continuations stand one behind the other, each token with the position that it has in its own prompt, and a mask
lets it see the head, the tokens of its own continuation before it, and nothing else. The head's keys and values are
repeated for no prompt, and continuations of different lengths need no padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from depthlm_ros.engines.hf_decoding import GreedyDecoding

if TYPE_CHECKING:
    import torch

    from depthlm_ros.engines.hf_heads import Head

PACKED_TOKENS = 1024
"""Tokens behind the head that are run at once: what they attend to in vain grows with the square."""


def packs(prompts: Sequence[list[int]]) -> Iterator[list[int]]:
    """Split prompts with one head into runs of at most :data:`PACKED_TOKENS` behind it, or of one prompt.

    Args:
        prompts: Their token ids.

    Yields:
        Indices of prompts.
    """
    common = len(commonprefix(list(prompts)))
    pack: list[int] = []
    tokens = 0
    for row, ids in enumerate(prompts):
        length = max(1, len(ids) - common)
        if pack and tokens + length > PACKED_TOKENS:
            yield pack
            pack, tokens = [], 0
        pack.append(row)
        tokens += length
    if pack:
        yield pack


def decode_packed(model: Any, head: Head, prompts: Sequence[list[int]], watch: GreedyDecoding) -> None:
    """Decode prompts greedily from their common head until ``watch`` says that all are done.

    Args:
        model: The model; its attention takes a mask of four dimensions.
        head: What all the prompts begin with.
        prompts: Their token ids, each longer than the head.
        watch: Sees each step's logits and tokens, as ``generate`` would show them.
    """
    import torch

    device, begin = model.device, len(head.ids)
    tails = [ids[begin:] for ids in prompts]
    lengths = torch.tensor([len(tail) for tail in tails], device=device)
    rows = torch.arange(len(tails), device=device)
    sequence = _Sequence(model, head)
    ids = torch.tensor([token for tail in tails for token in tail], device=device)
    within = torch.cat([torch.arange(len(tail), device=device) for tail in tails])
    logits = sequence.extend(ids, rows.repeat_interleave(lengths), begin + within, keep=lengths.cumsum(0) - 1)
    at = begin + lengths
    while True:
        logits = logits.float()
        chosen = logits.argmax(dim=-1)
        watch.record(chosen[:, None], logits)
        if bool(watch.done(chosen[:, None], None).all()):
            return
        logits = sequence.extend(chosen, rows, at, keep=rows)
        at = at + 1


class _Sequence:
    """The sequence of all continuations, as it grows behind the head."""

    def __init__(self, model: Any, head: Head) -> None:
        import torch
        from transformers import DynamicCache

        self._model, self._shift = model, head.shift
        self._begin = len(head.ids)
        self._cache = DynamicCache()
        for index, (keys, values) in enumerate(head.layers):
            self._cache.update(keys[:, :, : self._begin], values[:, :, : self._begin], index)
        self._owners = torch.empty(0, dtype=torch.int64, device=model.device)
        self._indices = torch.empty(0, dtype=torch.int64, device=model.device)

    def extend(
        self, ids: torch.Tensor, owners: torch.Tensor, indices: torch.Tensor, *, keep: torch.Tensor
    ) -> torch.Tensor:
        """Run more tokens.

        Args:
            ids: Token ids, (n,), int64.
            owners: The prompt to which each belongs, (n,).
            indices: Where in its prompt each stands, (n,).
            keep: The tokens whose logits are wanted, as indices into ``ids``, (k,).

        Returns:
            Logits, (k, vocabulary).
        """
        import torch

        self._owners = torch.cat([self._owners, owners])
        self._indices = torch.cat([self._indices, indices])
        own = (owners[:, None] == self._owners) & (indices[:, None] >= self._indices)
        sees = torch.cat([own.new_ones((len(ids), self._begin)), own], dim=1)
        dtype = self._model.dtype
        mask = torch.zeros(sees.shape, dtype=dtype, device=ids.device)
        mask.masked_fill_(~sees, torch.finfo(dtype).min)
        result = self._model(
            input_ids=ids[None],
            position_ids=(indices + self._shift)[None],
            attention_mask=mask[None, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: torch.Tensor = result.logits[0]
        return logits
