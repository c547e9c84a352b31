"""The model of a run: a checkpoint, what of it moves, and how it is optimised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from depthlm_ros.config import EngineConfig
from depthlm_ros.engines.factory import resolve_checkpoint
from depthlm_ros.engines.hf_checkpoint import check_directory, load_config, load_model
from depthlm_ros.engines.hf_processor import load_encoder
from depthlm_ros.profile import CheckpointProfile, load_profile
from depthlm_ros.training.finetune.config import ModelConfig, OptimiserConfig

_VISION = ("visual.", "vision_tower.", "multi_modal_projector.")
"""How Qwen's and Pixtral's modules that see are called."""


@dataclass(frozen=True)
class Base:
    """The checkpoint that a run starts from.

    Attributes:
        directory: Where it lies.
        profile: What it is trained to be asked.
        encoder: The engine's encoder of it, on the CPU.
    """

    directory: Path
    profile: CheckpointProfile
    encoder: Any


def open_base(config: ModelConfig) -> Base:
    """Find the checkpoint and load all of it but the weights.

    Raises:
        EngineError: It is no checkpoint that can be loaded.
        ProfileError: It has no profile, and the configuration names none.
    """
    directory = resolve_checkpoint(EngineConfig(checkpoint=config.checkpoint))
    record = check_directory(directory)
    if config.profile and Path(config.profile).is_dir():
        profile = load_profile(Path(config.profile))
    else:
        profile = load_profile(directory, config.profile)
    encoder = load_encoder(directory, record, device=torch.device("cpu"), max_image_pixels=None)
    return Base(directory, profile, encoder)


def load_trainable(base: Base, config: ModelConfig) -> Any:
    """Load the weights on the CPU and prepare them for training.

    Raises:
        EngineError: They cannot be loaded.
    """
    model = load_model(
        base.directory,
        load_config(base.directory),
        device=torch.device("cpu"),
        dtype=config.weights,
        attention=config.attention,
    )
    return prepare_model(model, config)


def prepare_model(model: Any, config: ModelConfig) -> Any:
    """Add the adapters, freeze what is to stay, and switch on gradient checkpointing.

    Args:
        model: A Hugging Face vision-language model; it may be on the meta device.
        config: What of it is tuned.

    Returns:
        The model itself, or a peft model around it.
    """
    if config.tune == "lora":
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,  # type: ignore[arg-type,unused-ignore]  # annotated int, used as a float
            lora_dropout=config.lora_dropout,
            target_modules=adapted_modules(model, config.freeze_vision),
        )
        low_memory = any(p.is_meta for p in model.parameters())
        model = get_peft_model(model, settings, low_cpu_mem_usage=low_memory)
    elif config.freeze_vision:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not is_vision(name))
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def is_vision(name: str) -> bool:
    """Whether a module or parameter belongs to what sees."""
    return any(part in f"{name}." for part in _VISION)


def adapted_modules(model: nn.Module, freeze_vision: bool) -> list[str]:
    """The linear layers that get adapters: all but the output layer, and but the vision tower where it is frozen."""
    output = model.get_output_embeddings()  # type: ignore[operator]
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output and not (freeze_vision and is_vision(name))
    ]


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """AdamW over what moves; only matrices decay."""
    moving = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in moving if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in moving if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate)


def build_schedule(
    optimiser: torch.optim.Optimizer, config: OptimiserConfig, steps: int, done: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up and a cosine, as they stand after ``done`` of ``steps``."""
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    for group in optimiser.param_groups:
        group.setdefault("initial_lr", group["lr"])
    schedule: torch.optim.lr_scheduler.LRScheduler = get_cosine_with_min_lr_schedule_with_warmup(
        optimiser,
        num_warmup_steps=round(steps * config.warmup_share),
        num_training_steps=steps,
        last_epoch=done - 1,
        min_lr_rate=config.final_lr_share,
    )
    return schedule
