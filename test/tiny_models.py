"""Tiny checkpoints with random weights, laid out like the real ones, made where a test needs one.

Files, token names, chat templates and generation defaults follow Qwen/Qwen2.5-VL-3B-Instruct,
Qwen/Qwen3-VL-4B-Instruct and mistral-community/pixtral-12b; sizes and weights do not.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "pixtral")

_CORPUS = (
    "Given this image, how far is the point pointed by the red arrow from the camera?",
    "<think> The point is around 2.42 meters away from the camera. </think>\n\n<answer> 2.42 </answer>",
    "You are a helpful assistant. system user 0123456789 meters away naïve café 東京",
)

QWEN_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

QWEN3_TEMPLATE = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' }}"
    "{%- if messages[0].content is string %}{{- messages[0].content }}{%- else %}"
    "{%- for content in messages[0].content %}{%- if 'text' in content %}{{- content.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role == 'user' %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for content in message.content %}{%- if content.type == 'image' or 'image' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>{%- elif 'text' in content %}{{- content.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

PIXTRAL_TEMPLATE = (
    '{%- if messages[0]["role"] == "system" %}\n    {%- set system_message = messages[0]["content"] %}\n'
    "    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n"
    "{%- endif %}\n\n{{- bos_token }}\n{%- for message in loop_messages %}\n"
    '    {%- if message["role"] == "user" %}\n'
    "        {%- if loop.last and system_message is defined %}\n"
    '            {{- "[INST]" + system_message + "\\n\\n" }}\n        {%- else %}\n            {{- "[INST]" }}\n'
    '        {%- endif %}\n        {%- for chunk in message["content"] %}\n'
    '            {%- if chunk["type"] == "text" %}\n                {{- chunk["content"] }}\n'
    '            {%- elif chunk["type"] == "image" %}\n                {{- "[IMG]" }}\n            {%- else %}\n'
    '                {{- raise_exception("Unrecognized content type!") }}\n            {%- endif %}\n'
    '        {%- endfor %}\n        {{- "[/INST]" }}\n    {%- else %}\n'
    '        {{- message["content"] + eos_token}}\n    {%- endif %}\n{%- endfor %}'
)

_QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_PIXTRAL_SPECIALS = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "<pad>",
    "[IMG]",
    "[IMG_BREAK]",
    "[IMG_END]",
)


def make_tiny_checkpoint(
    directory: Path, family: str, *, dtype: str = "float32", min_pixels: int | None = None, seed: int = 0
) -> Path:
    """Write a checkpoint of one of :data:`FAMILIES` with random weights; about 1 MB.

    Args:
        directory: Where to; made if missing.
        family: One of :data:`FAMILIES`.
        dtype: The dtype of the saved weights.
        min_pixels: Fewest pixels of a Qwen image; None is four merged patches.
        seed: Of the weights.
    """
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    directory.mkdir(parents=True, exist_ok=True)
    ids, size = _write_tokenizer(directory, family)
    torch.manual_seed(seed)
    config = _config(family, ids, size + 13)  # real vocabularies are padded too
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # bold enough for different answers to different images
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 1.3 * parameter[0].numel() ** -0.5)
    model.to(getattr(torch, dtype)).save_pretrained(directory)
    _write_json(directory / "generation_config.json", _generation_defaults(family, ids))
    _write_processor(directory, family, min_pixels)
    return directory


@cache
def shared_checkpoint(family: str) -> Path:
    """A tiny checkpoint that all tests of this process share; not to be written to."""
    parent = tempfile.mkdtemp(prefix="tiny_")
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    return make_tiny_checkpoint(Path(parent) / f"tiny-{family}", family)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2), encoding="utf-8")


def _write_tokenizer(directory: Path, family: str) -> tuple[dict[str, int], int]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    pixtral = family == "pixtral"
    specials = _PIXTRAL_SPECIALS if pixtral else _QWEN_SPECIALS
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    ids = {token: tokenizer.token_to_id(token) for token in specials}
    if pixtral:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", ids["<s>"])]
        )
        record = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "processor_class": "PixtralProcessor",
        }
    else:
        record = {
            "tokenizer_class": "Qwen2Tokenizer",
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "additional_special_tokens": list(_QWEN_SPECIALS[1:]),
            # Qwen2.5-VL's tokenizer has a template of its own, for text; the processor's must win.
            "chat_template": "{% for m in messages %}the wrong template{% endfor %}",
        }
        merges = json.loads(tokenizer.to_str())["model"]
        _write_json(directory / "vocab.json", merges["vocab"])
        lines = (" ".join(pair) if isinstance(pair, list) else pair for pair in merges["merges"])
        (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(
        directory / "tokenizer_config.json",
        record | {"clean_up_tokenization_spaces": False, "model_max_length": 4096},
    )
    return ids, tokenizer.get_vocab_size()


def _generation_defaults(family: str, ids: dict[str, int]) -> dict[str, Any]:
    if family == "pixtral":
        return {"bos_token_id": ids["<s>"], "eos_token_id": ids["</s>"]}
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
        "repetition_penalty": 1.05,
    }


def _config(family: str, ids: dict[str, int], vocab: int) -> Any:
    from transformers import CONFIG_MAPPING

    text: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
    }
    if family == "pixtral":
        vision = {
            "model_type": "pixtral",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "head_dim": 16,
            "patch_size": 16,
            "image_size": 1024,
        }
        return CONFIG_MAPPING["llava"](
            text_config=text | {"model_type": "mistral", "sliding_window": None},
            vision_config=vision,
            image_token_index=ids["[IMG]"],
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        )
    tokens = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 64,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    rope: dict[str, Any] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1000000.0}
    ends = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
    if family == "qwen2_5_vl":
        del text["head_dim"]
        vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    else:
        rope["mrope_interleaved"] = True
        vision |= {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return CONFIG_MAPPING[family](
        text_config=text | {"rope_parameters": rope} | ends,
        vision_config=vision,
        tie_word_embeddings=True,
        **tokens,
    )


def _write_processor(directory: Path, family: str, min_pixels: int | None) -> None:
    if family == "pixtral":
        _write_json(directory / "chat_template.json", {"chat_template": PIXTRAL_TEMPLATE})
        _write_json(
            directory / "processor_config.json",
            {
                "image_break_token": "[IMG_BREAK]",
                "image_end_token": "[IMG_END]",
                "image_token": "[IMG]",
                "patch_size": 16,
                "processor_class": "PixtralProcessor",
            },
        )
        _write_json(
            directory / "preprocessor_config.json",
            {
                "do_convert_rgb": True,
                "do_normalize": True,
                "do_rescale": True,
                "do_resize": True,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_processor_type": "PixtralImageProcessor",
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "patch_size": {"height": 16, "width": 16},
                "processor_class": "PixtralProcessor",
                "resample": 3,
                "rescale_factor": 0.00392156862745098,
                "size": {"longest_edge": 1024},
            },
        )
        return
    patch = 14 if family == "qwen2_5_vl" else 16
    preprocessor: dict[str, Any] = {
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_processor_type": "Qwen2VLImageProcessor",
    }
    least = min_pixels or 4 * (2 * patch) ** 2
    if family == "qwen2_5_vl":
        preprocessor |= {
            "min_pixels": least,
            "max_pixels": 12845056,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "processor_class": "Qwen2_5_VLProcessor",
        }
        _write_json(directory / "chat_template.json", {"chat_template": QWEN_TEMPLATE})
    else:
        preprocessor |= {
            "size": {"longest_edge": 16777216, "shortest_edge": least},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "processor_class": "Qwen3VLProcessor",
            "image_processor_type": "Qwen2VLImageProcessorFast",
        }
        (directory / "chat_template.jinja").write_text(QWEN3_TEMPLATE, encoding="utf-8")
        _write_json(
            directory / "video_preprocessor_config.json",
            preprocessor | {"video_processor_type": "Qwen3VLVideoProcessor"},
        )
    _write_json(directory / "preprocessor_config.json", preprocessor)
