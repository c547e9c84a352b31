"""From uint8 views to the patch vectors that the Hugging Face image processor of Qwen2-VL makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
TEMPORAL_PATCH = 2
MERGE = 2


def image_processor_config(patch_px: int) -> dict[str, Any]:
    """``preprocessor_config.json``: views whose sides are multiples of two patches pass unresized.

    The limits admit views from 32x32 to about 640x480 canonical pixels.
    """
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
        "patch_size": patch_px,
        "temporal_patch_size": TEMPORAL_PATCH,
        "merge_size": MERGE,
        "min_pixels": 32 * 32,
        "max_pixels": 640 * 480,
        "size": {"shortest_edge": 32 * 32, "longest_edge": 640 * 480},
    }


def normalise(views: Tensor) -> Tensor:
    """Scale uint8 views of shape (B, H, W, 3) to the processor's float32 values, same shape."""
    mean = torch.tensor(CLIP_MEAN)
    std = torch.tensor(CLIP_STD)
    return (views.float() / 255.0 - mean) / std


def patch_vectors(views: Tensor, patch_px: int) -> Tensor:
    """Cut views into patches in the order of the image tokens they merge into.

    Args:
        views: uint8, shape (B, H, W, 3), sides multiples of ``2 * patch_px``.
        patch_px: Side of a patch.

    Returns:
        float32 of shape (B, patches, 3 * patch_px**2): per patch channel, row, column. The processor repeats
        every patch along time; the tower adds the two halves of its weights up instead.
    """
    batch, height, width, _ = views.shape
    side = patch_px * MERGE
    if height % side or width % side:
        raise ValueError(f"views of {width}x{height} px: both sides must be multiples of {side}")
    grid = normalise(views).reshape(batch, height // side, MERGE, patch_px, width // side, MERGE, patch_px, 3)
    return grid.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(batch, -1, 3 * patch_px * patch_px)


def processor_pixel_values(views: Tensor, patch_px: int) -> Tensor:
    """The processor's ``pixel_values`` of views of one size, shape (B * patches, 3 * 2 * patch_px**2)."""
    vectors = patch_vectors(views, patch_px)
    per_channel = vectors.reshape(-1, 3, 1, patch_px * patch_px)
    return per_channel.expand(-1, -1, TEMPORAL_PATCH, -1).reshape(len(per_channel), -1)
