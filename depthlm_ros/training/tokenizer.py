"""The embedded checkpoint's tokenizer: bytes, Qwen's special tokens, and the official sentences in few tokens."""

from __future__ import annotations

from string import Formatter

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from depthlm_ros.profile import DEPTHLM_ANSWER, DEPTHLM_PREFIX, DEPTHLM_QUESTION, TEXT_QUESTION
from depthlm_ros.spatial.tasks import TASKS

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"
IMAGE_PAD = "<|image_pad|>"
VIDEO_PAD = "<|video_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)

_METRES = " meters"
_QUESTION_BREAK = " Output"


def fixed_parts(template: str) -> list[str]:
    """The words of a template between its numbers.

    A space before a number is left out, since it belongs to the number's first digit, and " meters" after one
    stands alone, since decoding stops there.
    """
    parts = []
    for text, field, _, _ in Formatter().parse(template):
        part = text.removesuffix(" ") if field is not None else text
        if part.startswith(_METRES):
            parts.append(_METRES)
            part = part.removeprefix(_METRES)
        head, found, tail = part.partition(_QUESTION_BREAK)
        parts += [piece for piece in (head, found + tail) if piece]
    return parts


def _phrases() -> tuple[str, ...]:
    templates = [DEPTHLM_QUESTION, DEPTHLM_ANSWER, TEXT_QUESTION]
    templates += [text for task in TASKS.values() for text in (task.question, task.answer)]
    words = [part for template in templates for part in fixed_parts(template)]
    starts = [DEPTHLM_PREFIX, *(task.prefix for task in TASKS.values())]
    digits = [f" {digit}" for digit in range(10)]
    turns = ["system\n", "user\n", "assistant\n"]
    return tuple(dict.fromkeys([*turns, *starts, *words, *digits, " -"]))


PHRASES = _phrases()
"""Text that is one token each: the fixed words of every question and answer, and a number's beginning.

The prefixes, each digit and " meters" end where a token ends, so that giving the model a prefix or stopping
at " meters" cuts no token. " 2" carries the space before a number, which saves a decoding step per answer.
"""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{{ 'assistant\n' }}{% endif %}"
)
"""Qwen's turns without the system message that Qwen's own template adds: the training sends none."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer; the same one every time, nothing is learned from data."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    core.add_tokens([AddedToken(text, special=False, normalized=False) for text in PHRASES])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[t for t in SPECIAL_TOKENS if t not in (TURN_END, END_OF_TEXT)],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=4096,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def prompt_text(question: str, images: int = 1) -> str:
    """A prompt as the chat template renders it, images first, up to where the assistant answers."""
    image = f"{VISION_START}{IMAGE_PAD}{VISION_END}"
    return f"{TURN_START}user\n{image * images}{question}{TURN_END}\n{TURN_START}assistant\n"
