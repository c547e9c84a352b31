"""The result of a run as a checkpoint directory that the engine and ``depthlm eval --checkpoint`` read."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from depthlm_ros.profile import PROFILE_FILE
from depthlm_ros.training.finetune.config import ModelConfig
from depthlm_ros.training.finetune.model import Base, load_trainable
from depthlm_ros.training.finetune.state import STATE_FILE, load_weights

_COPIED = ("*.json", "*.jinja", "*.txt", "*.model")
_NOT_COPIED = ("model.safetensors.index.json", PROFILE_FILE, "training.json")


def export_run(config: ModelConfig, base: Base, recipe: dict[str, Any], run: Path) -> Path:
    """Write the model of a run's last saved state to ``run/export``: merged weights and all that a reader needs.

    The base is loaded anew and the state put over it, so that it does not matter over how many devices the model
    was spread. The profile loses what held of other weights: its calibration, since a confidence that was not
    measured is NaN, and its spatial tasks, since these recipes teach depth alone; their answers are computed from
    depths again. ``training.json`` says what the checkpoint was made from.

    Args:
        config: What of the base was tuned.
        base: What it was tuned from.
        recipe: The run's options.
        run: The run's directory, which holds its state.

    Returns:
        The checkpoint's directory.
    """
    directory = run / "export"
    directory.mkdir(parents=True, exist_ok=True)
    model = load_trainable(base, config)
    load_weights(run / STATE_FILE, model)
    if config.tune == "lora":
        model = model.merge_and_unload()
    model.to(torch.bfloat16).save_pretrained(str(directory))
    # After save_pretrained, whose spelling of the configuration older readers do not know: the shape is the base's.
    for pattern in _COPIED:
        for source in base.directory.glob(pattern):
            if source.name not in _NOT_COPIED:
                shutil.copyfile(source, directory / source.name)
    settings = json.loads((base.directory / "config.json").read_text(encoding="utf-8"))
    settings["torch_dtype" if "torch_dtype" in settings else "dtype"] = "bfloat16"
    _write(directory / "config.json", settings)
    profile = dataclasses.replace(base.profile, calibration=None, spatial_tasks=())
    _write(directory / PROFILE_FILE, dataclasses.asdict(profile))
    _write(directory / "training.json", {"base": base.directory.name, "recipe": recipe})
    return directory


def _write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
