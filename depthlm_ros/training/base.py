"""The checkpoint that a run of the embedded recipe starts from, where it does not start from nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from depthlm_ros.training.answering import load_checkpoint
from depthlm_ros.training.config import TrainingConfigError
from depthlm_ros.training.export import RECORD_FILE

_WEIGHTS = "model.safetensors"


@torch.no_grad()
def take_weights(model: Any, checkpoint: Path) -> None:
    """Fill a model with the weights of an exported checkpoint.

    Args:
        model: The model; its shape must be the checkpoint's.
        checkpoint: The checkpoint's directory.

    Raises:
        TrainingConfigError: There is none, or it has another shape.
    """
    _check_weights(checkpoint)
    found = dict(load_checkpoint(checkpoint)[0].named_parameters())
    own = dict(model.named_parameters())
    if more := sorted(set(found) - set(own)):
        raise TrainingConfigError(
            f"base: {checkpoint} holds {more[0]} and {len(more) - 1} more the model has no place for: make "
            "`model` in the recipe that of the base"
        )
    for name, parameter in own.items():
        have = tuple(found[name].shape) if name in found else None
        if have != tuple(parameter.shape):
            raise TrainingConfigError(
                f"base: {checkpoint} holds {name} of shape {have}, not {tuple(parameter.shape)}: make `model` in the "
                "recipe that of the base"
            )
        parameter.copy_(found[name])


def base_record(base: str) -> dict[str, Any] | None:
    """The weights that a run started from, and how they came to be; None for a run from nothing.

    Raises:
        TrainingConfigError: There are none.
    """
    if not base:
        return None
    weights = _check_weights(Path(base))
    path = Path(base) / RECORD_FILE
    made = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return {"sha256": digest} | {key: made.get(key) for key in ("wall_minutes", "recipe", "base")}


def _check_weights(checkpoint: Path) -> Path:
    path = checkpoint / _WEIGHTS
    if not path.is_file():
        raise TrainingConfigError(f"base: {path} is not there; name the directory of an exported checkpoint")
    return path
