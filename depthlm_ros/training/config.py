"""Every setting of the embedded checkpoint's training, read from one YAML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from depthlm_ros.files import what_came

RECIPE = "embedded"
_CHOICES = {"pixel_reference": ("marker", "text"), "arithmetic": ("float32", "bfloat16")}


_MAY_BE_ZERO = {
    "minutes", "muon_lr", "muon_decay", "adam_lr", "warmup_steps", "train_seed", "validation_seed", "pairs_seed",
    "seed", "labels_per_view", "train_pairs", "steps", "save_every_s", "export_every_s",
}  # fmt: skip


class TrainingConfigError(ValueError):
    """The training configuration is wrong; the message names the key."""


def _check_numbers(config: Any) -> None:
    """Refuse numbers that mean nothing: shares outside 0 to 1, negative weights, counts and sizes of nothing."""
    for name, value in vars(config).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name.endswith("_share"):
            fits, wanted = 0.0 <= value <= 1.0, "0 to 1"
        elif name in _MAY_BE_ZERO or name.endswith("_weight"):
            fits, wanted = value >= 0.0, "0 or more"
        else:
            fits, wanted = value > 0.0, "more than 0"
        if not fits:
            raise TrainingConfigError(f"{name}: expected {wanted}, got {value}")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network: Qwen2.5-VL, small.

    Attributes:
        patch_px: Side of a vision patch in pixels; four patches merge into one image token.
        vision_width: Channels of the vision tower.
        vision_layers: Blocks of the vision tower, all with full attention.
        vision_heads: Attention heads of the vision tower.
        vision_mlp: Hidden channels of the tower's feed-forward part.
        text_width: Channels of the language model, and of the merged image tokens.
        text_layers: Layers of the language model.
        text_heads: Attention heads of the language model.
        text_mlp: Hidden channels of the language model's feed-forward part.
        rope_theta: Base of the language model's rotary positions; small, since sequences are short.
    """

    patch_px: int = 8
    vision_width: int = 96
    vision_layers: int = 4
    vision_heads: int = 2
    vision_mlp: int = 256
    text_width: int = 160
    text_layers: int = 4
    text_heads: int = 5
    text_mlp: int = 432
    rope_theta: float = 50.0

    def __post_init__(self) -> None:
        _check_numbers(self)


