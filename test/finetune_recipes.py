"""Recipes small enough for tests."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from toy_labels import FOCAL_PX

from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.training.finetune.options import build

WHOLE = {"crop_width_px": [0, 0], "crop_height_px": [0, 0]}


def small_recipe(kind: Any, data: list[dict[str, Any]], **sections: dict[str, Any]) -> Any:
    """A recipe for the embedded checkpoint on the CPU; sections are laid over it."""
    record: dict[str, Any] = {
        "data": data,
        "augment": dict(WHOLE),
        "model": {"tune": "full", "arithmetic": "float32", "gradient_checkpointing": False},
        "optimiser": {"learning_rate": 1e-3, "max_grad_norm": 1.0},
        "run": {"steps": 4, "batch": 4, "device": "cpu", "log_every": 1, "save_every": 2},
    }
    for name, values in sections.items():
        record[name] = record.get(name, {}) | values
    return build(kind, record, "test")


def write_profile(folder: Path, **changes: Any) -> str:
    """A directory with a profile at the toy set's focal length."""
    folder.mkdir(parents=True, exist_ok=True)
    profile = dataclasses.replace(CheckpointProfile("tiny", FOCAL_PX, system="You help."), **changes)
    (folder / "depthlm.json").write_text(json.dumps(dataclasses.asdict(profile)), encoding="utf-8")
    return str(folder)


def records(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
