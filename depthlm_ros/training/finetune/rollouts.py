"""Prompts in TRL's form that come out as the engine's: a processor without torchvision, and the samples as rows."""

from __future__ import annotations

import json
from typing import Any

from datasets import Dataset
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLProcessor

from depthlm_ros.engines.base import EngineError, Prompt
from depthlm_ros.engines.hf_chat import chat_template
from depthlm_ros.engines.hf_checkpoint import read_json
from depthlm_ros.engines.hf_processor import QWEN
from depthlm_ros.training.finetune.data import TrainingSamples
from depthlm_ros.training.finetune.model import Base


class ImageTextProcessor(Qwen2_5_VLProcessor):  # type: ignore[misc]  # transformers' classes are untyped here
    """Qwen's processor for images and text alone.

    The one of transformers demands a video processor, and that one torchvision; a processor's parts are what its
    ``__init__`` names, so that naming two leaves the third out.

    Args:
        image_processor: The checkpoint's image processor, Pillow variant.
        tokenizer: Its tokenizer.
        chat_template: Its chat template.
    """

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)


def rollout_processor(base: Base) -> ImageTextProcessor:
    """The processor with which TRL makes its prompts; they end with the profile's prefix, as the engine's do.

    Raises:
        EngineError: The checkpoint is no Qwen2-VL, Qwen2.5-VL or Qwen3-VL.
    """
    family = read_json(base.directory / "config.json").get("model_type")
    if family not in QWEN:
        raise EngineError(
            f"recipe grpo supports {', '.join(QWEN)}; {base.directory} is {family!r}: use recipe sft"
        )
    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(base.directory, padding_side="left", **local)
    images = AutoImageProcessor.from_pretrained(base.directory, backend="pil", **local)
    template = chat_template(base.directory, tokenizer)
    # TRL always asks for the start of the assistant's turn, and knows no other way to begin the answer.
    start = json.dumps(base.profile.prompt_prefix, ensure_ascii=False)
    template += "{% if add_generation_prompt %}{{ " + start + " }}{% endif %}"
    return ImageTextProcessor(images, tokenizer, chat_template=template)


def rollout_rows(samples: TrainingSamples, first: int) -> Dataset:
    """The samples from ``first`` on as TRL wants them: ``prompt`` (messages with images) and ``metres``.

    Rows are made when they are read; nothing is written to a cache.
    """

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        chosen = [samples[index] for index in batch["index"]]
        return {
            "prompt": [messages(sample.prompt) for sample in chosen],
            "metres": [sample.metres for sample in chosen],
        }

    return Dataset.from_dict({"index": list(range(first, len(samples)))}).with_transform(rows)


def messages(prompt: Prompt) -> list[dict[str, Any]]:
    """A prompt as a conversation, without its prefix, which the chat template adds."""
    images = [{"type": "image", "image": Image.fromarray(image.pixels())} for image in prompt.images]
    text = {"type": "text", "text": prompt.question}
    content = [*images, text] if prompt.image_first else [text, *images]
    conversation: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if prompt.system is not None:
        conversation.insert(0, {"role": "system", "content": prompt.system})
    return conversation
