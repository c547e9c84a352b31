"""Turns prompts into the inputs of a Hugging Face vision-language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from depthlm_ros.engines.base import EngineError, Prompt
from depthlm_ros.engines.hf_chat import ChatText, chat_template
from depthlm_ros.engines.hf_checkpoint import read_json
from depthlm_ros.engines.hf_images import ImagePreparer, PixtralImages, QwenImages, Repaint

if TYPE_CHECKING:
    import torch

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
TEXTS_KEPT = 512
"""Tokenised texts that are kept: with text references every query has its own."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """One prompt, ready to be put into a batch.

    Attributes:
        ids: Token ids, the image's included.
        images: What the encoder needs of the images.
        repaint: Where the image differs from its frame, if there is one image and it is painted over.
    """

    ids: list[int]
    images: tuple[Any, ...]
    repaint: Repaint | None = None


class Encoder(Protocol):
    """What the engine needs of an encoder."""

    tokenizer: Any
    reentrant: bool
    """Whether a prompt may be prepared in one thread while the tokenizer decodes in another."""

    def encode(self, prompt: Prompt) -> Encoded:
        """Prepare one prompt.

        Raises:
            ValueError: This prompt cannot be encoded; others may.
        """
        ...

    def batch(self, prompts: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """The model's inputs for a batch, padded on the left, on the device."""
        ...


class AssembledEncoder:
    """Tokenizer, chat template and image preparation, put together by us.

    Makes the same inputs as the checkpoint's ``AutoProcessor``, without torchvision, and each frame's image
    work is done once.

    Args:
        tokenizer: The checkpoint's tokenizer.
        template: The chat template.
        images: How this family of models takes images.
        image_token: The token that the chat template writes for an image, and the first of a placeholder.
        device: Where the model's inputs are to live.
        token_types: Whether the model wants ``mm_token_type_ids``.
    """

    reentrant = True

    def __init__(
        self,
        tokenizer: Any,
        template: str,
        images: ImagePreparer,
        *,
        image_token: str,
        device: torch.device,
        token_types: bool,
    ) -> None:
        self.tokenizer = tokenizer
        self._chat, self._images, self._device = ChatText(tokenizer, template), images, device
        self._token_types = token_types
        self._image_id = int(tokenizer.convert_tokens_to_ids(image_token))
        if self._image_id == tokenizer.unk_token_id or self._image_id < 0:
            raise EngineError(
                f"the tokenizer has no token {image_token}; the checkpoint's files do not match"
            )
        pad = tokenizer.pad_token_id
        self._pad_id = int(pad if pad is not None else tokenizer.eos_token_id)
        self._text_ids = lru_cache(maxsize=TEXTS_KEPT)(self._tokenise)
        self._image_ids = lru_cache(maxsize=16)(self._place)

    def _tokenise(self, text: str) -> tuple[int, ...]:
        added = self._chat.adds_special_tokens(text)
        return tuple(self.tokenizer(text, add_special_tokens=added)["input_ids"])

    def _place(self, height: int, width: int) -> tuple[int, ...]:
        return tuple(self.tokenizer.convert_tokens_to_ids(self._images.placeholder(height, width)))

    def encode(self, prompt: Prompt) -> Encoded:
        """See :class:`Encoder`. Placeholders are expanded as ids: special tokens do not touch the text around."""
        ids = self._text_ids(self._chat.render(prompt))
        if ids.count(self._image_id) != len(prompt.images):
            raise ValueError(
                f"{len(prompt.images)} images were given but the rendered prompt has {ids.count(self._image_id)} "
                "places for one; does the question hold a special token, or the chat template know no images?"
            )
        images = tuple(self._images.prepare(image) for image in prompt.images)
        expanded: list[int] = []
        rest = iter(images)
        for token in ids:
            if token == self._image_id:
                expanded += self._image_ids(*next(rest).shape[1:])
            else:
                expanded.append(token)
        repaint = self._images.repaint(prompt.images[0]) if len(prompt.images) == 1 else None
        return Encoded(expanded, images, repaint)

    def pack(self, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Lay prepared images, or whole patches of them, out as the model's inputs."""
        return self._images.pack(images)

    def image_end(self, ids: Sequence[int]) -> int:
        """How many tokens there are up to the last one that stands for a part of an image; 0 without an image."""
        return next((n for n in range(len(ids), 0, -1) if ids[n - 1] == self._image_id), 0)

    def batch(self, prompts: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """See :class:`Encoder`."""
        import torch

        longest = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), longest), self._pad_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[row, longest - len(prompt.ids) :] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._token_types:
            inputs["mm_token_type_ids"] = (ids == self._image_id).long()
        inputs = {name: value.to(self._device) for name, value in inputs.items()}
        images = [image for prompt in prompts for image in prompt.images]
        return inputs | (self._images.pack(images) if images else {})