@dataclass(frozen=True)
class DataConfig:
    """What is rendered, and how it is varied.

    Attributes:
        canonical_focal_px: Focal length of every view in pixels.
        train_views: Views in the training cache.
        robot_share: Share of the training views that come from the robot domain; the rest is the wide one.
        train_seed: First scene seed of the training views.
        validation_seed: First scene seed of the validation views (curves and calibration).
        validation_views: Validation views per domain.
        render_processes: Processes that render the cache.
        min_depth_m: Nearest depth that is asked about.
        max_depth_m: Farthest depth that is asked about.
        crop_share: Share of training batches that are random crops of the canonical views (the paper's
            augmentation); the others are whole views, which is what the finished model sees.
        fill_grid: Whether views whose sides are no whole image tokens are filled up with black, as the export's
            profile then asks for (``patch_grid_px``), and not resized by the image processor. Training views then
            lose up to a token's side, as cameras' views have any size.
        look_share: Share of training views whose exposure, colour, sharpness, noise or compression is changed.
        labels_per_view: Pixels per training view, and per its mirror image, that are ever asked about; 0 for all.
            Needs ``crop_share`` 0.
        task_share: Share of the text stage's batches that ask the spatial tasks about points.
        motion_share: Share of the text stage's batches that ask for the camera's motion between two views.
        pairs_seed: First scene seed of the pairs of views for that.
        train_pairs: Pairs of views, half robot and half wide domain.
    """

    canonical_focal_px: float = 112.0
    train_views: int = 40000
    robot_share: float = 0.7
    train_seed: int = 1_000_000
    validation_seed: int = 8_000_000
    validation_views: int = 800
    render_processes: int = 2
    min_depth_m: float = 0.1
    max_depth_m: float = 80.0
    crop_share: float = 0.2
    fill_grid: bool = False
    look_share: float = 0.5
    labels_per_view: int = 0
    task_share: float = 0.0
    motion_share: float = 0.0
    pairs_seed: int = 7_000_000
    train_pairs: int = 0

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.labels_per_view and (self.crop_share > 0.0 or self.fill_grid):
            raise TrainingConfigError(
                f"data.labels_per_view {self.labels_per_view} needs data.crop_share 0 and data.fill_grid false, got "
                f"{self.crop_share} and {self.fill_grid}: which pixels a crop asks about depends on where it lies"
            )


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        steps: Optimiser steps.
        minutes: Wall minutes after which the stage ends even if steps are left; the rates then fall with the
            clock. 0 sets no limit, and only then does a seed fix the result.
        batch: Views per step.
        muon_lr: Peak rate of the matrices (Muon).
        muon_decay: Weight decay of the matrices, times the rate per step; their spectral norms stay below about
            its inverse.
        adam_lr: Peak rate of everything else (AdamW).
        warmup_steps: Steps of linear warm-up.
        final_lr_share: Share of the peak rate that the cosine ends at.
        frozen_share: Share of the stage at its start with the vision tower frozen (text stage only).
        tower_lr_share: Rate of the vision tower relative to the rest once it moves (text stage only).
        pointing_weight: Weight of "which image token does the arrow point at".
        pointed_weight: Weight of the depth at the pointed pixel.
        dense_weight: Weight of the dense depth loss.
        median_share: Share of the depth answers that teach the median that the tower itself reads at the pixel, and
            not the label (text stage only). Greedy decoding says the likeliest digits; of a model that is not sure
            these are not the median, which is the better guess. The labels' share keeps the probability meaningful.
        evaluate_every: Steps between validations.
    """

    steps: int
    minutes: float = 0.0
    batch: int = 48
    muon_lr: float = 0.015
    muon_decay: float = 0.2
    adam_lr: float = 2e-3
    warmup_steps: int = 100
    final_lr_share: float = 0.02
    frozen_share: float = 0.0
    tower_lr_share: float = 1.0
    pointing_weight: float = 0.2
    pointed_weight: float = 0.3
    dense_weight: float = 1.0
    median_share: float = 0.0
    evaluate_every: int = 400

    def __post_init__(self) -> None:
        _check_numbers(self)


@dataclass(frozen=True)
class TrainingConfig:
    """The whole recipe.

    Attributes:
        seed: Seed of the weights and of every batch.
        workers: Processes, of one thread each; each takes its share of a batch.
        model: The network.
        data: The views.
        vision: Stage 1, the vision tower on dense rendered depth.
        text: Stage 2, the whole model on text answers.
        base: Directory of a checkpoint of this recipe whose weights the run starts from; empty starts from nothing.
        pixel_reference: How depth questions name their pixel: ``marker`` or ``text``.
        depth_bins: Log-depth bins of the training-only heads.
        save_every_s: Seconds between resumable states.
        export_every_s: Seconds between exports of the unfinished model (text stage).
        arithmetic: Type of the matrix products: ``float32``, or ``bfloat16`` through autocast (weights, sums between
            blocks and losses stay float32), faster on CPUs with AVX512-BF16 and no faster on others.
        compile: Whether the tower's blocks are compiled (about a sixth faster; needs a C++ compiler, and the
            digits then differ a little from those without).
        calibration_queries: Validation queries that the confidence is fitted on.
        direct_tasks: Whether the export names the spatial tasks that it was trained for, to be answered in its words;
            else all follow from its depths by geometry.
    """

    vision: StageConfig
    text: StageConfig
    seed: int = 20260
    workers: int = 2
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    base: str = ""
    pixel_reference: str = "marker"
    depth_bins: int = 48
    save_every_s: float = 120.0
    export_every_s: float = 900.0
    arithmetic: str = "float32"
    compile: bool = False
    calibration_queries: int = 1600
    direct_tasks: bool = True

    def __post_init__(self) -> None:
        _check_numbers(self)
        for name in ("vision", "text"):
            if (batch := getattr(self, name).batch) % self.workers:
                raise TrainingConfigError(
                    f"{name}.batch: expected a multiple of workers ({self.workers}), got {batch}"
                )
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise TrainingConfigError(f"{name}: expected {' or '.join(choices)}, got {value!r}")

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for the record beside the checkpoint."""
        return asdict(self)


def load_training_config(path: Path) -> TrainingConfig:
    """Read the recipe.

    Args:
        path: A YAML file whose keys are the fields of :class:`TrainingConfig`.

    Raises:
        TrainingConfigError: A key is unknown or missing, or a value has the wrong type.
    """
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TrainingConfigError(f"{path}: expected a recipe as YAML, but {what_came(error)}") from error
    if isinstance(record, dict) and record.pop("recipe", RECIPE) != RECIPE:
        raise TrainingConfigError(f"{path}: recipe: expected {RECIPE!r} here; depthlm train reads the others")
    config: TrainingConfig = parse_config(TrainingConfig, record, str(path))
    return config


def parse_config(kind: Any, record: Any, where: str) -> Any:
    """Build one configuration dataclass from a mapping, refusing what it does not know.

    Raises:
        TrainingConfigError: A key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(record, dict):
        raise TrainingConfigError(f"{where}: expected a mapping, got {type(record).__name__}")
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(record) - set(known))
    if unknown:
        raise TrainingConfigError(f"{where}: unknown keys {unknown}; the known ones are {known}")
    values: dict[str, Any] = {}
    for name, value in record.items():
        here = f"{where}: {name}"
        if is_dataclass(hints[name]):
            values[name] = parse_config(hints[name], value, here)
        elif hints[name] is bool:
            if not isinstance(value, bool):
                raise TrainingConfigError(f"{here}: expected true or false, got {value!r}")
            values[name] = value
        elif hints[name] is str:
            if not isinstance(value, str):
                raise TrainingConfigError(f"{here}: expected a text, got {value!r}")
            values[name] = value
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise TrainingConfigError(f"{here}: expected a number, got {value!r}")
        elif hints[name] is int and not isinstance(value, int):
            raise TrainingConfigError(f"{here}: expected a whole number, got {value!r}")
        else:
            values[name] = hints[name](value)
    try:
        return kind(**values)
    except TrainingConfigError as error:
        raise TrainingConfigError(f"{where}: {error}") from error
    except TypeError as error:
        raise TrainingConfigError(f"{where}: {error}; the keys are {known}") from error
