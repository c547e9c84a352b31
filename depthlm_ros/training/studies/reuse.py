"""What marker reuse changes: the exact way against reading only what is near the arrow anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from depthlm_ros.config import EMBEDDED, EngineConfig
from depthlm_ros.engines.factory import create_engine, resolve_checkpoint
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.evaluation.metrics import within_delta1
from depthlm_ros.profile import load_profile
from depthlm_ros.training.studies.answer import CountingEngine, ask_in_turn, trivial_answers
from depthlm_ros.training.studies.held_out import render_views
from depthlm_ros.training.studies.study import Options, Study, StudyError
from depthlm_ros.training.studies.verdict import Claim

EXACT, REUSE = "exact", "reuse"
_MARGIN = 0.01


def _engine_config(options: Options) -> EngineConfig:
    base = EMBEDDED if options.base is None else str(options.base)
    return EngineConfig(checkpoint=base, device="cpu", dtype="float32", threads=1)


@contextmanager
def _opened(options: Options) -> Iterator[tuple[dict[str, DepthEstimator], dict[str, CountingEngine]]]:
    config = _engine_config(options)
    profile = load_profile(resolve_checkpoint(config))
    with ExitStack() as stack:
        counters = {
            arm: CountingEngine(
                stack.enter_context(create_engine(dataclasses.replace(config, marker_reuse=reuse)))
            )
            for arm, reuse in ((EXACT, False), (REUSE, True))
        }
        yield {arm: DepthEstimator(counter, profile) for arm, counter in counters.items()}, counters


def _prepare(options: Options) -> None:
    profile = load_profile(resolve_checkpoint(_engine_config(options)))
    if profile.pixel_reference != "marker":
        raise StudyError(
            f"checkpoint {profile.name} names pixels by {profile.pixel_reference}: expected marker; name another one "
            "by --base"
        )
    render_views(options, train=False)


def _measure(options: Options, arms: tuple[str, ...], seed: int, folder: Path) -> dict[str, dict[str, float]]:
    with _opened(options) as (estimators, counters):
        truth, said = ask_in_turn(estimators, options, seed)
    exact, hit = said[EXACT], within_delta1(truth, said[EXACT])
    return {
        arm: {
            "delta1": float(within_delta1(truth, said[arm]).mean()),
            "no_answer": float(np.isnan(said[arm]).mean()),
            "equal_numbers": float((said[arm] == exact).mean()),
            "hits_lost": float((hit & ~within_delta1(truth, said[arm])).sum()),
            "hits_won": float((~hit & within_delta1(truth, said[arm])).sum()),
            "largest_ratio": float(np.nanmax(np.maximum(said[arm] / exact, exact / said[arm]))),
            "queries_per_s": counters[arm].queries_per_s,
            "speed_ratio": counters[arm].queries_per_s / counters[EXACT].queries_per_s,
        }
        for arm in arms
    }


REUSE_STUDY = Study(
    name="reuse",
    question="Does marker reuse change the depth?",
    arms={
        EXACT: "every marked image is read whole",
        REUSE: "the frame is read once, and of each query what is near the arrow (engine.marker_reuse)",
    },
    steps=60,
    batch=8,
    queries=240,
    budget="{steps} held-out views with up to {batch} queries each, half of each domain",
    cost="about 2 core minutes",
    figures={
        "delta1": "answers within 25 %",
        "no_answer": "share without an answer",
        "equal_numbers": "share of answers that equal the exact ones",
        "hits_lost": "answers within 25 % of the truth that are not so any more",
        "hits_won": "the other way",
        "largest_ratio": "largest ratio between an answer and the exact one",
        "queries_per_s": "queries per second of the engine, reading the frames included",
        "speed_ratio": "the same, relative to the exact way in the same run",
    },
    claims=(
        Claim(f"marker reuse is worse by less than {_MARGIN:g}", REUSE, EXACT, margin=_MARGIN),
        Claim("marker reuse is faster", REUSE, EXACT, figure="queries_per_s"),
    ),
    prepare=_prepare,
    measure=_measure,
    trivial=trivial_answers,
    together=True,
)
