"""What is minimised: dense depth and pointing on the image tokens, and the words of the answer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from depthlm_ros.evaluation.metrics import within_delta1
from depthlm_ros.training.augment import Batch, Limits
from depthlm_ros.training.config import StageConfig
from depthlm_ros.training.model import answer_logits
from depthlm_ros.training.questions import Questions
from depthlm_ros.training.tokenizer import IMAGE_PAD, prompt_text

_PARTS = 4
"""Patches per image token; each gets its own depth in the dense loss."""


class DepthHeads(nn.Module):
    """Linear readouts of the image tokens, used in training only; the checkpoint does not hold them.

    Args:
        width: Channels of an image token.
        bins: Log-depth bins.
        limits: Depths that the bins span.
    """

    def __init__(self, width: int, bins: int, limits: Limits) -> None:
        super().__init__()
        self.bins = bins
        self.low = math.log(limits.nearest)
        self.high = math.log(limits.farthest)
        self.dense = nn.Linear(width, _PARTS * bins)
        self.pointed = nn.Linear(width, bins)
        self.pointing = nn.Linear(width, 1)

    def soft_bins(self, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Lower bin and the share of the next one, so that the expectation over both is the log depth."""
        place = (depth.clamp_min(1e-3).log() - self.low) / (self.high - self.low) * (self.bins - 1)
        place = place.nan_to_num(0.0, posinf=0.0).clamp(0.0, self.bins - 1 - 1e-4)
        lower = place.floor()
        return lower.long(), place - lower

    def cross_entropy(self, logits: Tensor, depth: Tensor) -> Tensor:
        """Cross-entropy per element: logits (..., bins) against metres (...)."""
        lower, share = self.soft_bins(depth)
        log_p = torch.log_softmax(logits, dim=-1)
        at_lower = log_p.gather(-1, lower[..., None])[..., 0]
        at_upper = log_p.gather(-1, lower[..., None] + 1)[..., 0]
        return -(1.0 - share) * at_lower - share * at_upper

    def metres(self, logits: Tensor) -> Tensor:
        """The median of the predicted distribution in metres: logits (..., bins) to (...).

        Each bin's probability lies evenly over its width.
        """
        shares = torch.softmax(logits.float(), dim=-1)
        cumulative = shares.cumsum(-1)
        place = (cumulative < 0.5).sum(-1, keepdim=True).clamp_max(self.bins - 1)
        at, share = cumulative.gather(-1, place), shares.gather(-1, place)
        within = (0.5 - (at - share)) / share.clamp_min(1e-9) - 0.5
        where = (place + within)[..., 0].clamp(0.0, self.bins - 1)
        return torch.exp(self.low + where / (self.bins - 1) * (self.high - self.low))


def cell_depths(depth: Tensor, patch_px: int) -> Tensor:
    """Median depth of each patch, grouped by the image token it belongs to.

    Args:
        depth: Shape (B, H, W).
        patch_px: Side of a patch.

    Returns:
        Shape (B, image tokens, 4).
    """
    batch, height, width = depth.shape
    side = 2 * patch_px
    grid = depth.reshape(batch, height // side, 2, patch_px, width // side, 2, patch_px)
    cells = grid.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, -1, _PARTS, patch_px * patch_px)
    return cells.median(dim=-1).values


def pointed_tokens(batch: Batch, patch_px: int) -> Tensor:
    """Index of the image token under each asked pixel, shape (B,)."""
    side = 2 * patch_px
    cell = batch.pixel // side
    return cell[:, 1] * (batch.views.shape[2] // side) + cell[:, 0]


def vision_loss(
    heads: DepthHeads, tokens: Tensor, batch: Batch, limits: Limits, patch_px: int, stage: StageConfig
) -> tuple[Tensor, dict[str, float]]:
    """The losses of stage 1.

    Args:
        heads: The readouts.
        tokens: Image tokens, shape (B, image tokens, channels).
        batch: Their views.
        limits: Cells outside are left out.
        patch_px: Side of a patch.
        stage: The weights.

    Returns:
        The weighted sum and its parts.
    """
    cells = cell_depths(batch.depth, patch_px)
    known = (cells >= limits.nearest) & (cells <= limits.farthest)
    logits = heads.dense(tokens).unflatten(-1, (_PARTS, heads.bins))
    dense = heads.cross_entropy(logits, cells)[known].mean()
    where = pointed_tokens(batch, patch_px)
    pointing = functional.cross_entropy(heads.pointing(tokens)[..., 0], where)
    at_pointed = heads.pointed(tokens[torch.arange(len(where)), where])
    pointed = heads.cross_entropy(at_pointed, batch.target).mean()
    total = stage.dense_weight * dense + stage.pointing_weight * pointing + stage.pointed_weight * pointed
    with torch.no_grad():
        hit = within_delta1(batch.target.numpy(), heads.metres(at_pointed).numpy()).mean()
    return total, {
        "dense": float(dense.detach()),
        "pointing": float(pointing.detach()),
        "pointed": float(pointed.detach()),
        "pointed_delta1": float(hit),
    }


def answer_loss(
    model: Any, tokenizer: Any, tokens: Tensor, asked: Questions, patch_px: int
) -> tuple[Tensor, dict[str, float]]:
    """Supervised fine-tuning: cross-entropy of the answers' tokens and their end of turn, nothing else.

    Args:
        model: The whole model.
        tokenizer: Its tokenizer.
        tokens: Image tokens, shape (B * images, tokens per image, channels).
        asked: The questions and answers.
        patch_px: Side of a patch.

    Returns:
        The loss, summed per answer, and, as a part, the loss per token.
    """
    count, images, height, width, _ = asked.views.shape
    grid = (height // (2 * patch_px), width // (2 * patch_px))
    pads = IMAGE_PAD * (grid[0] * grid[1])
    prompts = [prompt_text(question, images).replace(IMAGE_PAD, pads) for question in asked.questions]
    texts = [p + a + tokenizer.eos_token for p, a in zip(prompts, asked.answers, strict=True)]
    ids = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")["input_ids"]
    starts = torch.tensor([len(row) for row in tokenizer(prompts)["input_ids"]])
    first = int(starts.min()) - 1
    mask = answer_mask(ids, starts, tokenizer.pad_token_id)[:, first + 1 :]
    logits = answer_logits(model, tokens.reshape(count, -1, tokens.shape[-1]), ids, grid, first)[:, :-1]
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), ids[:, first + 1 :].flatten(), reduction="none"
    )
    total = (losses * mask.flatten()).sum()
    return total / count, {"text": float(total.detach() / mask.sum())}


def answer_mask(ids: Tensor, starts: Tensor, pad: int) -> Tensor:
    """Which tokens are learnt: the answer after the prompt with its end of turn, no padding.

    Args:
        ids: Token ids, padded on the right, shape (B, T).
        starts: Tokens before each answer, shape (B,).
        pad: The padding token.

    Returns:
        Booleans of shape (B, T).
    """
    place = torch.arange(ids.shape[1])
    return (ids != pad) & (place >= starts[:, None])


def as_plain(parts: dict[str, Any]) -> dict[str, float]:
    """Round the parts of a loss for the log."""
    return {name: round(float(value), 5) for name, value in parts.items()}
