"""The red arrow against coordinates in the question, from one tower."""

from __future__ import annotations

import os
from pathlib import Path

from depthlm_ros.profile import DEPTHLM_QUESTION, TEXT_QUESTION
from depthlm_ros.training.questions import MARKER, TEXT
from depthlm_ros.training.studies.held_out import (
    read_base,
    recipe,
    render_views,
    text_figures,
    train_text,
    train_views,
    trivial_figures,
)
from depthlm_ros.training.studies.study import Options, Study
from depthlm_ros.training.studies.verdict import Claim
from depthlm_ros.training.tokenizer import IMAGE_PAD, build_tokenizer, prompt_text

_VIEW_TOKENS = 48
_FRAME_QUERIES = 96


def _prepare(options: Options) -> None:
    read_base(options.base)
    render_views(options)


def _measure(options: Options, arms: tuple[str, ...], seed: int, folder: Path) -> dict[str, dict[str, float]]:
    (arm,) = arms
    cache = train_views(options)
    trainer = train_text(recipe(options, seed, reference=arm), options, cache, folder)
    own, shared = prompt_tokens(arm)
    return {
        arm: {
            **text_figures(trainer, options, seed),
            "own_tokens": float(own),
            "shared_tokens": float(shared),
            f"prefill_of_{_FRAME_QUERIES}": float(shared + _FRAME_QUERIES * own),
        }
    }


def prompt_tokens(reference: str) -> tuple[int, int]:
    """Prompt tokens that each query of a 128x96 view has for itself, and those that all its queries have in common.

    Arrows are in the image, so that marked queries have nothing behind it in common that a cache could keep.
    """
    tokenizer = build_tokenizer()
    if reference == MARKER:
        asked = [DEPTHLM_QUESTION]
    else:
        asked = [TEXT_QUESTION.format(x=x, y=y) for x, y in ((1234, 567), (987, 1650))]
    rows = tokenizer(
        [prompt_text(question).replace(IMAGE_PAD, IMAGE_PAD * _VIEW_TOKENS) for question in asked]
    )["input_ids"]
    if reference == MARKER:
        shared = rows[0].index(tokenizer.convert_tokens_to_ids(IMAGE_PAD))
    else:
        shared = len(os.path.commonprefix(rows))
    return max(len(row) for row in rows) - shared, shared


REFERENCE = Study(
    name="reference",
    question="Do new words learn depth sooner from arrows than from coordinates?",
    arms={MARKER: "the red arrow", TEXT: "coordinates from 0 to 2000 in the question, no arrow"},
    steps=600,
    batch=16,
    queries=300,
    budget="{steps} steps of {batch} views per run, {queries} held-out queries per domain",
    cost="about 20 core minutes",
    figures={
        "delta1": "text answers within 25 %, mean of both domains",
        "delta1_robot": "robot domain",
        "delta1_wide": "wide domain",
        "no_answer": "share without an answer",
        "own_tokens": "prompt tokens that a query of a 128x96 view has for itself",
        "shared_tokens": "prompt tokens that all queries of the view have in common",
        f"prefill_of_{_FRAME_QUERIES}": f"tokens to prefill for {_FRAME_QUERIES} queries, if common ones are kept",
    },
    claims=(
        Claim(
            "words on a tower that knows arrows learn depth from arrows better than from coordinates",
            MARKER,
            TEXT,
        ),
    ),
    prepare=_prepare,
    measure=_measure,
    trivial=trivial_figures,
)
