"""What TensorRT-LLM can run: releases, architectures, quantised checkpoints. Looks at files only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.hf_checkpoint import check_directory, read_json

FIRST_RELEASE = (1, 0)
"""The oldest release that is used here: the first whose LLM API runs PyTorch models by default."""
LAST_READ = (1, 3)
"""The newest line that what is used here was read in, at a known release (``test/data/trtllm_facts.json``)."""

ARCHITECTURES = {
    "Qwen2VLForConditionalGeneration": FIRST_RELEASE,
    "Qwen2_5_VLForConditionalGeneration": FIRST_RELEASE,
    "Qwen3VLForConditionalGeneration": (1, 2),
}
"""Vision-language architectures of its PyTorch backend that this engine knows how to ask, and since when."""

QUANTIZATIONS = ("auto", "none", "fp8", "nvfp4", "awq")
"""What a checkpoint can be quantised to; ``auto`` takes it as it is."""

DTYPES = ("bfloat16", "float16")


def parse_release(version: str) -> tuple[int, int]:
    """Major and minor number of a version such as ``1.2.0rc2``.

    Raises:
        EngineError: It is none, or older than :data:`FIRST_RELEASE`.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise EngineError(
            f"expected a version of TensorRT-LLM such as 1.2.0, got {version!r}; install it anew"
        )
    release = int(match[1]), int(match[2])
    if release < FIRST_RELEASE:
        raise EngineError(
            f"TensorRT-LLM {version} is too old: its LLM API differs; install 1.0 or newer, or use engine.name "
            "openai with a server"
        )
    return release


def check_checkpoint(checkpoint: Path, *, dtype: str, quantization: str) -> dict[str, Any]:
    """Check whether TensorRT-LLM could run a checkpoint with these settings, by its files.

    Returns:
        Its ``config.json``.

    Raises:
        EngineError: It cannot; the message says why and what can.
    """
    config = check_directory(checkpoint)
    architecture = str((config.get("architectures") or ["(none)"])[0])
    if "pixtral" in (architecture.lower(), str((config.get("vision_config") or {}).get("model_type"))):
        raise EngineError(
            f"{checkpoint} is a Pixtral model ({architecture}), which TensorRT-LLM's PyTorch backend does not run; "
            "serve it with vLLM (`vllm serve DIR`) and set engine.name openai, or use engine.name transformers"
        )
    if architecture not in ARCHITECTURES:
        raise EngineError(
            f"{checkpoint} is a {architecture}; through TensorRT-LLM this engine asks only "
            f"{', '.join(ARCHITECTURES)}; use engine.name transformers, or openai with a server that runs it"
        )
    if dtype not in DTYPES:
        raise EngineError(
            f"engine.dtype: TensorRT-LLM's attention kernels take {' or '.join(DTYPES)}, got {dtype!r}; "
            "set engine.dtype bfloat16"
        )
    found = quantization_of(checkpoint, config)
    if quantization not in ("auto", found):
        raise EngineError(
            f"engine.quantization is {quantization!r} but {checkpoint} is {found!r}; TensorRT-LLM takes a checkpoint "
            "as it was quantised: name one made with NVIDIA ModelOpt for it, or set engine.quantization auto"
        )
    return config


def check_release(architecture: str, version: str) -> str:
    """Check whether a release runs an architecture of :data:`ARCHITECTURES`.

    Returns:
        A remark for people; empty without one.

    Raises:
        EngineError: It does not.
    """
    release, since = parse_release(version), ARCHITECTURES[architecture]
    if release < since:
        raise EngineError(
            f"TensorRT-LLM {version} does not run {architecture}; install {since[0]}.{since[1]} or newer"
        )
    if release > LAST_READ:
        return f"newer than what was read for this engine ({LAST_READ[0]}.{LAST_READ[1]})"
    return ""


def quantization_of(checkpoint: Path, config: dict[str, Any]) -> str:
    """One of :data:`QUANTIZATIONS` but ``auto``, or the algorithm's own name where it is another.

    Read from ModelOpt's ``hf_quant_config.json``, else from ``quantization_config`` in ``config.json``.
    """
    own = read_json(checkpoint / "hf_quant_config.json").get("quantization") or {}
    other = config.get("quantization_config") or {}
    algorithm = str(own.get("quant_algo") or other.get("quant_algo") or other.get("quant_method") or "none")
    lower = algorithm.lower()
    for name in ("nvfp4", "awq", "fp8"):
        if name in lower:
            return name
    return lower


def end_ids(checkpoint: Path, tokenizer: Any) -> frozenset[int]:
    """Token ids that end an answer: the tokenizer's, and those of ``generation_config.json``."""
    named = read_json(checkpoint / "generation_config.json").get("eos_token_id")
    ids = [named] if isinstance(named, int) else (named or [])
    return frozenset((*ids, tokenizer.eos_token_id)) - {None}
