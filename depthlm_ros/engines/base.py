"""What an engine is: something that answers prompts about images. Engines know nothing of depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

RgbImage = npt.NDArray[np.uint8]
"""An image of shape (H, W, 3), dtype uint8, channels red, green, blue."""


class EngineError(RuntimeError):
    """The engine cannot start or cannot go on; the message says what to do about it."""


@dataclass(frozen=True)
class Paint:
    """A few pixels to overwrite with one colour.

    Attributes:
        xy: The pixels as (x, y), x right, y down, the top-left pixel being (0, 0).
        rgb: The colour, 0 to 255 each.
    """

    xy: tuple[tuple[int, int], ...]
    rgb: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class PromptImage:
    """An image of a prompt: a base that prompts of one frame share, and the few pixels that differ.

    Two prompts share a frame exactly when their ``base`` is the same object, so an engine may process
    the base once and redo only what ``paint`` touches.

    Attributes:
        base: The shared image; never written to.
        paint: The pixels painted over it, or None.
    """

    base: RgbImage
    paint: Paint | None = None

    def pixels(self) -> RgbImage:
        """The image as the model sees it: a painted copy, or the base itself when nothing is painted."""
        if self.paint is None:
            return self.base
        image: RgbImage = self.base.copy()
        x, y = np.asarray(self.paint.xy, dtype=np.intp).T
        image[y, x] = self.paint.rgb
        return image


@dataclass(frozen=True, eq=False)
class Prompt:
    """One question about one or more images.

    Attributes:
        images: The images, in the order in which the model sees them.
        question: The user's text.
        system: The system message; None sends none (the checkpoint's chat template may add its own).
        image_first: Whether the images come before the text in the user's message.
        prefix: The start of the assistant's answer, given to the model so that only the rest is decoded.
    """

    images: tuple[PromptImage, ...]
    question: str
    system: str | None = None
    image_first: bool = True
    prefix: str = ""


class Finish(Enum):
    """Why decoding ended."""

    STOP = "stop"
    """A stop string or the end-of-text token."""
    LENGTH = "length"
    """``max_new_tokens`` were decoded; the text may be cut."""
    DEADLINE = "deadline"
    """The deadline passed before this prompt was answered; the text is empty."""
    ERROR = "error"
    """The engine failed on this prompt; ``Answer.error`` says how."""


@dataclass(frozen=True)
class Token:
    """One decoded token.

    Attributes:
        text: The text that it adds.
        logprob: Natural logarithm of its probability, or NaN where the engine does not give one.
    """

    text: str
    logprob: float


@dataclass(frozen=True)
class Answer:
    """What the model said to one prompt.

    Attributes:
        text: The decoded text, without the prompt prefix and without special tokens. The token that completed
            a stop string is included whole.
        tokens: The decoded tokens in order; their texts join to ``text``.
        finish: Why decoding ended.
        error: What failed, for ``Finish.ERROR``; else empty.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    finish: Finish = Finish.STOP
    error: str = ""


class VlmEngine(Protocol):
    """A vision-language model that answers batches of prompts.

    Used as a context manager: entering loads the model or connects, leaving frees it. ``generate`` may be
    called from any one thread at a time.
    """

    @property
    def model_name(self) -> str:
        """A short name of what answers, for messages and logs."""
        ...

    def details(self) -> dict[str, str]:
        """What a person who looks at the running engine wants to know, as {short name: text}, for diagnostics.

        May be called from any thread at any time, also while ``generate`` runs; never holds a secret.
        """
        ...

    def __enter__(self) -> VlmEngine:
        """Start the engine.

        Raises:
            EngineError: It cannot start; the message says what to do.
        """
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the engine and free what it holds."""
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        deadline: float | None = None,
    ) -> list[Answer]:
        """Answer every prompt, greedily (temperature 0), in the order given.

        Args:
            prompts: The prompts. Those that share a frame share ``PromptImage.base``.
            max_new_tokens: The most tokens to decode per prompt.
            stop: Strings that end decoding once the decoded text contains one of them.
            deadline: ``time.monotonic()`` seconds after which no new batch and no new token is begun; what
                was not answered by then comes back with ``Finish.DEADLINE``. None waits as long as it takes.

        Returns:
            One answer per prompt.

        Raises:
            EngineError: The engine as a whole failed and no answer can be had from it.
        """
        ...

    def cancel(self) -> None:
        """End a ``generate`` that runs in another thread as soon as may be; without one, do nothing.

        What it has not answered comes back with ``Finish.DEADLINE``. The next call is not affected.
        """
        ...
