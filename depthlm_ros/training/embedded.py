"""Train the embedded checkpoint: ``depthlm train config/train_embedded.yaml``.

Renders what the cache lacks, trains both stages (taking up an interrupted run), exports, calibrates on
held-out scenes and scores once on test scenes.
"""

from __future__ import annotations

import json
import platform
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from depthlm_ros.training.answering import ask, load_checkpoint, make_processor
from depthlm_ros.training.augment import Limits
from depthlm_ros.training.calibrate import fit_calibration
from depthlm_ros.training.config import TrainingConfig, load_training_config
from depthlm_ros.training.curve import METRICS_FILE, draw_curve
from depthlm_ros.training.distributed import launch
from depthlm_ros.training.export import (
    embedded_profile,
    export_checkpoint,
    write_model_card,
    write_profile,
    write_record,
)
from depthlm_ros.training.model import parameter_count
from depthlm_ros.training.pairs import PairCache, render_pairs, synthetic_pair
from depthlm_ros.training.questions import MARKER
from depthlm_ros.training.stages import Trainer
from depthlm_ros.training.validation import (
    Queries,
    asked_depths,
    held_out_queries,
    score,
    tower_score,
    trivial_predictors,
)
from depthlm_ros.training.views import Sampler, ViewCache, ViewSet, render_set, synthetic_view

_DOMAINS = ("robot", "wide")
_PAIRS = "train_pairs"
_CURVE_QUERIES = 240
_PARTIAL_QUERIES = 400
_TRIVIAL_FIT_QUERIES = 12000


def view_sets(config: TrainingConfig) -> dict[str, ViewSet]:
    """The views of a recipe: training, and per domain validation and test."""
    data = config.data
    sets = {"train": ViewSet("train", data.train_seed, data.train_views, data.robot_share)}
    for offset, domain in enumerate(_DOMAINS):
        share = 1.0 if domain == "robot" else 0.0
        for split, seed, count in (
            ("validation", data.validation_seed, data.validation_views),
            ("test", data.test_seed, data.test_views),
        ):
            name = f"{split}_{domain}"
            sets[name] = ViewSet(name, seed + offset * 100_000, count, share)
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
    sampler = partial(synthetic_view, focal_px=config.data.canonical_focal_px)
    prepare(config, views, sampler)
    run.mkdir(parents=True, exist_ok=True)
    launch(config.workers, work, config, run, views)
    finish(config, run, views, output, sampler)
    return output


def prepare(config: TrainingConfig, views: Path, sampler: Sampler) -> None:
    """Render the training and validation views that the cache lacks; the test views wait for the end."""
    for name, view_set in view_sets(config).items():
        if not name.startswith("test"):
            render_set(view_set, views, sampler, config.data.render_processes)
    data = config.data
    if data.train_pairs:
        pair_sampler = partial(synthetic_pair, focal_px=data.canonical_focal_px)
        render_pairs(views / _PAIRS, data.pairs_seed, data.train_pairs, pair_sampler, data.render_processes)


def train_pairs(config: TrainingConfig, views: Path) -> PairCache | None:
    """The pairs of views of a recipe, or None where it uses none."""
    count = config.data.train_pairs
    return PairCache(views / _PAIRS, count) if count and config.data.motion_share > 0.0 else None


def work(rank: int, workers: int, config: TrainingConfig, run: Path, views: Path) -> None:
    """What each training process does."""
    cv2.setNumThreads(1)
    sets = view_sets(config)
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
    return _queries(config, sets[f"validation_{domain}"], views, count)


def _queries(config: TrainingConfig, view_set: ViewSet, views: Path, count: int) -> Queries:
    limits = Limits(config.data.min_depth_m, config.data.max_depth_m)
    marked = config.pixel_reference == MARKER
    cache = ViewCache(views / view_set.name, view_set.count)
    return held_out_queries(cache, count, limits, view_set.seed, marked=marked)


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
    sets = view_sets(config)
    scores, columns = {}, []
    for domain in _DOMAINS:
        queries = validation_queries(config, sets, views, domain, count // 2)
        answers = ask(model, tokenizer, processor, queries, profile)
        scores[domain] = score(answers, queries)
        columns.append(
            torch.tensor([answers.probability.tolist(), answers.metres.tolist(), queries.truth.tolist()])
        )
    probability, metres, truth = torch.cat(columns, dim=1).double().numpy()
    fitted_on = (
        f"{count} queries on rendered validation views, half robot and half wide domain, "
        f"scene seeds from {config.data.validation_seed}"
    )
    calibration = fit_calibration(probability, metres, truth, fitted_on)
    write_profile(embedded_profile(config, calibration), directory)
    return scores


def finish(config: TrainingConfig, run: Path, views: Path, output: Path, sampler: Sampler) -> None:
    """Export the trained model, calibrate it, score it on the test scenes and write the record."""
    torch.set_num_threads(1)  # more lose time to each other on a busy machine, and gain little at this size
    sets = view_sets(config)
    train_cache = ViewCache(views / "train", config.data.train_views)
    trainer = Trainer(config, run, train_cache, pairs=train_pairs(config, views))
    export_checkpoint(trainer.model.eval(), trainer.tokenizer, config, output)
    validation = calibrate(config, output, views, config.calibration_queries)
    model, tokenizer, processor = load_checkpoint(output)
    limits = Limits(config.data.min_depth_m, config.data.max_depth_m)
    for domain in _DOMAINS:
        render_set(sets[f"test_{domain}"], views, sampler, config.data.render_processes)
    train = asked_depths(train_cache, _TRIVIAL_FIT_QUERIES, limits, config.data.train_seed)
    test: dict[str, Any] = {}
    for domain in _DOMAINS:
        queries = _queries(config, sets[f"test_{domain}"], views, config.data.test_views)
        answers = ask(model, tokenizer, processor, queries, embedded_profile(config))
        test[domain] = {
            **score(answers, queries),
            "trivial": trivial_predictors(train, queries),
            "tower": tower_score(trainer.model.model.visual, trainer.heads, queries, config.model.patch_px),
        }
    progress = trainer.progress
    record = {
        "parameters": parameter_count(trainer.model),
        "device": f"CPU ({platform.machine()}, {config.workers} processes)",
        "torch": torch.__version__,
        "wall_minutes": {
            "vision": round(progress.vision_s / 60, 1),
            "text": round(progress.text_s / 60, 1),
        },
        "last_losses": last_losses(run / METRICS_FILE),
        "validation": validation,
        "test": test,
        "recipe": config.as_dict(),
    }
    draw_curve(run, config)
    write_record(record, output)
    write_model_card(record, output)
    print(json.dumps({"validation": validation, "test": test}, indent=2), flush=True)


def last_losses(path: Path) -> dict[str, Any]:
    """The last logged losses of each stage."""
    found: dict[str, Any] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "loss" in record:
                found[record["stage"]] = {
                    k: v for k, v in record.items() if k not in ("stage", "done", "vision_s", "text_s")
                }
    return found
