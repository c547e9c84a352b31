"""Labels per view: one, four, or all, of the same views."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from depthlm_ros.training.config import DataConfig
from depthlm_ros.training.studies.held_out import (
    open_views,
    read_base,
    recipe,
    render_views,
    text_figures,
    train_text,
    trivial_figures,
)
from depthlm_ros.training.studies.study import Options, Study
from depthlm_ros.training.studies.verdict import Claim
from depthlm_ros.training.views import Sampler, ViewSet, render_set, synthetic_view

LABELS_SEED = 6_000_000
"""First scene seed of this study's views, apart from every seed of the embedded recipe."""

_LABELS = {"1": 1, "4": 4, "all": 0}
_SET = "labels"
_MARGIN = 0.05


def views_for(options: Options) -> ViewSet:
    """The views that are trained on: never seen by the tower that the arms start from."""
    return ViewSet(
        _SET,
        LABELS_SEED,
        options.train_views or 400,
        DataConfig().robot_share,
        DataConfig().canonical_focal_px,
    )


def _prepare(options: Options, sampler: Sampler | None = None) -> None:
    read_base(options.base)
    render_views(options, train=False, sampler=sampler)
    render = sampler or partial(synthetic_view, focal_px=DataConfig().canonical_focal_px)
    render_set(views_for(options), options.run / "views", render, 1)


def _measure(options: Options, arms: tuple[str, ...], seed: int, folder: Path) -> dict[str, dict[str, float]]:
    (arm,) = arms
    views = views_for(options)
    cache = open_views(options.run / "views" / views.name, views.count)
    trainer = train_text(recipe(options, seed, labels_per_view=_LABELS[arm]), options, cache, folder)
    passes = options.steps * options.batch / views.count
    return {arm: {**text_figures(trainer, options, seed), "views": float(views.count), "passes": passes}}


LABELS = Study(
    name="labels",
    question="Are few labels per image enough to teach a tower that sees depth to say it?",
    arms={
        "1": "one label per view, and one of its mirror image",
        "4": "four of each",
        "all": "any pixel, drawn anew each time",
    },
    steps=300,
    batch=16,
    queries=800,
    budget="{steps} steps of {batch} views per run, {queries} held-out queries per domain",
    cost="about 15 core minutes",
    figures={
        "delta1": "text answers within 25 %, mean of both domains",
        "delta1_robot": "robot domain",
        "delta1_wide": "wide domain",
        "no_answer": "share without an answer",
        "views": "training views, the same for all arms",
        "passes": "times that each view is seen",
    },
    claims=(
        Claim(
            f"words that are taught one label per view are worse than with all labels by less than {_MARGIN:g}",
            "1",
            "all",
            margin=_MARGIN,
        ),
        Claim(
            f"words that are taught four labels per view are worse than with all by less than {_MARGIN:g}",
            "4",
            "all",
            margin=_MARGIN,
        ),
    ),
    prepare=_prepare,
    measure=_measure,
    trivial=trivial_figures,
)
