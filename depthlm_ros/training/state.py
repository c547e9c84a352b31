"""What a run needs to go on after it was interrupted: weights and optimiser memory, as plain tensors."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


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


def save_state(path: Path, progress: Progress, tensors: dict[str, Tensor]) -> None:
    """Write a state; a state that is there already is replaced only by a complete one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(plain, str(draft), metadata={"progress": json.dumps(asdict(progress))})
    os.replace(draft, path)


def load_state(path: Path) -> tuple[Progress, dict[str, Tensor]] | None:
    """Read a state, or None where there is none."""
    if not path.is_file():
        return None
    with safe_open(str(path), framework="pt") as file:
        progress = Progress(**json.loads(file.metadata()["progress"]))
        return progress, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
