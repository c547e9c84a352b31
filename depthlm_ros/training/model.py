"""The network: a Qwen2.5-VL of about two million parameters, and a batched path through its own modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from depthlm_ros.training.config import ModelConfig
from depthlm_ros.training.patches import MERGE, TEMPORAL_PATCH, patch_vectors
from depthlm_ros.training.tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START

TowerBlock = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
_PATCH_NOISE = 0.02  # variance below which a direction is sensor noise rather than picture
_VISION_ROPE_THETA = 10000.0  # fixed in every engine that serves Qwen2.5-VL


def build_model(shape: ModelConfig, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    """Make the untrained model.

    Args:
        shape: Widths and depths.
        tokenizer: Gives the vocabulary size and the special tokens.
        seed: Seed of the weights.

    Returns:
        A ``Qwen2_5_VLForConditionalGeneration`` in float32.
    """
    torch.manual_seed(seed)
    token = tokenizer.convert_tokens_to_ids
    half_head = shape.text_width // shape.text_heads // 2
    text = half_head // 4
    rows = (half_head - text) // 2
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.text_width,
            "intermediate_size": shape.text_mlp,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.text_heads,
            "num_key_value_heads": shape.text_heads,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [text, rows, half_head - text - rows],
                "rope_theta": shape.rope_theta,
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_width,
            "intermediate_size": shape.vision_mlp,
            "num_heads": shape.vision_heads,
            "out_hidden_size": shape.text_width,
            "patch_size": shape.patch_px,
            "spatial_patch_size": shape.patch_px,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL_PATCH,
            "window_size": 8 * shape.patch_px * MERGE,
            "fullatt_block_indexes": list(range(shape.vision_layers)),
            "rope_parameters": {"rope_type": "axial", "rope_theta": _VISION_ROPE_THETA},
        },
        image_token_id=token(IMAGE_PAD),
        video_token_id=token(VIDEO_PAD),
        vision_start_token_id=token(VISION_START),
        vision_end_token_id=token(VISION_END),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    config._attn_implementation = "eager"  # faster than SDPA in a CPU's backward pass at this size
    model = Qwen2_5_VLForConditionalGeneration(config)
    _initialise(model)
    return model


def _initialise(model: Any) -> None:
    # Unit-variance forward passes instead of the 0.02 that suits widths of thousands.
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv3d):
            # The two halves along time see the same patch, so their sum is what has unit variance.
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=fan_in**-0.5)
    for block in [*model.model.visual.blocks, *model.model.language_model.layers]:
        attention = getattr(block, "attn", None) or block.self_attn
        for end in (getattr(attention, "proj", None) or attention.o_proj, block.mlp.down_proj):
            nn.init.zeros_(end.weight)
    nn.init.normal_(model.model.language_model.embed_tokens.weight, std=0.05)
    model.tie_weights()


@torch.no_grad()
def whiten_patches(visual: Any, views: list[Tensor], seed: int) -> None:
    """Let the patch embedding start from the views' own statistics.

    Neighbouring pixels are so alike that nearly all variance of raw patches lies in a few directions, and training
    hardly sees the rest, where edges are. The rows become the main directions of ``views``, each scaled to unit
    variance, then turned at random.

    Args:
        visual: ``model.model.visual``.
        views: uint8, each of shape (1, H, W, 3), sides multiples of two patches.
        seed: Seed of the turn.
    """
    patches = torch.cat([patch_vectors(view, visual.patch_size)[0] for view in views]).double()
    values, directions = torch.linalg.eigh(torch.cov(patches.T))
    weight = visual.patch_embed.proj.weight
    rows = len(weight)
    scaled = (directions.flip(1)[:, :rows] / (values.flip(0)[:rows] + _PATCH_NOISE).sqrt()).T.float()
    turn = torch.linalg.qr(torch.randn(rows, rows, generator=torch.Generator().manual_seed(seed)))[0]
    side = visual.patch_size
    weight.copy_((turn @ scaled / TEMPORAL_PATCH).view(rows, 3, 1, side, side).expand_as(weight))


def parameter_count(model: Any) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def tower_block(block: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One block of the tower: hidden states of shape (B, patches, vision_width) in and out."""
    hidden = hidden + _tower_attention(block.attn, block.norm1(hidden), cos, sin)
    after: Tensor = hidden + block.mlp(block.norm2(hidden))
    return after


