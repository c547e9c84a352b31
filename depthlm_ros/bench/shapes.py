"""Shapes of Qwen2.5-VL that can be timed: the true one of DepthLM 3B, and smaller ones in its proportions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PATCH_PX = 14
MERGE = 2
WINDOW_PX = 112


@dataclass(frozen=True)
class VisionShape:
    """The vision tower.

    Attributes:
        depth: Layers.
        hidden: Width.
        intermediate: Width of the gated MLP.
        heads: Attention heads.
        full_attention: Layers that see the whole image; the others see windows.
        patch_px: Side of a patch in pixels.
        merge: Patches along each side that become one token.
        window_px: Side of an attention window in pixels.
    """

    depth: int
    hidden: int
    intermediate: int
    heads: int
    full_attention: tuple[int, ...]
    patch_px: int = PATCH_PX
    merge: int = MERGE
    window_px: int = WINDOW_PX


@dataclass(frozen=True)
class TextShape:
    """The language model.

    Attributes:
        layers: Layers.
        hidden: Width.
        intermediate: Width of the gated MLP.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        vocabulary: Rows of the (tied) embedding.
        rope_sections: Rotary frequencies for time, height and width; half a head's width in all.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    rope_sections: tuple[int, int, int] = (16, 24, 24)


@dataclass(frozen=True)
class Shape:
    """A model's shape and the focal length at which it sees.

    Attributes:
        name: What ``--shape`` calls it.
        vision: The vision tower.
        text: The language model.
        focal_px: Canonical focal length in pixels.
        about: What it stands for, in a sentence.
    """

    name: str
    vision: VisionShape
    text: TextShape
    focal_px: float
    about: str


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape(
            "3b",
            VisionShape(32, 1280, 3420, 16, (7, 15, 23, 31)),
            TextShape(36, 2048, 11008, 16, 2, 151936),
            1000.0,
            "Qwen2.5-VL-3B, the model of DepthLM 3B, at its own focal length",
        ),
        Shape(
            "small",
            VisionShape(8, 320, 856, 4, (7,)),
            TextShape(9, 512, 2752, 4, 1, 9496),
            500.0,
            "Qwen2.5-VL-3B with a quarter of its width, its layers and its image tokens (half its focal length), so "
            "that vision and language model, linear layers and attention keep their shares of the work",
        ),
        Shape(
            "tiny",
            VisionShape(2, 32, 64, 2, (1,), window_px=56),
            TextShape(2, 64, 128, 2, 1, 1024, (4, 6, 6)),
            60.0,
            "no model's proportions: for a first look and for tests, in seconds",
        ),
    )
}
"""3b: ``config.json`` of Qwen/Qwen2.5-VL-3B-Instruct. Weights are random in all of them."""


def config_of(shape: Shape, ids: dict[str, int]) -> Any:
    """The transformers configuration of a shape.

    Args:
        shape: The shape.
        ids: Ids of Qwen's special tokens.
    """
    from transformers import Qwen2_5_VLConfig

    vision, text = shape.vision, shape.text
    return Qwen2_5_VLConfig(
        vision_config={
            "depth": vision.depth,
            "hidden_size": vision.hidden,
            "intermediate_size": vision.intermediate,
            "num_heads": vision.heads,
            "out_hidden_size": text.hidden,
            "patch_size": vision.patch_px,
            "spatial_merge_size": vision.merge,
            "temporal_patch_size": 2,
            "window_size": vision.window_px,
            "fullatt_block_indexes": list(vision.full_attention),
        },
        text_config={
            "vocab_size": text.vocabulary,
            "hidden_size": text.hidden,
            "intermediate_size": text.intermediate,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": list(text.rope_sections),
                "rope_theta": 1000000.0,
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "tie_word_embeddings": True,
        },
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def shape_of(name: str, config: dict[str, Any], focal_px: float) -> Shape:
    """The shape of a Qwen2.5-VL checkpoint, from its ``config.json``.

    Args:
        name: What to call it.
        config: The contents of ``config.json``.
        focal_px: The checkpoint's canonical focal length in pixels.
    """
    vision, text = config["vision_config"], config["text_config"]
    return Shape(
        name,
        VisionShape(
            vision["depth"],
            vision["hidden_size"],
            vision["intermediate_size"],
            vision["num_heads"],
            tuple(vision["fullatt_block_indexes"]),
            vision["patch_size"],
            vision["spatial_merge_size"],
            vision["window_size"],
        ),
        TextShape(
            text["num_hidden_layers"],
            text["hidden_size"],
            text["intermediate_size"],
            text["num_attention_heads"],
            text["num_key_value_heads"],
            text["vocab_size"],
        ),
        focal_px,
        "the checkpoint inside this package, with its trained weights",
    )
