"""What a run needs to go on after it was interrupted: weights and optimiser memory, as plain tensors."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from depthlm_ros.files import what_came
from depthlm_ros.training.config import TrainingConfig, TrainingConfigError, parse_config

_FREE = {
    "steps",
    "minutes",
    "evaluate_every",
    "save_every_s",
    "export_every_s",
    "calibration_queries",
    "render_processes",
}
_TEXT_ONLY = {"data.task_share", "data.motion_share", "data.pairs_seed", "data.train_pairs"}


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        stage: ``vision``, ``text`` or ``done``.
        step: Steps of the stage that are finished.
        done: Share of the stage that is finished.
        vision_s: Wall seconds spent in stage 1.
        text_s: Wall seconds spent in stage 2.
    """

    stage: str = "vision"
    step: int = 0
    done: float = 0.0
    vision_s: float = 0.0
    text_s: float = 0.0


def save_state(path: Path, progress: Progress, tensors: dict[str, Tensor], recipe: dict[str, Any]) -> None:
    """Write a state; a state that is there already is replaced only by a complete one.

    Args:
        path: The file.
        progress: Where the run stands.
        tensors: Weights and optimiser memory by name.
        recipe: The run's settings, to be compared when it goes on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    metadata = {"progress": json.dumps(asdict(progress)), "recipe": json.dumps(recipe)}
    save_file(plain, str(draft), metadata=metadata)
    os.replace(draft, path)


def load_state(path: Path, recipe: dict[str, Any] | None = None) -> tuple[Progress, dict[str, Tensor]] | None:
    """Read a state, or None where there is none.

    Args:
        path: The file.
        recipe: The settings with which the run is to go on, or None to only read. How long and how often may change;
            so may the text stage while the vision stage is not over.

    Raises:
        TrainingConfigError: The run was begun with other settings, or the file is no state.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise TrainingConfigError(f"{path}: expected the state of a run, but {what_came(error)}") from error
    if not {"progress", "recipe"} <= metadata.keys():
        raise TrainingConfigError(
            f"{path}: expected the state of a run, but it holds weights alone: name a run's state.safetensors"
        )
    progress = Progress(**json.loads(metadata["progress"]))
    if recipe is not None:
        _refuse_changes(path, json.loads(metadata["recipe"]), recipe, progress)
    return progress, tensors


def _refuse_changes(path: Path, begun: dict[str, Any], wanted: dict[str, Any], progress: Progress) -> None:
    # A state that is older than an option was made with the option's default.
    known = parse_config(TrainingConfig, begun, str(path))
    before, now = flat(asdict(known)), flat(wanted)
    changed = sorted(
        key for key in {*before, *now} if before.get(key) != now.get(key) and not _may_change(key, progress)
    )
    if changed:
        was = ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed)
        raise TrainingConfigError(
            f"{path} belongs to a run with other settings ({was}); give them as they were, or another --run"
        )


def flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested record under dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in record.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def _may_change(key: str, progress: Progress) -> bool:
    section, _, name = key.rpartition(".")
    if name in _FREE:
        return True
    return progress.stage == "vision" and (section == "text" or key in _TEXT_ONLY)