def tower_tokens(visual: Any, views: Tensor, run_block: TowerBlock = tower_block) -> Tensor:
    """Run the vision tower on a batch of views of one size.

    The same modules and the same result as the tower's own ``forward``, which runs its attention view by
    view; here one batched product serves all.

    Args:
        visual: ``model.model.visual``.
        views: uint8, shape (B, H, W, 3).
        run_block: :func:`tower_block`, or the same compiled.

    Returns:
        Image tokens in raster order, shape (B, H / 16 * W / 16, text_width) at 8 px patches.
    """
    batch, height, width, _ = views.shape
    patch_px = visual.patch_size
    weight = visual.patch_embed.proj.weight.sum(2).flatten(1)
    # float32 also under autocast: the sum that runs through all blocks keeps its digits.
    hidden = (patch_vectors(views, patch_px) @ weight.T).float()
    cos, sin = _tower_rotation(visual, height // patch_px, width // patch_px)
    for block in visual.blocks:
        hidden = run_block(block, hidden, cos, sin)
    merged: Tensor = visual.merger(hidden).float()
    return merged.reshape(batch, -1, merged.shape[-1])


def _tower_attention(attention: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    batch, count, width = hidden.shape
    qkv = attention.qkv(hidden).reshape(batch, count, 3, attention.num_heads, attention.head_dim)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    query = (query * cos + _rotate_half(query) * sin) * attention.scaling
    key = key * cos + _rotate_half(key) * sin
    weights = torch.softmax(query @ key.transpose(-1, -2), dim=-1)
    mixed = (weights @ value).transpose(1, 2).reshape(batch, count, width)
    result: Tensor = attention.proj(mixed)
    return result


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _tower_rotation(visual: Any, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1)
    blocks = grid.reshape(rows // MERGE, MERGE, columns // MERGE, MERGE, 2).transpose(1, 2).reshape(-1, 2)
    cos, sin = visual.rotary_pos_emb(blocks.float(), blocks)
    return cos, sin


def answer_logits(model: Any, image_tokens: Tensor, ids: Tensor, grid: tuple[int, int], first: int) -> Tensor:
    """Run the language model on prompts whose image tokens are given.

    Args:
        model: The whole model.
        image_tokens: From :func:`tower_tokens`, shape (B, image tokens of all images, text_width).
        ids: Token ids, shape (B, T); each row has its image placeholders in the same places.
        grid: Tokens of each image as (rows, columns).
        first: Position whose next-token logits come first.

    Returns:
        Logits of shape (B, T - first, vocabulary).
    """
    core = model.model
    where = (ids[0] == model.config.image_token_id).nonzero()[:, 0]
    embedded = core.language_model.embed_tokens(ids).index_copy(1, where, image_tokens)
    starts = where[:: grid[0] * grid[1]].tolist()
    positions = text_positions(starts, grid, ids.shape[1])[:, None].expand(3, len(ids), -1)
    hidden = core.language_model(inputs_embeds=embedded, position_ids=positions, use_cache=False)
    logits: Tensor = model.lm_head(hidden.last_hidden_state[:, first:])
    return logits


def text_positions(starts: Sequence[int], grid: tuple[int, int], length: int) -> Tensor:
    """Qwen2.5-VL's (time, row, column) positions of a prompt with images of one size, shape (3, length).

    Args:
        starts: Where each image's tokens begin.
        grid: Tokens of each image as (rows, columns).
        length: Tokens in all.
    """
    rows, columns = grid
    cells = torch.stack(
        (
            torch.zeros(rows * columns, dtype=torch.long),
            torch.arange(rows).repeat_interleave(columns),
            torch.arange(columns).repeat(rows),
        )
    )
    pieces, at, position = [], 0, 0
    for start in [*starts, length]:
        pieces.append(torch.arange(position, position + start - at).expand(3, -1))
        position += start - at
        if start < length:
            pieces.append(cells + position)
            position, at = position + max(rows, columns), start + rows * columns
    return torch.cat(pieces, dim=1)
