"""``depthlm study``: the paper's findings at the embedded checkpoint's scale."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthlm_ros.cli_common import InputError, one_line_errors

if TYPE_CHECKING:
    from depthlm_ros.training.studies.study import Options, Study

_SEEDS = 3
_VIEWS = Path("runs/views")
_FINETUNE = ("accelerate", "peft", "trl", "datasets")


@one_line_errors
def study(
    name: Annotated[str, typer.Argument(help="focal, reference, labels, grpo, answer or reuse.")],
    run: Annotated[Path, typer.Option(help="Directory of the runs, results.json and table.md.")],
    views: Annotated[
        Path,
        typer.Option(
            help="Directory of rendered views; what it lacks is rendered. That of a run of "
            "config/train_embedded.yaml will do."
        ),
    ] = _VIEWS,
    base: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint directory that all arms start from, of which reference, labels and grpo take the "
            "vision tower; focal starts from nothing. [default: the embedded checkpoint]"
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Repetitions of every arm; a verdict needs two.")
    ] = _SEEDS,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Optimiser steps of a run; of answer and reuse, frames. [default: the study's]"
        ),
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, help="Held-out queries per domain. [default: the study's]")
    ] = None,
    train_views: Annotated[
        int, typer.Option(min=0, help="Training views; 0 takes 10,000, of labels 400.")
    ] = 0,
    docs: Annotated[
        Path | None, typer.Option(help="Document whose section of this study is replaced by the table.")
    ] = None,
) -> None:
    """Compare the arms of one finding over seeds at equal budgets, and judge it by a rule fixed before.

    An interrupted study goes on; finished runs are kept. Each run is a process of one thread. With the defaults the
    six take more than an hour of one core together: focal 18 minutes, reference 20, labels 15, grpo 20, answer and
    reuse 2 each, and once five to render the views.
    """
    from depthlm_ros.training.studies.registry import study_named
    from depthlm_ros.training.studies.report import write_results, write_section
    from depthlm_ros.training.studies.runner import run_study
    from depthlm_ros.training.studies.study import Options, StudyError

    try:
        chosen = study_named(name)
        if name == "focal" and base is not None:
            raise InputError("focal trains from nothing: leave --base out")
        missing = [module for module in _FINETUNE if name == "grpo" and find_spec(module) is None]
        if missing:
            raise InputError(
                f"grpo needs {', '.join(missing)}: pip install 'depthlm_ros[train]', or make setup"
            )
        options = Options(
            run,
            seeds,
            steps or chosen.steps,
            chosen.batch,
            queries or chosen.queries,
            views,
            base,
            train_views,
        )
        text = write_results(chosen, options, run_study(chosen, options), _command(chosen, options, docs))
        if docs is not None:
            write_section(docs, name, text)
    except StudyError as error:
        raise InputError(str(error)) from error
    typer.echo(text)


def _command(study: Study, options: Options, docs: Path | None) -> str:
    """The command line, with what differs from the defaults."""
    words = ["depthlm", "study", study.name, "--run", str(options.run)]
    given = {
        "--views": options.views if options.views != _VIEWS else None,
        "--base": options.base,
        "--seeds": options.seeds if options.seeds != _SEEDS else None,
        "--steps": options.steps if options.steps != study.steps else None,
        "--queries": options.queries if options.queries != study.queries else None,
        "--train-views": options.train_views or None,
        "--docs": docs,
    }
    for flag, value in given.items():
        words += [] if value is None else [flag, str(value)]
    return shlex.join(words)
