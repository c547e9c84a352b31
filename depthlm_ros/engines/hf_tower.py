"""A frame's way through the vision tower of Qwen2.5-VL, kept so that a few of its tokens can go through it again.

Importing this module imports torch and transformers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision


class FrameTower:
    """What the tower makes of a frame, with the keys and values of each block.

    A token here is what the language model sees as one: a square of ``spatial_merge_size`` by ``spatial_merge_size``
    patches. Patches are in the order of ``pixel_values``: token after token, in rows. The model's own forward sorts
    them by attention window; here masks do what that order does.

    Args:
        visual: The tower (``Qwen2_5_VisionTransformerPretrainedModel``).
        pixel_values: The frame's patches, (patches, values), in the tower's dtype.
        rows: Tokens from top to bottom.
        columns: Tokens from left to right.

    Attributes:
        features: What the language model gets for each token, (rows * columns, size).
    """

    def __init__(self, visual: Any, pixel_values: torch.Tensor, rows: int, columns: int) -> None:
        self._visual, self._merge = visual, int(visual.spatial_merge_size)
        self.rows, self.columns, self._unit = rows, columns, self._merge**2
        height, width = self._places(pixel_values.device)
        frequencies = visual.rotary_pos_emb.inv_freq.float()
        angles = torch.cat([height[:, None] * frequencies, width[:, None] * frequencies], dim=-1)
        self._cos, self._sin = (f(torch.cat([angles, angles], dim=-1)) for f in (torch.cos, torch.sin))
        side = visual.window_size // self._merge // visual.patch_size
        across = math.ceil(columns / side)
        self._window = (height // self._merge // side) * across + width // self._merge // side
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        hidden = visual.patch_embed(pixel_values)[None]
        for index, block in enumerate(visual.blocks):
            queries, keys, values = self._project(block, hidden, self._cos, self._sin)
            self._seen.append((keys, values))
            mask = None if index in visual.fullatt_block_indexes else self._window[:, None] == self._window
            hidden = self._finish(block, hidden, queries, keys, values, mask)
        self.features: torch.Tensor = visual.merger(hidden[0])

    def _places(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column of each patch."""
        within = torch.arange(self._merge, device=device)
        down = torch.arange(self.rows, device=device)[:, None, None, None] * self._merge + within[:, None]
        across = torch.arange(self.columns, device=device)[:, None, None] * self._merge + within
        shape = (self.rows, self.columns, self._merge, self._merge)
        return down.expand(shape).reshape(-1), across.expand(shape).reshape(-1)

    def again(self, pixel_values: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Take some tokens of altered copies of the frame through the tower.

        In each block they attend to each other and to the frame's keys and values, which are not what the altered
        copy's would be from the second block on: an approximation, unless the tokens are all that there are.

        Args:
            pixel_values: Their patches, copy after copy, (copies * tokens * patches of a token, values).
            tokens: Which tokens, (copies, tokens), int64.

        Returns:
            Their features, (copies, tokens, size).
        """
        copies, count = tokens.shape
        at = tokens[:, :, None] * self._unit + torch.arange(self._unit, device=tokens.device)
        at = at.reshape(copies, count * self._unit)
        cos, sin = self._cos[at], self._sin[at]
        hidden = self._visual.patch_embed(pixel_values).reshape(copies, count * self._unit, -1)
        for index, block in enumerate(self._visual.blocks):
            queries, *own = self._project(block, hidden, cos, sin)
            keys, values = (
                seen.repeat(copies, 1, 1, 1).scatter_(2, at[:, None, :, None].expand_as(new), new)
                for seen, new in zip(self._seen[index], own, strict=True)
            )
            mask = None
            if index not in self._visual.fullatt_block_indexes:
                mask = (self._window[at][:, :, None] == self._window)[:, None]
            hidden = self._finish(block, hidden, queries, keys, values, mask)
        features: torch.Tensor = self._visual.merger(hidden).reshape(copies, count, -1)
        return features

    @staticmethod
    def _project(
        block: Any, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, each (copies, heads, patches, size)."""
        copies, count, _ = hidden.shape
        joint = block.attn.qkv(block.norm1(hidden)).reshape(copies, count, 3, block.attn.num_heads, -1)
        queries, keys, values = joint.unbind(2)
        queries, keys = apply_rotary_pos_emb_vision(queries, keys, cos, sin)
        return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)

    @staticmethod
    def _finish(
        block: Any,
        hidden: torch.Tensor,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """The rest of a block."""
        seen = scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        hidden = hidden + block.attn.proj(seen.transpose(1, 2).reshape(hidden.shape))
        result: torch.Tensor = hidden + block.mlp(block.norm2(hidden))
        return result
