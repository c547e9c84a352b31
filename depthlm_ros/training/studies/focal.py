"""One canonical focal length against none, on mixed cameras."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from depthlm_ros.training.stages import Trainer
from depthlm_ros.training.studies.cameras import CANONICAL, NONE, MixedCameras, paired_queries
from depthlm_ros.training.studies.held_out import (
    DOMAINS,
    limits,
    open_views,
    recipe,
    render_views,
    train_views,
)
from depthlm_ros.training.studies.study import Options, Study
from depthlm_ros.training.studies.trivial import asked_of, trivial_scores
from depthlm_ros.training.studies.verdict import Claim
from depthlm_ros.training.validation import Queries, tower_score

_TRAIN_CROPS, _HELD_OUT_CROPS = 11, 12


def _prepare(options: Options) -> None:
    render_views(options)


def _measure(options: Options, arms: tuple[str, ...], seed: int, folder: Path) -> dict[str, dict[str, float]]:
    (arm,) = arms
    config = recipe(options, seed)
    config = dataclasses.replace(
        config, text=dataclasses.replace(config.text, steps=0)
    )  # geometry, not words
    for leftover in ("state.safetensors", "metrics.jsonl"):
        (folder / leftover).unlink(missing_ok=True)
    train = MixedCameras(train_views(options), arm, _TRAIN_CROPS)
    trainer = Trainer(config, folder, train)
    trainer.train()
    trainer.model.eval()
    figures: dict[str, float] = {}
    found = []
    for domain in DOMAINS:
        queries = _held_out(options, arm, seed, domain)
        scores = tower_score(trainer.model.model.visual, trainer.heads, queries, config.model.patch_px)
        figures[f"delta1_{domain}"] = scores["delta1"]
        found.append(scores["pointing"])
    trainer.state_path.unlink()
    delta1 = float(np.mean(list(figures.values())))
    return {
        arm: {
            "delta1": delta1,
            **figures,
            "pointing": float(np.mean(found)),
            "image_tokens": train.tokens,
            "samples": float(options.steps * options.batch),
        }
    }


def _held_out(options: Options, arm: str, seed: int, domain: str) -> Queries:
    views = MixedCameras(open_views(options.views / f"validation_{domain}"), arm, _HELD_OUT_CROPS)
    return paired_queries(views, options.queries, limits(recipe(options, seed)), seed)


def _trivial(options: Options, seed: int) -> dict[str, dict[str, float]]:
    """On the crops at the canonical scale; on the canvas the same points have the same height in the picture."""
    return trivial_scores({d: asked_of(_held_out(options, CANONICAL, seed, d)) for d in DOMAINS})


FOCAL = Study(
    name="focal",
    question="Does one canonical focal length help on mixed cameras?",
    arms={
        CANONICAL: "crops at the canonical scale, canvas varies",
        NONE: "the same crops resized to 112x80 px, so that the focal length varies and is not known",
    },
    steps=800,
    batch=32,
    queries=800,
    budget="{steps} steps of {batch} views per run, {queries} held-out queries per domain",
    cost="about 18 core minutes",
    figures={
        "delta1": "depth at the pointed pixel within 25 %, mean of both domains",
        "delta1_robot": "robot domain",
        "delta1_wide": "wide domain",
        "pointing": "share of queries whose arrow is found",
        "image_tokens": "mean image tokens of a training view",
        "samples": "training samples",
    },
    claims=(
        Claim(
            "images at one canonical focal length give better metric depth than images without",
            CANONICAL,
            NONE,
        ),
    ),
    prepare=_prepare,
    measure=_measure,
    trivial=_trivial,
    from_base=False,
)
