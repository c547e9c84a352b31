"""The embedded checkpoint's tokenizer: bytes, Qwen's special tokens, and the official sentences in few tokens."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from depthlm_ros.profile import DEPTHLM_PREFIX, DEPTHLM_QUESTION

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"
IMAGE_PAD = "<|image_pad|>"
VIDEO_PAD = "<|video_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)

_QUESTION_BREAK = DEPTHLM_QUESTION.index(" Output")

PHRASES = (
    "system\n",
    "user\n",
    "assistant\n",
    DEPTHLM_QUESTION[:_QUESTION_BREAK],
    DEPTHLM_QUESTION[_QUESTION_BREAK:],
    DEPTHLM_PREFIX,
    " meters",
    " away from the camera. </think>\n\n<answer>",
    " </answer>",
    *(f" {digit}" for digit in range(10)),
)
"""Text that is one token each.

The prefix, each digit and " meters" end where a token ends, so that giving the model the prefix or stopping
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


def prompt_text(question: str) -> str:
    """A prompt with one image as the chat template renders it, up to where the assistant answers."""
    return f"{TURN_START}user\n{VISION_START}{IMAGE_PAD}{VISION_END}{question}{TURN_END}\n{TURN_START}assistant\n"
