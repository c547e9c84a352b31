"""Train the embedded checkpoint: ``depthlm train config/train_embedded.yaml``.

Renders what the cache lacks, trains both stages (taking up an interrupted run), exports, and calibrates on
validation scenes. How good the checkpoint is, is measured apart, by `depthlm eval` on scenes never seen here.
"""

from __future__ import annotations

import json
import platform
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from depthlm_ros.training.answering import ask, load_checkpoint, make_processor
from depthlm_ros.training.augment import Limits
from depthlm_ros.training.base import base_record
from depthlm_ros.training.calibrate import fit_calibration
from depthlm_ros.training.config import DataConfig, TrainingConfig, load_training_config
from depthlm_ros.training.curve import draw_curve
from depthlm_ros.training.distributed import launch
from depthlm_ros.training.export import (
    embedded_profile,
    export_checkpoint,
    write_profile,
    write_record,
)
from depthlm_ros.training.log import last_losses
from depthlm_ros.training.model import parameter_count
from depthlm_ros.training.pairs import PairCache, render_pairs, synthetic_pair
from depthlm_ros.training.questions import MARKER
from depthlm_ros.training.stages import Trainer
from depthlm_ros.training.validation import (
    Queries,
    held_out_queries,
    score,
    tower_score,
)
from depthlm_ros.training.views import Sampler, ViewCache, ViewSet, render_set, synthetic_view

_DOMAINS = ("robot", "wide")
_PAIRS = "train_pairs"
_CURVE_QUERIES = 240
_PARTIAL_QUERIES = 400


def view_sets(data: DataConfig) -> dict[str, ViewSet]:
    """The views of a recipe: training, and per domain validation."""
    focal = data.canonical_focal_px
    sets = {"train": ViewSet("train", data.train_seed, data.train_views, data.robot_share, focal)}
    for offset, domain in enumerate(_DOMAINS):
        share = 1.0 if domain == "robot" else 0.0
        seed, name = data.validation_seed + offset * 100_000, f"validation_{domain}"
        sets[name] = ViewSet(name, seed, data.validation_views, share, focal)
    return sets


def train(config_path: Path, run: Path, views: Path | None = None, output: Path | None = None) -> Path:
    """Make a checkpoint from nothing, or go on where ``run`` was interrupted.

    Args:
        config_path: The recipe, a YAML file.
        run: Folder of states and logs; made if missing.
        views: Folder of rendered views; None means ``run/views``.
        output: Where the checkpoint goes; None means ``run/export``.

    Returns:
        The checkpoint's directory.

    Raises:
        TrainingConfigError: The recipe is wrong.
    """
    config = load_training_config(config_path)
    views, output = views or run / "views", output or run / "export"
    base = base_record(config.base)
    sampler = partial(synthetic_view, focal_px=config.data.canonical_focal_px)
    prepare(config, views, sampler)
    run.mkdir(parents=True, exist_ok=True)
    launch(config.workers, work, config, run, views)
    finish(config, run, views, output, base)
    return output


def prepare(config: TrainingConfig, views: Path, sampler: Sampler) -> None:
    """Render the views and pairs that the cache lacks."""
    for view_set in view_sets(config.data).values():
        render_set(view_set, views, sampler, config.data.render_processes)
    data = config.data
    if data.train_pairs:
        pair_sampler = partial(synthetic_pair, focal_px=data.canonical_focal_px)
        render_pairs(
            views / _PAIRS,
            data.pairs_seed,
            data.train_pairs,
            data.canonical_focal_px,
            pair_sampler,
            data.render_processes,
        )


def train_pairs(config: TrainingConfig, views: Path) -> PairCache | None:
    """The pairs of views of a recipe, or None where it uses none."""
    count = config.data.train_pairs
    return PairCache(views / _PAIRS, count) if count and config.data.motion_share > 0.0 else None


def work(rank: int, workers: int, config: TrainingConfig, run: Path, views: Path) -> None:
    """What each training process does."""
    cv2.setNumThreads(1)
    sets = view_sets(config.data)
    cache = ViewCache(views / "train", config.data.train_views)
    on_interval = Monitor(config, run, sets, views) if rank == 0 else None
    pairs = train_pairs(config, views)
    Trainer(config, run, cache, pairs=pairs, rank=rank, workers=workers, on_interval=on_interval).train()