class ProcessorEncoder:
    """Any other architecture: the checkpoint's own ``AutoProcessor`` does it all, for each painted image.

    Args:
        processor: The checkpoint's processor.
        template: The chat template.
        device: Where the model's inputs are to live.
    """

    # It switches its tokenizer's padding on and off, which a tokenizer that decodes meanwhile refuses.
    reentrant = False

    def __init__(self, processor: Any, template: str, *, device: torch.device) -> None:
        self.tokenizer = processor.tokenizer
        self._processor, self._device = processor, device
        self._chat = ChatText(self.tokenizer, template)

    def encode(self, prompt: Prompt) -> Encoded:
        """See :class:`Encoder`. Here only the text is rendered; ``batch`` does the rest."""
        text = self._chat.render(prompt)
        images = tuple(Image.fromarray(image.pixels()) for image in prompt.images)
        ids = self.tokenizer(prompt.prefix or text[-64:], add_special_tokens=False)["input_ids"]
        return Encoded(ids, (text, images))

    def batch(self, prompts: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """See :class:`Encoder`."""
        texts, images = zip(*((prompt.images[0], list(prompt.images[1])) for prompt in prompts), strict=True)
        inputs = self._processor(
            text=list(texts),
            images=list(images) if any(images) else None,
            padding=True,
            padding_side="left",
            add_special_tokens=self._chat.adds_special_tokens(texts[0]),
            return_tensors="pt",
        )
        return {name: value.to(self._device) for name, value in inputs.items()}


def load_encoder(
    checkpoint: Path, config: dict[str, Any], *, device: torch.device, max_image_pixels: int | None
) -> Encoder:
    """Load what turns prompts into inputs of a checkpoint.

    Args:
        checkpoint: The checkpoint directory.
        config: Its ``config.json``.
        device: Where the model's inputs are to live.
        max_image_pixels: The most pixels of an image, or None for the checkpoint's own limit.

    Raises:
        EngineError: A file is missing or wrong, or the architecture needs what is not installed.
    """
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    family, vision = config["model_type"], config.get("vision_config") or {}
    pixtral = family in ("llava", "mistral3") and vision.get("model_type") == "pixtral"
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        if family not in QWEN and not pixtral:
            if max_image_pixels is not None:
                raise EngineError(f"max_image_pixels is not supported for {family}; leave it unset")
            processor = AutoProcessor.from_pretrained(checkpoint, **local)
            template = chat_template(checkpoint, processor.tokenizer)
            return ProcessorEncoder(processor, template, device=device)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, **local)
        image_processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil", **local)
    except EngineError:
        raise
    except ImportError as error:
        raise EngineError(f"the processor of {family} needs a package that is missing: {error}") from error
    except Exception as error:
        raise EngineError(
            f"{checkpoint}: the tokenizer or the image processor cannot be loaded "
            f"({type(error).__name__}: {error}); copy all JSON files of the original checkpoint into it"
        ) from error
    template = chat_template(checkpoint, tokenizer)
    if family in QWEN:
        return AssembledEncoder(
            tokenizer,
            template,
            QwenImages(image_processor, device, max_image_pixels),
            image_token="<|image_pad|>",
            device=device,
            token_types=True,
        )
    own = read_json(checkpoint / "processor_config.json")
    side = int(own.get("patch_size", vision.get("patch_size", 16))) * int(own.get("spatial_merge_size", 1))
    return AssembledEncoder(
        tokenizer,
        template,
        PixtralImages(image_processor, device, max_image_pixels, patch_size=side),
        image_token="[IMG]",
        device=device,
        token_types=False,
    )
