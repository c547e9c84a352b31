"""Loads a Hugging Face checkpoint directory: safetensors only, no code of the checkpoint, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthlm_ros.engines.base import EngineError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or an empty one where the file is missing.

    Raises:
        EngineError: The file is there but is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read as JSON ({error}); copy the checkpoint again") from error
    if not isinstance(record, dict):
        raise EngineError(f"{path}: expected a JSON object, got {type(record).__name__}")
    return record


def check_directory(checkpoint: Path) -> dict[str, Any]:
    """Check that a directory is a checkpoint that may be loaded, without importing torch.

    Args:
        checkpoint: The checkpoint directory.

    Returns:
        Its ``config.json``.

    Raises:
        EngineError: It is no such directory; the message says what to do.
    """
    if not checkpoint.is_dir():
        raise EngineError(
            f"the checkpoint directory {checkpoint} does not exist; give a local directory in Hugging Face "
            "format (download one with `hf download REPO --local-dir DIR`)"
        )
    config = read_json(checkpoint / "config.json")
    if not config:
        raise EngineError(
            f"{checkpoint} has no config.json; point at the directory that holds config.json, the tokenizer "
            "and *.safetensors"
        )
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        if "auto_map" in read_json(checkpoint / name):
            raise EngineError(
                f"{checkpoint / name} asks to run Python code from the checkpoint (auto_map), which is never "
                "done; use a checkpoint of an architecture that transformers itself implements"
            )
    if not config.get("model_type"):
        raise EngineError(
            f"{checkpoint / 'config.json'} has no model_type; it is not a transformers checkpoint"
        )
    _check_weights(checkpoint)
    return config


def _check_weights(checkpoint: Path) -> None:
    weights = sorted(checkpoint.glob("*.safetensors"))
    if not weights:
        pickles = sorted(
            p.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in checkpoint.glob(kind)
        )
        if pickles:
            raise EngineError(
                f"{checkpoint} has its weights only as pickles ({', '.join(pickles[:3])}), which can run code "
                "when loaded and are refused; load them where you trust them and save them again with "
                "model.save_pretrained(DIR), which writes safetensors"
            )
        raise EngineError(
            f"{checkpoint} holds no weights; expected model.safetensors or shards with an index"
        )
    index = read_json(checkpoint / "model.safetensors.index.json").get("weight_map", {})
    absent = sorted(set(index.values()) - {path.name for path in weights})
    if absent:
        raise EngineError(f"{checkpoint} lacks {', '.join(absent)}, which its index names; download it again")
    for path in weights:
        with path.open("rb") as file:
            if file.read(40).startswith(b"version https://git-lfs"):
                raise EngineError(f"{path} is a git-lfs pointer, not weights; run `git lfs pull`")


def name_of(checkpoint: Path, config: dict[str, Any]) -> str:
    """A short name: the model's own where the configuration has one, else the directory's; and the architecture."""
    origin = str(config.get("_name_or_path") or "")
    # A path of the machine that it was trained on says nothing here; "owner/name" does.
    own = origin if origin.count("/") == 1 and origin[0] not in "/.~" else checkpoint.resolve().name
    architectures = config.get("architectures") or [config.get("model_type", "unknown")]
    return f"{own} ({architectures[0]})"


def pick_device(device: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that is there.

    Raises:
        EngineError: The name is unknown, or CUDA was asked for and there is none.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, _, index = device.partition(":")
    if name not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise EngineError(f"device: expected auto, cpu, cuda or cuda:N, got {device!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            f"device {device!r} was asked for but torch {torch.__version__} finds no CUDA GPU; check "
            "`nvidia-smi` and that torch is a CUDA build, or set device to cpu"
        )
    if name == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise EngineError(f"device {device!r}: there are only {torch.cuda.device_count()} CUDA devices")
    return torch.device(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the CPU or the GPU ran out of memory."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def load_config(checkpoint: Path) -> Any:
    """Read the configuration of a checkpoint that :func:`check_directory` accepted.

    Raises:
        EngineError: This transformers does not implement its architecture as an image-text-to-text model.
    """
    import transformers
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        if "does not recognize this architecture" in str(error):
            raise EngineError(
                f"transformers {transformers.__version__} does not know the architecture of {checkpoint}; upgrade "
                "transformers or use another checkpoint"
            ) from error
        raise EngineError(
            f"{checkpoint / 'config.json'} is wrong: {type(error).__name__}: {error}"
        ) from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise EngineError(
            f"{checkpoint}: {config.model_type!r} is no image-text-to-text model in transformers "
            f"{transformers.__version__}; use a vision-language checkpoint such as Qwen2.5-VL"
        )
    return config


def load_model(checkpoint: Path, config: Any, *, device: torch.device, dtype: str, attention: str) -> Any:
    """Load the weights of a checkpoint.

    Args:
        checkpoint: The checkpoint directory.
        config: What :func:`load_config` read.
        device: Where the model is to live.
        dtype: One of :data:`DTYPES`; every parameter has it afterwards.
        attention: The attention implementation, as transformers names it.

    Returns:
        The model, in evaluation mode, with its generation defaults replaced by plain greedy decoding.

    Raises:
        EngineError: Weights are missing or do not fit, or memory ran out.
    """
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging as hf_logging

    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()  # put back below: nothing of transformers stays changed
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            checkpoint,
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        # transformers fills what a file lacks with random numbers and only warns; that would be random depth.
        wrong = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
        if wrong:
            raise EngineError(
                f"{checkpoint}: {len(wrong)} weights are missing or have the wrong shape (first: {wrong[0]}); "
                "the files do not belong to this config.json or the download is incomplete"
            )
        model = model.to(device).eval()
    except EngineError:
        raise
    except Exception as error:
        raise _explain(error, checkpoint, device, dtype) from error
    finally:
        if bars:
            hf_logging.enable_progress_bar()
    others = {p.dtype for p in model.parameters() if p.is_floating_point()} - {getattr(torch, dtype)}
    if others:
        raise EngineError(
            f"{checkpoint}: asked for {dtype}, but some weights stayed {sorted(map(str, others))}"
        )
    _greedy(model)
    return model


def _explain(error: Exception, checkpoint: Path, device: torch.device, dtype: str) -> EngineError:
    if is_out_of_memory(error):
        return EngineError(
            f"out of memory while loading {checkpoint} as {dtype} on {device}; use a smaller dtype (bfloat16), "
            f"free memory, or a smaller checkpoint ({error})"
        )
    return EngineError(f"{checkpoint} cannot be loaded on {device}: {type(error).__name__}: {error}")


def _greedy(model: Any) -> None:
    """Replace the checkpoint's generation defaults by greedy decoding.

    ``generate`` fills whatever its caller leaves unset from the checkpoint's ``generation_config.json``; that
    of Qwen2.5-VL sets sampling and a repetition penalty of 1.05, which changes the digits.
    """
    from transformers import GenerationConfig

    old, text = model.generation_config, model.config.get_text_config()
    values = {}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(old, name, None)
        values[name] = value if value is not None else getattr(text, name, None)
    model.generation_config = GenerationConfig(do_sample=False, **values)
