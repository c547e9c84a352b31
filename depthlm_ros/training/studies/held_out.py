"""What the studies that train the embedded recipe share: its settings, its start, and how it is scored."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from depthlm_ros.training.answering import ask, make_processor
from depthlm_ros.training.augment import Limits
from depthlm_ros.training.config import DataConfig, StageConfig, TrainingConfig
from depthlm_ros.training.export import embedded_profile
from depthlm_ros.training.questions import MARKER
from depthlm_ros.training.stages import Trainer
from depthlm_ros.training.state import Progress, load_state, save_state
from depthlm_ros.training.studies.study import Options, StudyError
from depthlm_ros.training.validation import held_out_queries
from depthlm_ros.training.views import SHARD_VIEWS, ViewCache

DOMAINS = ("robot", "wide")
FROZEN_SHARE = 0.35
"""Share of the text stage with the tower frozen, as in config/train_embedded.yaml."""


def recipe(
    options: Options, seed: int, *, reference: str = MARKER, labels_per_view: int = 0
) -> TrainingConfig:
    """The embedded recipe at a study's budget: whole views, no clock, one process."""
    stage = StageConfig(
        options.steps,
        batch=options.batch,
        warmup_steps=max(1, min(50, options.steps // 6)),
        evaluate_every=options.steps + 1,
    )
    return TrainingConfig(
        vision=stage,
        text=dataclasses.replace(stage, frozen_share=FROZEN_SHARE, tower_lr_share=0.3, muon_lr=0.012),
        seed=seed,
        workers=1,
        model=options.model,
        data=DataConfig(crop_share=0.0, labels_per_view=labels_per_view),
        pixel_reference=reference,
        save_every_s=float("inf"),
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
            f"{folder} holds {have} views, {max(count, 1)} are needed; name the views directory of a run of "
            "config/train_embedded.yaml by --views"
        )
    return ViewCache(folder, count or have)


def check_views(options: Options) -> None:
    """See that the validation views are there.

    Raises:
        StudyError: They are not.
    """
    for domain in DOMAINS:
        open_views(options.views / f"validation_{domain}")


def read_base(path: Path | None) -> tuple[Progress, dict[str, Any]]:
    """The state after stage 1 that all arms start from.

    Raises:
        StudyError: There is none, or its tower was trained on text already.
    """
    saved = None if path is None else load_state(path)
    if saved is None:
        raise StudyError(
            f"--base {path}: expected the state.safetensors of a run of config/train_embedded.yaml after its stage 1"
        )
    progress, tensors = saved
    if progress.stage == "done" or (progress.stage == "text" and progress.done > FROZEN_SHARE):
        raise StudyError(
            f"--base {path}: stands at {progress.done:.0%} of its text stage, in which its tower has moved; keep a "
            "copy of state.safetensors from the end of stage 1"
        )
    return progress, {n: t for n, t in tensors.items() if n.startswith(("model.model.visual.", "heads."))}


def start_text_stage(path: Path, tensors: dict[str, Any], fresh: Trainer) -> None:
    """Write a state at the start of the text stage: the base's tower and readouts, and new words.

    Raises:
        StudyError: The base is another network.
    """
    own = {f"model.{n}": p.detach() for n, p in fresh.model.named_parameters()}
    own |= {f"heads.{n}": p.detach() for n, p in fresh.heads.named_parameters()}
    strange = sorted(n for n, t in tensors.items() if n not in own or own[n].shape != t.shape)
    lacking = [n for n in own if n.startswith(("model.model.visual.", "heads.")) and n not in tensors]
    if strange or lacking:
        raise StudyError(f"--base holds another network: {[*strange, *lacking][0]} does not fit the recipe's")
    save_state(path, Progress(stage="text"), own | tensors, fresh.config.as_dict())


def train_text(config: TrainingConfig, options: Options, cache: ViewCache, folder: Path) -> Trainer:
    """Go through the text stage from the base's tower; an interrupted run begins anew, to end as any other."""
    _, tensors = read_base(options.base)
    state = folder / "state.safetensors"
    for leftover in (state, folder / "metrics.jsonl"):
        leftover.unlink(missing_ok=True)
    start_text_stage(state, tensors, Trainer(config, folder, cache))
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


def delta1(truth: Any, metres: Any) -> float:
    """Share of answers within 25 %; none is a miss."""
    from depthlm_ros.evaluation.metrics import within_delta1

    return float(within_delta1(truth, metres).mean())
