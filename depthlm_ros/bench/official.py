"""The official evaluation procedure of DepthLM, written anew and sharing nothing with our engine.

What ``eval.sh`` of facebookresearch/DepthLM_Official runs: each query opens the image file, resizes it to the
canonical focal length and draws the arrow; the checkpoint's own processor takes the images of three queries together;
``generate`` decodes the whole sentence. Two things are left out, in its favour: without ``--apply_system_prompt`` the
script reads every image twice, and it prints all inputs and outputs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from depthlm_ros.bench.clock import StageClock, Watch

BATCH = 3
ENOUGH = 4 * BATCH
"""Queries that tell what any number costs: its batches share nothing, so each costs the same."""
MAX_NEW_TOKENS = 4096
_ARM_PX = 5
_RED = (255, 0, 0)


class OfficialProcedure:
    """A checkpoint, asked as the official script asks.

    Args:
        checkpoint: A Qwen2.5-VL checkpoint directory.
        question: The official question.
        focal_px: The canonical focal length in pixels.
        device: ``cpu`` or ``cuda``.
        dtype: Of the weights.
        attention: The script asks for ``flash_attention_2``; ``sdpa`` is what runs everywhere.
    """

    def __init__(
        self,
        checkpoint: Path,
        question: str,
        focal_px: float,
        *,
        device: str,
        dtype: str,
        attention: str = "sdpa",
    ) -> None:
        import torch
        from transformers import Qwen2_5_VLForConditionalGeneration

        self._question, self._focal, self._device = question, focal_px, device
        self.processor, self.processor_name = _own_processor(checkpoint)
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            checkpoint, dtype=getattr(torch, dtype), attn_implementation=attention, local_files_only=True
        )
        self.model = self.model.to(device).eval()
        self.watch = Watch(self.model)

    def ask(
        self,
        path: Path,
        intrinsics: tuple[float, float, float, float],
        pixels: Sequence[tuple[int, int]],
        clock: StageClock,
    ) -> list[float | None]:
        """The answered metres per pixel; None where there is no number between the tags.

        Args:
            path: The image file.
            intrinsics: (fx, fy, cx, cy) in pixels.
            pixels: Source pixels (u, v).
            clock: Where the time goes to.
        """
        metres: list[float | None] = []
        for first in range(0, len(pixels), BATCH):
            texts = self._batch(path, intrinsics, pixels[first : first + BATCH], clock)
            with clock.stage("parse"):
                metres += [_metres(text) for text in texts]
        return metres

    def _batch(
        self,
        path: Path,
        intrinsics: tuple[float, float, float, float],
        pixels: Sequence[tuple[int, int]],
        clock: StageClock,
    ) -> list[str]:
        import torch

        images = [self._image(path, intrinsics, pixel, clock) for pixel in pixels]
        with clock.stage("process"):
            chats = [
                [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "image": image},
                            {"type": "text", "text": self._question},
                        ],
                    }
                ]
                for image in images
            ]
            texts = [
                self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
                for chat in chats
            ]
            inputs = self.processor(
                text=texts, images=images, padding=True, padding_side="left", return_tensors="pt"
            ).to(self._device)
        with clock.stage("engine"), torch.no_grad():
            ids = self.model.generate(
                **inputs,
                use_cache=True,
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                top_p=None,
                top_k=None,
            )
            answers = ids[:, inputs["input_ids"].shape[1] :]
            said: list[str] = self.processor.batch_decode(
                answers, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return said

    def _image(
        self,
        path: Path,
        intrinsics: tuple[float, float, float, float],
        pixel: tuple[int, int],
        clock: StageClock,
    ) -> Image.Image:
        fx, fy, cx, cy = intrinsics
        with clock.stage("decode_image"):
            image: Image.Image = Image.open(path)
            image.load()
        with clock.stage("resize"):
            scale = self._focal / (fx or fy)
            image = image.resize((int(image.width * scale), int(image.height * scale)))
        with clock.stage("mark"):
            x = int((pixel[0] - cx) * scale + cx * scale)
            y = int((pixel[1] - cy) * scale + cy * scale)
            for back in range(1, _ARM_PX + 1):
                image.putpixel((x - back, y), _RED)
            for side in range(1, _ARM_PX // 2 + 1):
                image.putpixel((x - side - 1, y + side), _RED)
                image.putpixel((x - side - 1, y - side), _RED)
        return image


def _own_processor(checkpoint: Path) -> tuple[Any, str]:
    """The checkpoint's processor; without torchvision, the same class around the image processor's Pillow variant."""
    from importlib.util import find_spec

    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
    from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor

    if find_spec("torchvision") is not None:
        return AutoProcessor.from_pretrained(checkpoint, local_files_only=True), "AutoProcessor (torchvision)"

    class ImagesOnly(Qwen2_5_VLProcessor):  # type: ignore[misc]
        """Without the video processor, which is what needs torchvision."""

        @classmethod
        def get_attributes(cls) -> list[str]:
            """What it is made of."""
            return ["image_processor", "tokenizer"]

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    images = AutoImageProcessor.from_pretrained(checkpoint, backend="pil", local_files_only=True)
    processor = ImagesOnly(image_processor=images, tokenizer=tokenizer, chat_template=tokenizer.chat_template)
    return processor, "Qwen2_5_VLProcessor (Pillow; no torchvision here)"


def _metres(text: str) -> float | None:
    found = re.search(r"<answer>(.*?)</answer>", text)
    try:
        return float(found.group(1)) if found else None
    except ValueError:
        return None
