"""The ``transformers`` engine: a local Hugging Face checkpoint in this process, on the CPU or a CUDA GPU.

Importing this module imports neither torch nor transformers; starting the engine does.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt
from depthlm_ros.engines.hf_checkpoint import (
    DTYPES,
    check_directory,
    is_out_of_memory,
    load_config,
    load_model,
    name_of,
    pick_device,
    read_json,
)
from depthlm_ros.engines.hf_decoding import CONTEXT_TOKENS, GreedyDecoding
from depthlm_ros.engines.hf_processor import Encoded, Encoder, load_encoder

if TYPE_CHECKING:
    import torch

_LOG = logging.getLogger(__name__)


class TransformersEngine:
    """Runs any image-text-to-text checkpoint that transformers implements; see :class:`VlmEngine`.

    Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Pixtral and Mistral 3 need no torchvision, and each frame's image work is
    done once. Any other architecture goes through its own ``AutoProcessor``.

    The one global thing that it changes is torch's number of threads, and only if ``threads`` is not 0.

    Args:
        checkpoint: The checkpoint directory: ``config.json``, tokenizer, processor files, ``*.safetensors``.
        device: ``auto`` (CUDA if there is any), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        batch_size: The most prompts that are run together.
        attention: The attention implementation, as transformers names it: ``sdpa``, ``eager``,
            ``flash_attention_2``, ...
        max_image_pixels: The most pixels of an image as the model sees it; None leaves the checkpoint's limit.
        threads: CPU threads of torch, for the whole process; 0 leaves them.

    Raises:
        EngineError: An argument is wrong. The checkpoint is looked at when the engine is started.
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        device: str = "auto",
        dtype: str = "bfloat16",
        batch_size: int = 8,
        attention: str = "sdpa",
        max_image_pixels: int | None = None,
        threads: int = 0,
    ) -> None:
        if dtype not in DTYPES:
            raise EngineError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        limits = (
            ("batch_size", batch_size, 1),
            ("threads", threads, 0),
            ("max_image_pixels", max_image_pixels, 1),
        )
        for name, value, least in limits:
            if value is not None and value < least:
                raise EngineError(f"{name}: expected {least} or more, got {value}")
        self._checkpoint = Path(checkpoint).expanduser()
        self._device_name, self._dtype, self._attention = device, dtype, attention
        self._batch_size, self._max_image_pixels, self._threads = batch_size, max_image_pixels, threads
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._failures: set[str] = set()
        self._model: Any = None
        self._encoder: Encoder | None = None
        self._device: torch.device | None = None

    @cached_property
    def model_name(self) -> str:
        """The model's name and architecture, known before the engine is started."""
        return name_of(self._checkpoint, read_json(self._checkpoint / "config.json"))

    def details(self) -> dict[str, str]:
        """Where and in which arithmetic the model runs; see :meth:`VlmEngine.details`."""
        return {"device": str(self._device or self._device_name), "dtype": self._dtype}

    def __enter__(self) -> TransformersEngine:
        """Load the checkpoint.

        Raises:
            EngineError: It cannot be loaded; the message says what to do.
        """
        record = check_directory(self._checkpoint)
        self._failures.clear()
        try:
            import torch
            import transformers  # noqa: F401
        except ImportError as error:
            raise EngineError(
                f"the transformers engine needs torch and transformers ({error}); install them with "
                "`pip install torch 'transformers>=5' safetensors`"
            ) from error
        if self._threads:
            torch.set_num_threads(self._threads)
        self._device = pick_device(self._device_name)
        config = load_config(self._checkpoint)
        self._encoder = load_encoder(
            self._checkpoint, record, device=self._device, max_image_pixels=self._max_image_pixels
        )
        self._model = load_model(
            self._checkpoint, config, device=self._device, dtype=self._dtype, attention=self._attention
        )
        if self._model.generation_config.pad_token_id is None:
            self._model.generation_config.pad_token_id = self._encoder.tokenizer.pad_token_id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the model's memory, once a call that is under way has returned."""
        with self._lock:
            self._model = self._encoder = None
            gc.collect()
            self._empty_cache()

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        deadline: float | None = None,
    ) -> list[Answer]:
        """Answer every prompt greedily; see :meth:`VlmEngine.generate`.

        A token that ends an answer by completing a stop string is kept whole. The deadline is looked at before
        each batch and after each decoded token. A prompt that cannot be encoded, or whose batch fails, gets
        ``Finish.ERROR``; a batch that does not fit into GPU memory is tried again as two halves, once.

        Raises:
            EngineError: The engine is not started, or the GPU failed for good.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected 1 or more, got {max_new_tokens}")
        with self._lock:
            if self._model is None or self._encoder is None:
                raise EngineError("the engine is not started; use it in a with statement")
            self._cancelled.clear()

            def late() -> bool:
                return self._cancelled.is_set() or (deadline is not None and time.monotonic() > deadline)

            call = BatchCall(self._model, self._encoder, max_new_tokens, tuple(stop), late)
            answers: list[Answer] = []
            for first in range(0, len(prompts), self._batch_size):
                answers += self._answer(call, prompts[first : first + self._batch_size])
            return answers

    def cancel(self) -> None:
        """End a call that is under way in another thread; see :meth:`VlmEngine.cancel`."""
        self._cancelled.set()

    def _answer(self, call: BatchCall, prompts: Sequence[Prompt], *, may_split: bool = True) -> list[Answer]:
        """Answer one batch, whatever happens to it."""
        if call.late():
            return [Answer("", finish=Finish.DEADLINE)] * len(prompts)
        try:
            return call.run(prompts)
        except Exception as error:
            if not is_out_of_memory(error):
                self._raise_if_lost(error)
                level = self._level(type(error).__name__, logging.ERROR)
                _LOG.log(level, "a batch of %d prompts failed", len(prompts), exc_info=True)
                return [_failed(error)] * len(prompts)
            failure = _failed(error)
        # Outside of the handler, whose traceback would keep the batch's tensors alive.
        self._empty_cache()
        if not may_split or len(prompts) < 2:
            level = self._level("out of memory", logging.ERROR)
            _LOG.log(level, "out of memory with %d prompts at a time: %s", len(prompts), failure.error)
            return [failure] * len(prompts)
        level = self._level("halved", logging.WARNING)
        _LOG.log(level, "out of memory with %d prompts at a time; trying again with half", len(prompts))
        half = (len(prompts) + 1) // 2
        return [
            answer
            for part in (prompts[:half], prompts[half:])
            for answer in self._answer(call, part, may_split=False)
        ]

    def _level(self, failure: str, level: int) -> int:
        """The level at which to log a kind of failure: the given one once, then debug, or a stream floods the log."""
        if failure in self._failures:
            return logging.DEBUG
        self._failures.add(failure)
        return level

    def _empty_cache(self) -> None:
        if self._device is not None and self._device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    @staticmethod
    def _raise_if_lost(error: Exception) -> None:
        """After an asynchronous CUDA error nothing works in this process any more."""
        import torch

        lost = getattr(torch, "AcceleratorError", None)
        if (lost is not None and isinstance(error, lost)) or "CUDA error" in str(error):
            raise EngineError(f"the GPU failed and this process cannot use it again; restart it ({error})")


def _failed(error: Exception) -> Answer:
    return Answer("", finish=Finish.ERROR, error=f"{type(error).__name__}: {error}")


class BatchCall:
    """One call of ``generate``: what is common to its batches.

    Args:
        model: The model.
        encoder: Its encoder.
        max_new_tokens: The most tokens to decode per prompt.
        stop: Strings that end decoding.
        late: Says whether decoding is to end now.
        in_training: Whether the model is trained on afterwards. PyTorch's inference mode, quicker by a little, would
            leave a model that is sharded over processes with weights that take no gradient.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        max_new_tokens: int,
        stop: tuple[str, ...],
        late: Callable[[], bool],
        *,
        in_training: bool = False,
    ) -> None:
        self._model, self._encoder, self._in_training = model, encoder, in_training
        self._max_new_tokens, self._stop, self.late = max_new_tokens, stop, late
        eos = model.generation_config.eos_token_id
        ends = [eos] if isinstance(eos, int) else (eos or [])
        self._eos = frozenset((*ends, encoder.tokenizer.eos_token_id)) - {None}

    def run(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Run one batch; prompts that cannot be encoded fail alone."""
        encoded: list[Encoded] = []
        answers: list[Answer | None] = []
        for prompt in prompts:
            try:
                encoded.append(self._encoder.encode(prompt))
                answers.append(None)
            except (ValueError, IndexError, TypeError) as error:
                answers.append(_failed(error))
        decoded = iter(self._decode(encoded) if encoded else ())
        return [answer if answer is not None else next(decoded) for answer in answers]

    def _decode(self, encoded: Sequence[Encoded]) -> list[Answer]:
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        contexts = [prompt.ids[-CONTEXT_TOKENS:] for prompt in encoded]
        watch = GreedyDecoding(
            self._encoder.tokenizer,
            contexts,
            eos=self._eos,
            stop=self._stop,
            max_new_tokens=self._max_new_tokens,
            late=self.late,
        )
        inputs = self._encoder.batch(encoded)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        with torch.no_grad() if self._in_training else torch.inference_mode():
            self._model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=self._max_new_tokens,
                logits_processor=LogitsProcessorList([watch.record]),
                stopping_criteria=StoppingCriteriaList([watch.done]),
            )
        return watch.answers()
