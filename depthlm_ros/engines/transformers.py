"""The ``transformers`` engine: a local Hugging Face checkpoint in this process, on the CPU or a CUDA GPU.

Importing this module imports neither torch nor transformers; starting the engine does.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from depthlm_ros.engines.ahead import Ahead
from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt
from depthlm_ros.engines.hf_batch import BatchCall, PreparedBatch, failed
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
from depthlm_ros.engines.hf_heads import Heads, heads_for
from depthlm_ros.engines.hf_processor import AssembledEncoder, Encoder, load_encoder
from depthlm_ros.engines.hf_segments import attend_by_segments

if TYPE_CHECKING:
    import torch

    from depthlm_ros.engines.hf_reuse import MarkerReuse

_LOG = logging.getLogger(__name__)

CPU_IMAGES = 4
"""The most images that a CPU reads together. Reading is matrix products, as fast with few as with many, while what
lies between the layers of many no longer fits into the caches: `depthlm bench --threads 2` beside the same with
`--marker-batch 32` shows it. A GPU takes the whole batch."""


class TransformersEngine:
    """Runs any image-text-to-text checkpoint that transformers implements; see :class:`VlmEngine`.

    Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Pixtral and Mistral 3 need no torchvision, each frame's image work is done
    once, and prompts with an untouched image (``text`` reference) go on from one prefill of it. Any other
    architecture goes through its own ``AutoProcessor``.

    What it changes beyond itself: torch's number of threads, if ``threads`` is not 0, and transformers' register of
    attentions, which gets one more by a name of its own.

    Args:
        checkpoint: The checkpoint directory: ``config.json``, tokenizer, processor files, ``*.safetensors``.
        device: ``auto`` (CUDA if there is any), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        batch_size: The most prompts that are run together.
        images_at_once: The same for prompts whose images are read for each of them, as marked ones are; None takes
            :data:`CPU_IMAGES` on a CPU and ``batch_size`` on a GPU. Not more than ``batch_size`` in any case.
        attention: The attention implementation, as transformers names it: ``sdpa``, ``eager``,
            ``flash_attention_2``, ...
        max_image_pixels: The most pixels of an image as the model sees it; None leaves the checkpoint's limit.
        threads: CPU threads of torch, for the whole process; 0 leaves them.
        marker_reuse: Whether marked images are read anew only near the marker, which is quicker and not exact: see
            ``docs/marker-reuse.md``. Qwen2.5-VL only.

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
        images_at_once: int | None = None,
        attention: str = "sdpa",
        max_image_pixels: int | None = None,
        threads: int = 0,
        marker_reuse: bool = False,
    ) -> None:
        if dtype not in DTYPES:
            raise EngineError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        limits = (
            ("batch_size", batch_size, 1),
            ("images_at_once", images_at_once, 1),
            ("threads", threads, 0),
            ("max_image_pixels", max_image_pixels, 1),
        )
        for name, value, least in limits:
            if value is not None and value < least:
                raise EngineError(f"{name}: expected {least} or more, got {value}")
        self._checkpoint = Path(checkpoint).expanduser()
        self._device_name, self._dtype, self._attention = device, dtype, attention
        self._batch_size, self._images_at_once = batch_size, images_at_once
        self._max_image_pixels, self._threads = max_image_pixels, threads
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._failures: set[str] = set()
        self._model: Any = None
        self._encoder: Encoder | None = None
        self._heads: Heads | None = None
        self._marker_reuse = marker_reuse
        self._reuse: MarkerReuse | None = None
        self._device: torch.device | None = None

    @cached_property
    def model_name(self) -> str:
        """The model's name and architecture, known before the engine is started."""
        return name_of(self._checkpoint, read_json(self._checkpoint / "config.json"))

    def details(self) -> dict[str, str]:
        """Where and in which arithmetic the model runs; see :meth:`VlmEngine.details`."""
        place = {"device": str(self._device or self._device_name), "dtype": self._dtype}
        return place | ({"marker reuse": "on: depth is approximate"} if self._marker_reuse else {})

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
        except (ImportError, OSError) as error:  # OSError: a shared library of theirs is missing or another's
            raise EngineError(
                f"the transformers engine needs torch and transformers, which do not load ({error}); install them "
                "built for this machine's CUDA or for the CPU: `pip install torch 'transformers>=5' safetensors` "
                "(https://pytorch.org/get-started/locally)"
            ) from error
        if self._threads:
            torch.set_num_threads(self._threads)
        self._device = pick_device(self._device_name)
        config = load_config(self._checkpoint)
        if self._marker_reuse:
            from depthlm_ros.engines.hf_reuse import check_reusable

            check_reusable(config, self._attention)
        self._encoder = load_encoder(
            self._checkpoint, record, device=self._device, max_image_pixels=self._max_image_pixels
        )
        self._model = load_model(
            self._checkpoint, config, device=self._device, dtype=self._dtype, attention=self._attention
        )
        if self._model.generation_config.pad_token_id is None:
            self._model.generation_config.pad_token_id = self._encoder.tokenizer.pad_token_id
        if isinstance(self._encoder, AssembledEncoder):
            attend_by_segments(self._model)
        self._heads = heads_for(self._model, self._encoder)
        if self._marker_reuse:
            from depthlm_ros.engines.hf_reuse import MarkerReuse

            self._reuse = MarkerReuse(self._model, self._encoder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the model's memory, once a call that is under way has returned."""
        with self._lock:
            self._model = self._encoder = self._heads = self._reuse = None
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
        ``Finish.ERROR``; a batch that does not fit into GPU memory is tried again as two halves, once. While a
        batch is decoded, the next one is prepared in a thread, which has ended when this returns.

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

            shortcuts: Any = {"heads": self._heads, "reuse": self._reuse}
            call = BatchCall(self._model, self._encoder, max_new_tokens, tuple(stop), late, **shortcuts)
            batches = self._batches(prompts)
            answers: list[Answer] = []
            with Ahead(call.prepare) as ahead:
                for number, batch in enumerate(batches):
                    if self._encoder.reentrant and len(batches) > 1:
                        ahead.want(batches[number : number + 2])
                    answers += self._answer(call, ahead, batch)
            return answers

    @property
    def images_at_once(self) -> int:
        """The most prompts that are run together where images are read for each of them."""
        on_cpu = self._device is not None and self._device.type == "cpu"
        return min(self._images_at_once or (CPU_IMAGES if on_cpu else self._batch_size), self._batch_size)

    def _batches(self, prompts: Sequence[Prompt]) -> list[list[Prompt]]:
        batches: list[list[Prompt]] = []
        own = 0
        for prompt in prompts:
            new = not self._shares_images(prompt)
            if not batches or len(batches[-1]) == self._batch_size or (new and own == self.images_at_once):
                batches.append([])
                own = 0
            batches[-1].append(prompt)
            own += new
        return batches

    def _shares_images(self, prompt: Prompt) -> bool:
        """Whether prompts like this one have the reading of their images in common."""
        marked = any(image.paint is not None for image in prompt.images)
        return not prompt.images or (self._reuse if marked else self._heads) is not None

    def cancel(self) -> None:
        """End a call that is under way in another thread; see :meth:`VlmEngine.cancel`."""
        self._cancelled.set()

    def _answer(
        self,
        call: BatchCall,
        ahead: Ahead[PreparedBatch],
        prompts: Sequence[Prompt],
        *,
        may_split: bool = True,
    ) -> list[Answer]:
        """Answer one batch, whatever happens to it."""
        if call.late():
            return [Answer("", finish=Finish.DEADLINE)] * len(prompts)
        try:
            return call.decode(ahead.get(prompts))
        except Exception as error:
            if not is_out_of_memory(error):
                self._raise_if_lost(error)
                level = self._level(type(error).__name__, logging.ERROR)
                _LOG.log(level, "a batch of %d prompts failed", len(prompts), exc_info=True)
                return [failed(error)] * len(prompts)
            failure = failed(error)
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
            for answer in self._answer(call, ahead, part, may_split=False)
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
