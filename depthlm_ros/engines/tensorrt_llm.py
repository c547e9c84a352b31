"""The ``tensorrt_llm`` engine: TensorRT-LLM's LLM API in a supervised process of its own.

Neither TensorRT-LLM nor what it brings (MPI, CUDA, pinned versions) is ever imported into this process.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import depthlm_ros
from depthlm_ros.engines.base import Answer, EngineError, Prompt
from depthlm_ros.engines.hf_checkpoint import name_of, read_json
from depthlm_ros.engines.trtllm_support import check_checkpoint
from depthlm_ros.engines.worker_limits import Limits
from depthlm_ros.engines.worker_supervisor import Supervisor

_LAUNCH = """
import importlib.util, sys
sys.path[:] = [place for place in sys.path if place]
spec = importlib.util.spec_from_file_location("depthlm_ros", {init!r})
sys.modules["depthlm_ros"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from depthlm_ros.engines.trtllm_backend import main
main()
"""
"""Makes this very package, and nothing beside it, importable for another Python with pins of its own."""


@dataclass(frozen=True)
class TensorRTSettings:
    """How TensorRT-LLM runs a checkpoint; the meaning of each is in ``config_engine.py``."""

    checkpoint: Path
    dtype: str = "bfloat16"
    batch_size: int = 32
    quantization: str = "auto"
    memory_fraction: float = 0.5
    block_reuse: bool = True
    worker_python: str = ""
    limits: Limits = field(default_factory=Limits)


class TensorRTEngine:
    """A :class:`VlmEngine` whose model lives in a worker process; see ``docs/engines.md``.

    A worker that crashes or hangs is started anew, in the background, with growing pauses. A call that it was working
    on keeps what was answered, and the rest is ``Finish.ERROR``; the next one waits for the new worker until its
    deadline.

    Args:
        settings: Which checkpoint, and how it runs.
    """

    def __init__(self, settings: TensorRTSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._supervisor: Supervisor | None = None

    @cached_property
    def model_name(self) -> str:
        """The model's name and architecture, known before the engine is started."""
        checkpoint = self._settings.checkpoint
        return name_of(checkpoint, read_json(checkpoint / "config.json"))

    def details(self) -> dict[str, str]:
        """Settings, versions, and how the worker is; see :meth:`VlmEngine.details`."""
        settings, supervisor = self._settings, self._supervisor
        found = {"dtype": settings.dtype, "block_reuse": str(settings.block_reuse).lower()}
        return found | (supervisor.details() if supervisor is not None else {})

    def __enter__(self) -> TensorRTEngine:
        """Start the worker and wait until the model is loaded and has answered.

        Raises:
            EngineError: It cannot start; the message says what to do.
        """
        settings = self._settings
        config = check_checkpoint(
            settings.checkpoint, dtype=settings.dtype, quantization=settings.quantization
        )
        if not settings.worker_python and find_spec("tensorrt_llm") is None:
            raise EngineError(
                "tensorrt_llm is not installed for this Python; install it into a virtual environment of its own and "
                "name that one's python in engine.worker_python, or use engine.name openai with trtllm-serve "
                "(`depthlm engine check` says more)"
            )
        command = _LAUNCH.format(init=depthlm_ros.__file__)
        self._supervisor = Supervisor(
            (settings.worker_python or sys.executable, "-u", "-c", command),
            {
                "checkpoint": str(settings.checkpoint.resolve()),
                "architecture": config["architectures"][0],
                "dtype": settings.dtype,
                "batch_size": settings.batch_size,
                "memory_fraction": settings.memory_fraction,
                "block_reuse": settings.block_reuse,
            },
            at_once=settings.batch_size,
            limits=settings.limits,
        )
        try:
            self._supervisor.start()
        except BaseException:
            self._supervisor = None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the worker and all that it started, within about a second and a half, also while it answers."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.stop()

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        deadline: float | None = None,
    ) -> list[Answer]:
        """Answer every prompt greedily; see :meth:`VlmEngine.generate`.

        Raises:
            EngineError: The engine is not started, the worker crashed before it answered anything, or it could not be
                started anew before the deadline.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected 1 or more, got {max_new_tokens}")
        with self._lock:
            if self._supervisor is None:
                raise EngineError("the engine is not started; use it in a with statement")
            return self._supervisor.call(prompts, max_new_tokens=max_new_tokens, stop=stop, deadline=deadline)

    def cancel(self) -> None:
        """End a call that is under way in another thread; see :meth:`VlmEngine.cancel`."""
        if self._supervisor is not None:
            self._supervisor.cancel()
