"""SFT against GRPO, from one half-taught checkpoint on the same labels, by the fine-tuning code.

The packaged checkpoint has been taught on such scenes until it hardly got better: no method has much to add.
So the start has its tower, and words that were taught for a moment only.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from depthlm_ros.evaluation.benchmark import read_benchmark
from depthlm_ros.training.export import export_checkpoint
from depthlm_ros.training.finetune.config import GrpoConfig, SftConfig
from depthlm_ros.training.finetune.log import METRICS_FILE
from depthlm_ros.training.finetune.options import build
from depthlm_ros.training.studies.held_out import read_base, recipe, render_views, train_text, train_views
from depthlm_ros.training.studies.study import Options, Study, StudyError
from depthlm_ros.training.studies.trivial import Asked, trivial_scores
from depthlm_ros.training.studies.verdict import Claim

SFT, SFT_ANSWERS, GRPO = "sft", "sft_equal_answers", "grpo"
_COMPLETIONS = 8
_MARGIN = 0.02
_LABELS = 10
_TRAIN_IMAGES, _TRAIN_SEED, _VALIDATION_SEED = 600, 510_000, 710_000
_RATE = {SFT: 1e-3, SFT_ANSWERS: 1e-3, GRPO: 1e-4}
START_STEPS, _START_BATCH, _START_SEED = 150, 16, 1000
"""How long the words of the start are taught, and from which seed: none of the arms'."""