class Monitor:
    """Validates while training and exports the unfinished model now and then."""

    def __init__(self, config: TrainingConfig, run: Path, sets: dict[str, ViewSet], views: Path) -> None:
        self._config, self._run, self._views = config, run, views
        self._queries = {d: validation_queries(config, sets, views, d, _CURVE_QUERIES) for d in _DOMAINS}
        self._processor = make_processor(config.model.patch_px)
        self._exported = time.monotonic()

    def __call__(self, trainer: Trainer) -> dict[str, Any]:
        """Score the model as it is."""
        draw_curve(self._run, self._config)
        model = trainer.model.eval()
        record: dict[str, Any] = {}
        for domain, queries in self._queries.items():
            if self._config.vision.steps:  # else nobody has taught the readouts, which a base does not bring
                tower = tower_score(model.model.visual, trainer.heads, queries, self._config.model.patch_px)
                record |= {f"{domain}_tower_delta1": tower["delta1"], f"{domain}_pointing": tower["pointing"]}
            if trainer.progress.stage == "text":
                profile = embedded_profile(self._config)
                answers = ask(model, trainer.tokenizer, self._processor, queries, profile)
                record |= {f"{domain}_text_{k}": v for k, v in score(answers, queries).items()}
        if (
            trainer.progress.stage == "text"
            and time.monotonic() - self._exported > self._config.export_every_s
        ):
            self._exported = time.monotonic()
            directory = self._run / "export_partial"
            export_checkpoint(model, trainer.tokenizer, self._config, directory)
            calibrate(self._config, directory, self._views, _PARTIAL_QUERIES)
        print(json.dumps({"step": trainer.progress.step, **record}), flush=True)
        return record


def validation_queries(
    config: TrainingConfig, sets: dict[str, ViewSet], views: Path, domain: str, count: int
) -> Queries:
    """Queries of one domain's validation views."""
    view_set = sets[f"validation_{domain}"]
    limits = Limits(config.data.min_depth_m, config.data.max_depth_m)
    cache = ViewCache(views / view_set.name, view_set.count)
    marked, filled = config.pixel_reference == MARKER, config.data.fill_grid
    return held_out_queries(cache, count, limits, view_set.seed, marked=marked, filled=filled)


def calibrate(config: TrainingConfig, directory: Path, views: Path, count: int) -> dict[str, Any]:
    """Fit the confidence of an exported checkpoint and write it into its profile.

    Args:
        config: The recipe.
        directory: The checkpoint.
        views: Folder of rendered views.
        count: Validation queries, half of each domain's.

    Returns:
        The validation scores per domain.
    """
    model, tokenizer, processor = load_checkpoint(directory)
    profile = embedded_profile(config)
    sets = view_sets(config.data)
    scores, columns = {}, []
    for domain in _DOMAINS:
        queries = validation_queries(config, sets, views, domain, count // 2)
        answers = ask(model, tokenizer, processor, queries, profile)
        scores[domain] = score(answers, queries)
        columns.append(np.stack([answers.probability, answers.metres, queries.truth, answers.step_m]))
    probability, metres, truth, step_m = np.concatenate(columns, axis=1)
    fitted_on = (
        f"{count} queries on rendered validation views, half robot and half wide domain, "
        f"scene seeds from {config.data.validation_seed}"
    )
    calibration = fit_calibration(probability, metres, truth, fitted_on, step_m)
    write_profile(embedded_profile(config, calibration), directory)
    return scores


def finish(
    config: TrainingConfig, run: Path, views: Path, output: Path, base: dict[str, Any] | None = None
) -> None:
    """Export the trained model, calibrate it, and write the record of how it, and its base, was made."""
    torch.set_num_threads(1)  # more lose time to each other on a busy machine, and gain little at this size
    train_cache = ViewCache(views / "train", config.data.train_views)
    trainer = Trainer(config, run, train_cache, pairs=train_pairs(config, views))
    export_checkpoint(trainer.model.eval(), trainer.tokenizer, config, output)
    progress = trainer.progress
    record = {
        "parameters": parameter_count(trainer.model),
        "device": f"CPU ({platform.machine()}, {config.workers} processes)",
        "torch": torch.__version__,
        "wall_minutes": {
            "vision": round(progress.vision_s / 60, 1),
            "text": round(progress.text_s / 60, 1),
        },
        "last_losses": last_losses(run),
        "validation": calibrate(config, output, views, config.calibration_queries),
        "recipe": config.as_dict(),
        "base": base,
    }
    draw_curve(run, config)
    write_record(record, output)
    print(json.dumps({"validation": record["validation"]}, indent=2), flush=True)
