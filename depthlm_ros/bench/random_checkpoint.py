"""Checkpoints with random weights in the shape of Qwen2.5-VL, made on the fly: standard Hugging Face directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from depthlm_ros.bench.shapes import Shape, config_of
from depthlm_ros.profile import DEPTHLM_ANSWER, DEPTHLM_QUESTION, TEXT_QUESTION

_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_WORDS = 700
"""Learned tokens at most; every word of the sentences becomes one long before."""

_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2's tokenizer cuts text before its merges (``tokenizer.json`` of Qwen2.5): a digit is a token."""

_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{{ 'assistant\n' }}{% endif %}"
)
"""Renders images and text as Qwen2.5-VL's own template does, with its system message."""


def write_random_checkpoint(
    directory: Path, shape: Shape, *, device: str = "cpu", dtype: str = "float32", seed: int = 0
) -> Path:
    """Write a checkpoint with random weights.

    Args:
        directory: Where to; made if missing.
        shape: What shape it gets.
        device: Where the weights are drawn: billions of them are quicker on a GPU.
        dtype: Of the weights.
        seed: Of the weights.

    Returns:
        The directory.
    """
    import torch
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in _SPECIALS}
    torch.manual_seed(seed)
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(
            config_of(shape, ids), dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"]
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    _write_processor(directory, shape)
    return directory


def _tokenizer() -> Any:
    """Qwen's special tokens and way of cutting; a word of DepthLM's sentences is one token, as nearly all are."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    corpus = [
        DEPTHLM_QUESTION,
        TEXT_QUESTION,
        DEPTHLM_ANSWER.format(depth=3.51),
        "system\nYou are a helpful assistant.\nuser\nassistant\n",
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=_WORDS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(corpus, trainer)
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIALS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in _SPECIALS if t not in ("<|im_end|>", "<|endoftext|>")],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=32768,
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _write_processor(directory: Path, shape: Shape) -> None:
    side = shape.vision.patch_px * shape.vision.merge
    record = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "patch_size": shape.vision.patch_px,
        "temporal_patch_size": 2,
        "merge_size": shape.vision.merge,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "min_pixels": 4 * side * side,
        "max_pixels": 12845056,
    }
    text = json.dumps(record, indent=2) + "\n"
    (directory / "preprocessor_config.json").write_text(text, encoding="utf-8")
