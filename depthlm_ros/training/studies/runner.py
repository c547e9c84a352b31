"""Runs a study: every arm and seed in a process of one thread, finished ones kept, progress, and the results."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from depthlm_ros.config import EMBEDDED, EngineConfig
from depthlm_ros.engines.factory import resolve_checkpoint
from depthlm_ros.evaluation.provenance import weights_digest
from depthlm_ros.training.studies.study import Options, Study, StudyError
from depthlm_ros.training.studies.trivial import PREDICTORS

RESULT_FILE = "result.json"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        arm: Which arm, or which of the predictors without eyes.
        seed: Which seed.
        figures: What was measured.
        wall_s: Wall seconds, of all arms together where they are measured together.
        cpu_s: Processor seconds of the process, likewise.
    """

    arm: str
    seed: int
    figures: Mapping[str, float]
    wall_s: float
    cpu_s: float


def run_study(study: Study, options: Options, *, processes: bool = True) -> list[Run]:
    """Run what is not finished yet: the arms, and on the same queries the predictors that look at no image.

    Args:
        study: The study.
        options: How it is run.
        processes: Whether each run gets a process of its own, of one thread; else all run in this one.

    Returns:
        All runs, by seed and then by arm, the predictors behind the arms.

    Raises:
        StudyError: The options do not fit, a finished run was made with others, or a run failed.
    """
    if options.seeds < 1 or options.steps < 1:
        raise StudyError(f"seeds and steps: expected 1 or more, got {options.seeds} and {options.steps}")
    options.run.mkdir(parents=True, exist_ok=True)
    plan = [(seed, arms) for seed in range(options.seeds) for arms in [*study.groups(), PREDICTORS]]
    made_with = _identity(study, options)  # reads the base's weights, so once for all runs
    missing = [(seed, arms) for seed, arms in plan if _finished(options, made_with, seed, arms) is None]
    if missing:
        study.prepare(options)
    with tqdm(total=len(plan), initial=len(plan) - len(missing), desc=study.name, unit="run") as bar:
        for seed, arms in missing:
            bar.set_postfix_str(f"{'+'.join(arms)}, seed {seed}")
            if processes and arms != PREDICTORS:
                _in_process(study, options, made_with, arms, seed)
            else:
                work(study, options, made_with, arms, seed)
            bar.update()
    found: list[Run] = []
    for seed, arms in plan:
        finished = _finished(options, made_with, seed, arms)
        if finished is None:
            raise StudyError(f"{_folder(options, arms, seed)} lacks {RESULT_FILE} although its run has ended")
        found += finished
    return found


def _folder(options: Options, arms: tuple[str, ...], seed: int) -> Path:
    return options.run / "runs" / f"{'+'.join(arms)}_{seed}"


def _identity(study: Study, options: Options) -> dict[str, Any]:
    """What a run was made with: the packaged checkpoint and a study's own settings change from version to version."""
    made: dict[str, Any] = {"study": study.name, **options.record(), "settings": dict(study.settings)}
    if study.from_base:
        checkpoint = EMBEDDED if options.base is None else str(options.base)
        made["base_weights"] = weights_digest(resolve_checkpoint(EngineConfig(checkpoint=checkpoint)))
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


def _finished(
    options: Options, made_with: dict[str, Any], seed: int, arms: tuple[str, ...]
) -> list[Run] | None:
    path = _folder(options, arms, seed) / RESULT_FILE
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["options"] != made_with:
        changed = sorted(k for k in made_with if record["options"].get(k) != made_with[k])
        raise StudyError(
            f"{path} was made with other options ({', '.join(changed)}): give those again, or another --run"
        )
    figures = {
        arm: {k: float("nan") if v is None else float(v) for k, v in record["figures"][arm].items()}
        for arm in arms
    }
    return [Run(arm, seed, figures[arm], record["wall_s"], record["cpu_s"]) for arm in arms]


def _in_process(
    study: Study, options: Options, made_with: dict[str, Any], arms: tuple[str, ...], seed: int
) -> None:
    # Set before the start, since a library reads them when it is loaded; put back for what the caller does next.
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        process = multiprocessing.get_context("spawn").Process(
            target=work, args=(study, options, made_with, arms, seed)
        )
        process.start()
        process.join()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    if process.exitcode:
        raise StudyError(
            f"{study.name}: the run of {'+'.join(arms)}, seed {seed}, ended with code {process.exitcode}; its error "
            "is above, and the same command goes on with what is left"
        )


def work(study: Study, options: Options, made_with: dict[str, Any], arms: tuple[str, ...], seed: int) -> None:
    """Measure arms of one seed and write their result, whole or not at all."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder = _folder(options, arms, seed)
    folder.mkdir(parents=True, exist_ok=True)
    wall, cpu = time.monotonic(), time.process_time()
    blind = arms == PREDICTORS
    figures = study.trivial(options, seed) if blind else study.measure(options, arms, seed, folder)
    record = {
        "options": made_with,
        "seed": seed,
        "figures": {
            arm: {k: v if v == v else None for k, v in values.items()} for arm, values in figures.items()
        },
        "wall_s": round(time.monotonic() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
    }
    draft = folder / f"{RESULT_FILE}.part"
    draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / RESULT_FILE)
