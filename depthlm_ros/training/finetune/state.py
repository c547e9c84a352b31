"""What a run needs to go on: what it has changed and the optimiser's memory, as safetensors; nothing is pickled.

The learning rate, the data and the random numbers follow from the step and the seed, so that they need no state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from depthlm_ros.config import ConfigError

STATE_FILE = "state.safetensors"
_MODEL, _OPTIMISER = "model.", "optimiser."


def save_state(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, step: int, recipe: dict[str, Any]
) -> None:
    """Write the state; one that is there is replaced only by a complete one.

    With several processes all must call this: the parts of a sharded model are gathered, and the first one writes.

    Args:
        path: The file.
        model: The model, wrapped or not.
        optimiser: Its optimiser.
        step: Optimiser steps that are finished.
        recipe: The run's options, to be compared when it goes on.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    moving = {name for name, p in _bare(model).named_parameters() if p.requires_grad}
    weights: dict[str, Any] = get_model_state_dict(model, options=options)
    memory: dict[str, Any] = get_optimizer_state_dict(model, optimiser, options=options)
    if int(os.environ.get("RANK", "0")):
        return
    tensors = {_MODEL + name: value for name, value in weights.items() if name in moving}
    for name, values in memory["state"].items():
        tensors |= {f"{_OPTIMISER}{kind}.{name}": value for kind, value in values.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    plain = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    save_file(plain, str(draft), metadata={"step": str(step), "recipe": json.dumps(recipe)})
    os.replace(draft, path)


def saved_step(path: Path, recipe: dict[str, Any]) -> int:
    """The steps that a saved run has finished; 0 where there is none.

    Raises:
        ConfigError: The run was begun with other options.
    """
    if not path.is_file():
        return 0
    with safe_open(str(path), framework="pt") as file:
        record = file.metadata()
    before, recipe = (dict(_leaves(json.loads(text))) for text in (record["recipe"], json.dumps(recipe)))
    changed = sorted(key for key in {*before, *recipe} if before.get(key) != recipe.get(key))
    if changed:
        was = ", ".join(f"{key} was {before.get(key)!r} and is {recipe.get(key)!r}" for key in changed)
        raise ConfigError(
            f"{path} belongs to a run with other options ({was}); give them as they were, or another --run directory"
        )
    return int(record["step"])


def step_seed(seed: int, step: int, process: int) -> int:
    """The seed of what one process draws in one step: answers, dropout."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1)[0])


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested record under its dotted name."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def load_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put a saved state into the model and its optimiser."""
    sharded = any(isinstance(p, DTensor) for p in model.parameters())
    options = StateDictOptions(
        full_state_dict=True, strict=False, ignore_frozen_params=True, broadcast_from_rank0=sharded
    )
    # The groups' settings (rates, decay) come from the recipe: those of the optimiser as it was just built.
    memory: dict[str, Any] = get_optimizer_state_dict(model, optimiser, options=options)
    weights: dict[str, Any] = {}
    if not (sharded and int(os.environ.get("RANK", "0"))):
        with safe_open(str(path), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                if key.startswith(_MODEL):
                    weights[key[len(_MODEL) :]] = file.get_tensor(key)
                else:
                    kind, name = key[len(_OPTIMISER) :].split(".", 1)
                    memory["state"][name][kind] = file.get_tensor(key)
    set_model_state_dict(model, weights, options=options)
    set_optimizer_state_dict(model, optimiser, memory, options=options)


def load_weights(path: Path, model: nn.Module) -> None:
    """Put a state's weights alone into a model that is on one device.

    Raises:
        ConfigError: The state belongs to another model.
    """
    with safe_open(str(path), framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(_MODEL)]  # noqa: SIM118 (not a dict)
        weights = {name[len(_MODEL) :]: file.get_tensor(name) for name in names}
    surplus = model.load_state_dict(weights, strict=False).unexpected_keys
    if surplus or not weights:
        raise ConfigError(f"{path} holds weights of another model (such as {surplus[:1]}); train it anew")


def _bare(model: nn.Module) -> nn.Module:
    """The model without the wrapper of data-parallel training."""
    inner = getattr(model, "module", None)
    return inner if isinstance(inner, nn.Module) else model
