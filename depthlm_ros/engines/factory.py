"""From a configuration to an engine. Only what the configured engine needs is imported."""

from __future__ import annotations

import os
from pathlib import Path

from depthlm_ros.config import EMBEDDED, EngineConfig
from depthlm_ros.engines.base import EngineError, VlmEngine

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
"""Where the checkpoints inside this package lie."""


def resolve_checkpoint(config: EngineConfig) -> Path:
    """Find the checkpoint directory that a configuration names.

    Args:
        config: Its ``checkpoint`` is a directory, or ``embedded`` for the one inside this package.

    Raises:
        EngineError: There is no such directory; the message says what to do.
    """
    if config.checkpoint == EMBEDDED:
        path, advice = CHECKPOINTS / EMBEDDED, "install the package whole, or name a checkpoint directory"
    else:
        path = Path(config.checkpoint).expanduser()
        advice = f"name the directory of a Hugging Face checkpoint, or {EMBEDDED!r}"
    if not path.is_dir():
        raise EngineError(f"engine.checkpoint {config.checkpoint!r}: {path} is not a directory; {advice}")
    return path


def create_engine(config: EngineConfig) -> VlmEngine:
    """Make the configured engine; entering it as a context manager starts it.

    Args:
        config: Which engine, and its settings.

    Raises:
        EngineError: The engine is unknown, or its checkpoint is not there.
    """
    if config.name == "openai":
        from depthlm_ros.engines.http_settings import settings_from

        try:
            from depthlm_ros.engines.openai import OpenAIEngine
        except ImportError as error:
            raise EngineError(
                f"the openai engine needs httpx and tenacity ({error}): `pip install httpx tenacity`"
            ) from error
        _refuse_foreign_profile(config)
        return OpenAIEngine(settings_from(config, os.environ, resolve_checkpoint(config)))
    if config.name == "transformers":
        from depthlm_ros.engines.transformers import TransformersEngine

        return TransformersEngine(
            resolve_checkpoint(config),
            device=config.device,
            dtype=config.dtype,
            batch_size=config.batch_size,
            threads=config.threads,
            marker_reuse=config.marker_reuse,
        )
    if config.name == "tensorrt_llm":
        from depthlm_ros.engines.tensorrt_llm import TensorRTEngine, TensorRTSettings
        from depthlm_ros.engines.worker_limits import Limits

        if config.device == "cpu":
            raise EngineError(
                "engine.device is 'cpu' but TensorRT-LLM runs on a GPU only; set engine.device auto "
                "(CUDA_VISIBLE_DEVICES chooses among several), or engine.name transformers"
            )
        return TensorRTEngine(
            TensorRTSettings(
                resolve_checkpoint(config),
                dtype=config.dtype,
                batch_size=config.batch_size,
                quantization=config.quantization,
                memory_fraction=config.memory_fraction,
                block_reuse=config.block_reuse,
                worker_python=config.worker_python,
                limits=Limits(config.start_timeout_s, config.silence_s, config.restarts),
            )
        )
    raise EngineError(
        f"engine.name: there is no engine {config.name!r}; use 'transformers', 'openai' or 'tensorrt_llm'"
    )


def _refuse_foreign_profile(config: EngineConfig) -> None:
    """A server's model is asked as a profile says; that of the embedded checkpoint fits no other model."""
    ours = config.checkpoint == EMBEDDED and not config.profile
    if ours and config.model and config.model.rstrip("/").rsplit("/", 1)[-1] != EMBEDDED:
        raise EngineError(
            f"engine.model is {config.model!r} but nothing says how it was trained to be asked: name its built-in "
            "profile in engine.profile (depthlm-3b, ...), or in engine.checkpoint a directory with its depthlm.json"
        )
