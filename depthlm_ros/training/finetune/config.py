"""Every option of a fine-tuning run, SFT and GRPO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from depthlm_ros.config_options import ConfigError, Section, option
from depthlm_ros.training.finetune.options import build, read_yaml, with_settings

RECIPES = ("embedded", "sft", "grpo")


@dataclass(frozen=True)
class LabelledSet(Section):
    """A data set in DepthLM benchmark format (:mod:`depthlm_ros.evaluation.benchmark`)."""

    labels: str = option("", "The .jsonl file.")
    images: str = option("", "Directory that its image paths start from.")
    weight: float = option(1.0, "Share of the samples, relative to the other sets.", low=1e-9, high=1e9)
    labels_per_image: int = option(1, "Labels of an image that are used; 0 uses all.", low=0, high=1_000_000)
    redraw: bool = option(
        False,
        "Draw those labels anew in each pass over the set, so that in the end all are used; "
        "else the seed fixes them for the run.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.labels or not self.images:
            raise ConfigError("a data set needs labels (a .jsonl file) and images (a directory)")


@dataclass(frozen=True)
class AugmentConfig(Section):
    """How a canonical view is varied; its focal length never changes (intrinsic-conditioned augmentation).

    The defaults are the official training script's, whose canonical focal length is 1000 px: crops of random size
    around the middle of the view.
    """

    crop_width_px: tuple[int, ...] = option(
        (1000, 1400),
        "Least and most width of the random crop of the canonical view; 0, 0 does not crop.",
        unit="px",
    )
    crop_height_px: tuple[int, ...] = option((700, 1200), "Least and most height; as the width.", unit="px")
    crop_place: str = option(
        "centre",
        "Where the crop lies: in the middle of the view, and labels outside are left out; or anywhere that holds "
        "the label's pixel.",
        choices=("centre", "anywhere"),
    )
    flip_share: float = option(0.0, "Share of views that are mirrored, before the arrow.", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_width_px", "crop_height_px"):
            value = getattr(self, name)
            if len(value) != 2 or not (0 < value[0] <= value[1] or value == (0, 0)):
                raise ConfigError(f"{name}: expected least, most, both above 0 or both 0; got {list(value)}")


@dataclass(frozen=True)
class ModelConfig(Section):
    """Which checkpoint is tuned, and what of it."""

    checkpoint: str = option("embedded", "Directory of a Hugging Face checkpoint, or 'embedded'.")
    profile: str = option(
        "",
        "Built-in profile, or a directory with a depthlm.json, to train; empty takes the checkpoint's own.",
    )
    tune: str = option(
        "lora", "LoRA adapters (merged in the export), or all weights.", choices=("lora", "full")
    )
    lora_rank: int = option(64, "Rank of the adapters.", low=1, high=4096)
    lora_alpha: float = option(128.0, "The adapters are scaled by alpha / rank.", low=1e-6, high=1e6)
    lora_dropout: float = option(0.0, "Dropout before the adapters.", low=0.0, high=0.9)
    freeze_vision: bool = option(False, "Leave the vision tower, with its merger or projector, as it is.")
    gradient_checkpointing: bool = option(True, "Recompute activations in the backward pass to save memory.")
    weights: str = option(
        "float32", "Type in which the weights are held; bfloat16 halves the memory of frozen ones.",
        choices=("float32", "bfloat16"),
    )  # fmt: skip
    arithmetic: str = option(
        "bfloat16", "Type in which forward and backward are computed.", choices=("float32", "bfloat16")
    )
    attention: str = option(
        "sdpa", "Attention implementation.", choices=("sdpa", "eager", "flash_attention_2")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tune == "full" and self.weights != "float32":
            raise ConfigError(
                "weights: bfloat16 is too coarse for the small steps of full fine-tuning; use float32 weights with "
                "arithmetic bfloat16"
            )
        if self.weights == "bfloat16" and self.arithmetic == "float32":
            raise ConfigError("arithmetic: float32 needs float32 weights; the weights are bfloat16")


@dataclass(frozen=True)
class OptimiserConfig(Section):
    """AdamW on a cosine with linear warm-up. The defaults are those of the official training script."""

    learning_rate: float = option(1e-5, "Peak rate.", low=0.0, high=10.0)
    warmup_share: float = option(0.1, "Share of the steps in which the rate rises.", low=0.0, high=1.0)
    final_lr_share: float = option(0.0, "Share of the peak rate at the end.", low=0.0, high=1.0)
    weight_decay: float = option(0.0, "Decay of matrices; norms and biases have none.", low=0.0, high=10.0)
    max_grad_norm: float = option(0.1, "Gradients are scaled down to this norm.", low=1e-9, high=1e9)


@dataclass(frozen=True)
class ValidationConfig(Section):
    """How the curve is measured: delta1 of greedy answers, asked as the engine asks."""

    labels: str = option("", "Held-out .jsonl file; empty leaves validation out.")
    images: str = option("", "Directory that its image paths start from.")
    limit: int = option(200, "Images that are used, from the start of the file.", low=1, high=10_000_000)
    every: int = option(500, "Optimiser steps between validations; the first is before training.", low=1)
    batch: int = option(16, "Queries answered at once.", low=1, high=4096)

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.labels) != bool(self.images):
            raise ConfigError("validation: give both labels and images, or neither")


@dataclass(frozen=True)
class RunConfig(Section):
    """How long, how large, where."""

    steps: int = option(1000, "Optimiser steps.", low=1, high=10**9)
    batch: int = option(1, "Sequences per device in one forward pass.", low=1, high=4096)
    accumulate: int = option(1, "Forward passes per optimiser step.", low=1, high=4096)
    device: str = option("auto", "Where to train; auto takes the GPUs there are.", choices=("auto", "cpu"))
    seed: int = option(0, "Seed of the data order, the augmentation and dropout.", low=0, high=2**31 - 1)
    workers: int = option(
        0, "Processes per device that prepare images; 0 does it in between.", low=0, high=256
    )
    log_every: int = option(10, "Optimiser steps between lines of metrics.jsonl.", low=1)
    save_every: int = option(500, "Optimiser steps between resumable states.", low=1)


@dataclass(frozen=True)
class FinetuneConfig(Section):
    """What both recipes have in common.

    Attributes:
        data: The training sets; at least one.
    """

    data: tuple[LabelledSet, ...] = ()
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise ConfigError("data: expected a list of one data set or more, each with labels and images")


@dataclass(frozen=True)
class SftConfig(FinetuneConfig):
    """Supervised fine-tuning on text answers."""


@dataclass(frozen=True)
class GroupConfig(Section):
    """What GRPO draws and how it is rewarded."""

    completions: int = option(8, "Answers that are drawn per prompt and compared.", low=2, high=1024)
    temperature: float = option(1.0, "Temperature of the draw.", low=0.01, high=10.0)
    penalty_m: float = option(
        10.0, "Error that counts for an answer without a usable number, and the most that any error counts.",
        unit="m", low=0.01, high=1e6,
    )  # fmt: skip


@dataclass(frozen=True)
class GrpoConfig(FinetuneConfig):
    """Reinforcement learning with the reward minus L1 error; see :class:`RunConfig`, whose batch counts answers."""

    group: GroupConfig = field(default_factory=GroupConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        answers = self.run.batch * self.run.accumulate
        if answers % self.group.completions:
            raise ConfigError(
                f"run.batch x run.accumulate is {answers} answers a step and device, which is no multiple of "
                f"group.completions ({self.group.completions}): whole groups are compared"
            )


def recipe_of(record: dict[str, Any], where: str) -> str:
    """The recipe that a file names under ``recipe``.

    Raises:
        ConfigError: It names none, or one that does not exist.
    """
    name = record.get("recipe")
    if name not in RECIPES:
        raise ConfigError(f"{where}: recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    return str(name)


def load_recipe(path: Path, settings: Sequence[str] = ()) -> SftConfig | GrpoConfig:
    """Read an SFT or GRPO recipe.

    Args:
        path: YAML file: ``recipe`` and the sections of :class:`SftConfig` or :class:`GrpoConfig`.
        settings: ``key=value`` each, over what the file says.

    Raises:
        ConfigError: Something is unknown or does not fit; the message names it.
    """
    record = with_settings(read_yaml(path), settings)
    kind = {"sft": SftConfig, "grpo": GrpoConfig}.get(recipe_of(record, str(path)))
    if kind is None:
        raise ConfigError(f"{path}: recipe: expected sft or grpo, got {record['recipe']!r}")
    sections = {name: value for name, value in record.items() if name != "recipe"}
    config: SftConfig | GrpoConfig = build(kind, sections, str(path))
    return config
