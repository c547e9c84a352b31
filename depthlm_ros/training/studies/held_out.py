"""What the studies that train the embedded recipe share: its settings, its start, and how it is scored."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from depthlm_ros.config import EMBEDDED, EngineConfig
from depthlm_ros.engines.factory import resolve_checkpoint
from depthlm_ros.training.answering import ask, load_checkpoint, make_processor
from depthlm_ros.training.augment import Limits
from depthlm_ros.training.config import DataConfig, StageConfig, TrainingConfig
from depthlm_ros.training.embedded import view_sets
from depthlm_ros.training.export import embedded_profile
from depthlm_ros.training.questions import MARKER
from depthlm_ros.training.stages import Trainer
from depthlm_ros.training.state import Progress, save_state
from depthlm_ros.training.studies.study import Options, StudyError
from depthlm_ros.training.studies.trivial import asked_of, trivial_scores
from depthlm_ros.training.validation import held_out_queries
from depthlm_ros.training.views import SHARD_VIEWS, Sampler, ViewCache, render_set, synthetic_view

DOMAINS = ("robot", "wide")
TRAIN_VIEWS = 10_000
"""Views that are trained on, unless the options say another number."""


def recipe(
    options: Options, seed: int, *, reference: str = MARKER, labels_per_view: int = 0
) -> TrainingConfig:
    """The embedded recipe at a study's budget: whole views, no clock, one process.

    The tower rests while words are taught, as in config/train_embedded_longer.yaml.
    """
    stage = StageConfig(
        options.steps,
        batch=options.batch,
        warmup_steps=max(1, min(50, options.steps // 6)),
        evaluate_every=options.steps + 1,
    )
    return TrainingConfig(
        vision=stage,
        text=dataclasses.replace(stage, muon_lr=0.012, frozen_share=1.0),
        seed=seed,
        workers=1,
        model=options.model,
        data=DataConfig(crop_share=0.0, labels_per_view=labels_per_view),
        pixel_reference=reference,
        save_every_s=float("inf"),
        arithmetic="bfloat16",
    )


def limits(config: TrainingConfig) -> Limits:
    """Depths that are asked about."""
    return Limits(config.data.min_depth_m, config.data.max_depth_m)


def open_views(folder: Path, count: int = 0) -> ViewCache:
    """The views of a set that is there already; ``count`` 0 takes all.

    Raises:
        StudyError: There are none, or fewer.
    """
    have = SHARD_VIEWS * len(list(folder.glob("*_index.npy")))
    if have < max(count, 1):
        raise StudyError(
            f"{folder} holds {have} views, {max(count, 1)} are needed; remove it, and "
            "the study renders them anew"
        )
    return ViewCache(folder, count or have)


def train_views(options: Options) -> ViewCache:
    """The views that are trained on.

    Raises:
        StudyError: They are not there.
    """
    return open_views(options.views / "train", options.train_views or TRAIN_VIEWS)


def render_views(options: Options, *, train: bool = True, sampler: Sampler | None = None) -> None:
    """Render what the directory of views lacks: validation views of both domains, and views to train on.

    Args:
        options: Names the directory, and how many views are trained on.
        train: Whether any are trained on.
        sampler: In place of the renderer.

    Raises:
        StudyError: The directory holds other views.
    """
    data = DataConfig(train_views=options.train_views or TRAIN_VIEWS)
    render = sampler or partial(synthetic_view, focal_px=data.canonical_focal_px)
    for view_set in view_sets(data).values():
        if view_set.name == "train" and not train:
            continue
        try:
            render_set(view_set, options.views, render, data.render_processes)
        except ValueError as error:
            raise StudyError(f"--views {options.views}: {error}") from error


def read_base(path: Path | None) -> dict[str, Any]:
    """The vision tower that all arms start from.

    Args:
        path: A checkpoint of the embedded recipe; None takes the embedded one.

    Returns:
        {name in a state: weights} of the tower.

    Raises:
        EngineError: There is no checkpoint.
    """
    checkpoint = resolve_checkpoint(EngineConfig(checkpoint=EMBEDDED if path is None else str(path)))
    own = load_checkpoint(checkpoint)[0].named_parameters()
    return {f"model.{n}": p.detach() for n, p in own if n.startswith("model.visual.")}


def start_text_stage(path: Path, tower: dict[str, Any], fresh: Trainer) -> None:
    """Write a state at the start of the text stage: the base's tower, and new words.

    Raises:
        StudyError: The base is another network.
    """
    own = {f"model.{n}": p.detach() for n, p in fresh.model.named_parameters()}
    own |= {f"heads.{n}": p.detach() for n, p in fresh.heads.named_parameters()}
    strange = sorted(n for n, t in tower.items() if n not in own or own[n].shape != t.shape)
    lacking = [n for n in own if n.startswith("model.model.visual.") and n not in tower]
    if strange or lacking:
        raise StudyError(f"--base holds another network: {[*strange, *lacking][0]} does not fit the recipe's")
    save_state(path, Progress(stage="text"), own | tower, fresh.config.as_dict())


def train_text(config: TrainingConfig, options: Options, cache: ViewCache, folder: Path) -> Trainer:
    """Go through the text stage from the base's tower; an interrupted run begins anew, to end as any other."""
    tower = read_base(options.base)
    state = folder / "state.safetensors"
    for leftover in (state, folder / "metrics.jsonl"):
        leftover.unlink(missing_ok=True)
    start_text_stage(state, tower, Trainer(config, folder, cache))
    trainer = Trainer(config, folder, cache)
    trainer.train()
    state.unlink()
    return trainer


def text_figures(trainer: Trainer, options: Options, seed: int) -> dict[str, float]:
    """delta1 and the share without an answer, on the validation views of both domains, by ``generate``."""
    config = trainer.config
    hits: dict[str, float] = {}
    missing = []
    for domain in DOMAINS:
        cache = open_views(options.views / f"validation_{domain}")
        marked = config.pixel_reference == MARKER
        queries = held_out_queries(cache, options.queries, limits(config), seed, marked=marked)
        profile = embedded_profile(config)
        answers = ask(
            trainer.model.eval(), trainer.tokenizer, make_processor(config.model.patch_px), queries, profile
        )
        hits[f"delta1_{domain}"] = delta1(queries.truth, answers.metres)
        missing.append(float(np.isnan(answers.metres).mean()))
    return {"delta1": float(np.mean(list(hits.values()))), **hits, "no_answer": float(np.mean(missing))}


def trivial_figures(options: Options, seed: int) -> dict[str, dict[str, float]]:
    """What predictors that look at no image score on the queries of :func:`text_figures`."""
    asked = {}
    for domain in DOMAINS:
        cache = open_views(options.views / f"validation_{domain}")
        # Arrows change the views' colours alone, not which pixels are asked.
        asked[domain] = asked_of(
            held_out_queries(cache, options.queries, limits(recipe(options, seed)), seed, marked=False)
        )
    return trivial_scores(asked)


def delta1(truth: Any, metres: Any) -> float:
    """Share of answers within 25 %; none is a miss."""
    from depthlm_ros.evaluation.metrics import within_delta1

    return float(within_delta1(truth, metres).mean())