def _prepare(options: Options) -> None:
    read_base(options.base)
    render_views(options)
    _render_images(options, "train", _TRAIN_IMAGES, _TRAIN_SEED)
    _render_images(options, "validation", max(1, options.queries // _LABELS), _VALIDATION_SEED)
    _teach_start(options)


def start(options: Options) -> Path:
    """The checkpoint that all arms start from."""
    return options.run / "start"


def _render_images(options: Options, name: str, count: int, seed: int) -> None:
    from depthlm_ros.synthetic import Domain, RenderSpec, write_dataset

    spec = RenderSpec(count, seed, Domain.ROBOT, points_per_image=_LABELS, dense=False)
    _make(
        options.run / "data" / name,
        {"images": count, "seed": seed, "labels": _LABELS},
        lambda folder: write_dataset(folder, spec, processes=1),
    )


def _teach_start(options: Options) -> None:
    """New words on the base's tower, which rests."""
    budget = dataclasses.replace(options, steps=START_STEPS, batch=_START_BATCH)
    config = recipe(budget, _START_SEED)

    def teach(folder: Path) -> None:
        trainer = train_text(config, budget, train_views(options), folder)
        export_checkpoint(trainer.model, trainer.tokenizer, config, folder)

    wanted = {k: v for k, v in budget.record().items() if k != "queries"}
    _make(start(options), {**wanted, "seed": _START_SEED}, teach)


def _make(folder: Path, wanted: dict[str, Any], make: Callable[[Path], Any]) -> None:
    """Have a folder made anew unless it is whole and as wanted."""
    done = folder / "made.json"
    wanted = json.loads(json.dumps(wanted))
    if done.is_file() and json.loads(done.read_text(encoding="utf-8")) == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(folder)
    done.write_text(json.dumps(wanted), encoding="utf-8")


def tuning(options: Options, arm: str, seed: int) -> SftConfig | GrpoConfig:
    """The recipe of an arm, like config/train_sft_embedded.yaml or train_grpo_embedded.yaml; the tower rests."""
    steps = options.steps * (_COMPLETIONS if arm == SFT_ANSWERS else 1)
    data = options.run / "data"
    record: dict[str, Any] = {
        "data": [
            {
                "labels": str(data / "train" / "robot.jsonl"),
                "images": str(data / "train"),
                "labels_per_image": 4,
            }
        ],
        "augment": {
            "crop_width_px": [96, 208],
            "crop_height_px": [80, 160],
            "crop_place": "anywhere",
            "flip_share": 0.5,
        },
        "model": {
            "checkpoint": str(start(options)),
            "tune": "full",
            "freeze_vision": True,
            "arithmetic": "float32",
            "gradient_checkpointing": False,
        },
        "optimiser": {"learning_rate": _RATE[arm], "max_grad_norm": 1.0},
        "validation": {
            "labels": str(data / "validation" / "robot.jsonl"),
            "images": str(data / "validation"),
            "limit": 1_000_000,
            "every": steps,
        },
        "run": {
            "device": "cpu",
            "steps": steps,
            "batch": options.batch * (_COMPLETIONS if arm == GRPO else 1),
            "seed": seed,
            "save_every": steps,
        },
    }
    if arm == GRPO:
        record["group"] = {"completions": _COMPLETIONS, "penalty_m": 10}
    config: SftConfig | GrpoConfig = build(
        GrpoConfig if arm == GRPO else SftConfig, record, f"study grpo: {arm}"
    )
    return config


def _measure(options: Options, arms: tuple[str, ...], seed: int, folder: Path) -> dict[str, dict[str, float]]:
    (arm,) = arms
    config = tuning(options, arm, seed)
    run = folder / "train"
    shutil.rmtree(
        run, ignore_errors=True
    )  # what an interrupted run left would make this one's seconds too few
    if isinstance(config, GrpoConfig):
        from depthlm_ros.training.finetune.grpo import train_grpo

        train_grpo(config, run)
    else:
        from depthlm_ros.training.finetune.sft import train_sft

        train_sft(config, run)
    lines = [json.loads(line) for line in (run / METRICS_FILE).read_text(encoding="utf-8").splitlines()]
    scored = {line["step"]: line for line in lines if "delta1" in line}
    if not {0, config.run.steps} <= set(scored):
        raise StudyError(f"{run / METRICS_FILE} lacks the score before or after training; remove {run}")
    first, last = scored[0], scored[config.run.steps]
    answers = config.run.steps * config.run.batch
    return {
        arm: {
            "delta1": float(last["delta1"]),
            "delta1_before": float(first["delta1"]),
            "no_answer": 1.0 - float(last["answered"]),
            "labels": float(last["samples"]),
            "answers": float(answers),
        }
    }


def _trivial(options: Options, seed: int) -> dict[str, dict[str, float]]:
    """The labels are those of every seed, and so are the scores."""
    data = options.run / "data" / "validation"
    images = read_benchmark(data / "robot.jsonl", data)
    return trivial_scores(
        {"robot": [Asked(image.pixels[:, 1], image.height, image.depth) for image in images]}
    )


STUDY_GRPO = Study(
    name="grpo",
    question="Does reinforcement learning do better than supervised fine-tuning?",
    arms={
        SFT: "supervised, each label once",
        GRPO: f"GRPO on the same labels, {_COMPLETIONS} answers drawn for each, reward minus L1",
        SFT_ANSWERS: f"supervised on {_COMPLETIONS} times the labels: as many answers as GRPO scores",
    },
    steps=20,
    batch=16,
    queries=400,
    budget="{steps} steps of {batch} labels ({steps} times eight of sft_equal_answers), {queries} held-out labels",
    cost="about 20 core minutes",
    figures={
        "delta1": "greedy answers within 25 %, robot domain",
        "delta1_before": "the same before training",
        "no_answer": "share without an answer",
        "labels": "labels seen",
        "answers": "answers that the loss was taken of",
    },
    claims=(
        Claim(f"SFT is worse than GRPO on equal labels by less than {_MARGIN:g}", SFT, GRPO, margin=_MARGIN),
        Claim(
            f"SFT is worse than GRPO on equal answers, so at about equal time, by less than {_MARGIN:g}",
            SFT_ANSWERS, GRPO, margin=_MARGIN,
        ),
    ),
    prepare=_prepare,
    measure=_measure,
    trivial=_trivial,
    settings={
        "rates": _RATE, "start_steps": START_STEPS, "start_seed": _START_SEED, "images": _TRAIN_IMAGES,
        "image_seeds": [_TRAIN_SEED, _VALIDATION_SEED],
    },
    start_lead=_MARGIN,
)  # fmt: skip
