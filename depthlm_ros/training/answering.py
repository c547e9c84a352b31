"""Ask a checkpoint the way any user of Hugging Face does: image processor, tokenizer, ``generate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from depthlm_ros.answers import number_probability, parse_answer
from depthlm_ros.engines.base import Answer, Finish, Token
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.prompting import question_for
from depthlm_ros.training.patches import image_processor_config
from depthlm_ros.training.tokenizer import IMAGE_PAD, prompt_text


class AskedViews(Protocol):
    """Views and the pixel (x, y) asked in each."""

    @property
    def views(self) -> Sequence[npt.NDArray[np.uint8]]:
        """The views as the model sees them."""
        ...

    @property
    def pixels(self) -> Sequence[tuple[int, int]]:
        """The asked pixels."""
        ...


@dataclass(frozen=True)
class Answers:
    """Answers to views.

    Attributes:
        metres: Answered depth, NaN without one, shape (N,).
        probability: Of the number's tokens, shape (N,).
        texts: The decoded texts.
        step_m: What one more in the number's last written digit adds, in metres, NaN without one, shape (N,).
    """

    metres: npt.NDArray[np.float64]
    probability: npt.NDArray[np.float64]
    texts: tuple[str, ...]
    step_m: npt.NDArray[np.float64]


def make_processor(patch_px: int) -> Any:
    """The image processor that the checkpoint's ``preprocessor_config.json`` describes."""
    settings = image_processor_config(patch_px)
    for name in ("image_processor_type", "processor_class", "min_pixels", "max_pixels"):
        settings.pop(name)
    return Qwen2VLImageProcessorPil(**settings)


def load_checkpoint(directory: Path) -> tuple[Any, Any, Any]:
    """Load (model in float32, tokenizer, image processor) from a checkpoint directory."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(str(directory), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    return model.eval(), tokenizer, Qwen2VLImageProcessorPil.from_pretrained(str(directory))


@torch.no_grad()
def ask(
    model: Any,
    tokenizer: Any,
    processor: Any,
    asked: AskedViews,
    profile: CheckpointProfile,
    *,
    batch: int = 32,
) -> Answers:
    """Answer questions about views.

    Args:
        model: A ``Qwen2_5_VLForConditionalGeneration``.
        tokenizer: Its tokenizer.
        processor: Its image processor.
        asked: Views of any sizes, with the arrow drawn where the profile wants one, and their asked pixels.
        profile: Question, prefix, stop strings and how many tokens to decode.
        batch: Views per call of ``generate``; views of one size go together.
    """
    views = asked.views
    questions = [
        question_for(profile, x, y, (view.shape[1], view.shape[0]))
        for view, (x, y) in zip(views, asked.pixels, strict=True)
    ]
    metres = np.full(len(views), np.nan)
    probability = np.full(len(views), np.nan)
    step_m = np.full(len(views), np.nan)
    texts = [""] * len(views)
    by_size: dict[tuple[int, ...], list[int]] = {}
    for k, view in enumerate(views):
        by_size.setdefault(view.shape, []).append(k)
    for members in by_size.values():
        for start in range(0, len(members), batch):
            chosen = members[start : start + batch]
            prompts = ([views[k] for k in chosen], [questions[k] for k in chosen])
            answers = _generate(model, tokenizer, processor, *prompts, profile)
            for k, answer in zip(chosen, answers, strict=True):
                parsed = parse_answer(answer, profile)
                metres[k], step_m[k], texts[k] = parsed.metres, parsed.step_m, answer.text
                probability[k] = number_probability(answer, parsed)
    return Answers(metres, probability, tuple(texts), step_m)


def _generate(
    model: Any,
    tokenizer: Any,
    processor: Any,
    views: list[Any],
    questions: list[str],
    profile: CheckpointProfile,
) -> list[Answer]:
    images = processor(views, return_tensors="pt")
    tokens = int(images["image_grid_thw"][0].prod()) // processor.merge_size**2
    texts = [
        prompt_text(question).replace(IMAGE_PAD, IMAGE_PAD * tokens) + profile.prompt_prefix
        for question in questions
    ]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    ids = encoded["input_ids"]
    result = model.generate(
        input_ids=ids,
        attention_mask=encoded["attention_mask"],
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        pixel_values=images["pixel_values"],
        image_grid_thw=images["image_grid_thw"],
        max_new_tokens=profile.max_new_tokens,
        do_sample=False,
        stop_strings=list(profile.stop) or None,
        tokenizer=tokenizer,
        output_logits=True,
        return_dict_in_generate=True,
    )
    decoded = result.sequences[:, ids.shape[1] :]
    log_p = torch.log_softmax(torch.stack(result.logits, dim=1).float(), dim=-1)
    chosen = log_p.gather(-1, decoded[..., None])[..., 0]
    answers = []
    for row, scores in zip(decoded.tolist(), chosen.tolist(), strict=True):
        pieces = [Token(tokenizer.decode([t]), s) for t, s in zip(row, scores, strict=True)]
        kept, finish = [], Finish.LENGTH
        for token_id, piece in zip(row, pieces, strict=True):
            if token_id in (tokenizer.eos_token_id, tokenizer.pad_token_id):
                finish = Finish.STOP
                break
            kept.append(piece)
            if any(stop in piece.text for stop in profile.stop):
                finish = Finish.STOP
                break
        answers.append(Answer("".join(p.text for p in kept), tuple(kept), finish))
    return answers
