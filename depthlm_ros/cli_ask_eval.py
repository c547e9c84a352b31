"""``depthlm ask-eval``: how well spatial questions are answered, on rendered scenes."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from depthlm_ros.cli_ask import TASK_NAMES, Way, named_task, named_way
from depthlm_ros.cli_common import named_domain, one_line_errors
from depthlm_ros.cli_options import ModelOptions, with_groups
from depthlm_ros.spatial.tasks import TASKS, SpatialTask

_COLUMNS = ("answered", "within_25", "median_relative_error")
_MOTION_COLUMNS = ("median_translation_error_m", "median_rotation_error_deg")


@one_line_errors
@with_groups
def ask_eval(
    out: Annotated[Path, typer.Option(help="Directory to write into.")],
    model: ModelOptions,
    samples: Annotated[
        int, typer.Option(min=1, help="Questions per task, each on a scene of its own.")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same questions.")] = 717171,
    domain: Annotated[str, typer.Option(help="What to draw: robot or wide.")] = "robot",
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help=f"Only this task; repeatable. One of {TASK_NAMES}."),
    ] = None,
    way: Way = "auto",
) -> None:
    """Measure spatial answers on rendered scenes.

    `--way auto` measures the derived answers, and beside them the direct ones of the tasks that the checkpoint was
    trained for. within 25 % is the share of all questions; errors are medians of the answered ones; in sigma is the
    share of them below the answer's sigma (0.683 is expected of normal errors). OUT gets spatial.json, with 95 %
    intervals over questions.
    """
    from rich.console import Console
    from rich.progress import Progress

    from depthlm_ros.evaluation.provenance import command_line, made_by
    from depthlm_ros.session import open_estimator
    from depthlm_ros.spatial import scoring

    tasks = [named_task(name) for name in task] if task else list(SpatialTask)
    drawn_from = named_domain(domain)
    named_way(way)
    options = model.configured()
    given: list[tuple[str, object]] = [
        ("--out", out), ("--samples", samples), ("--seed", seed), ("--domain", domain),
        *(("--task", name) for name in task or []), ("--way", way),
        *model.words(),
    ]  # fmt: skip
    origin = made_by(command_line(["depthlm", "ask-eval"], given), options.engine)
    results: dict[str, Any] = {}
    with open_estimator(options) as estimator, Progress(console=Console(stderr=True)) as progress:
        for one in tasks:
            trained = one.value in estimator.profile.spatial_tasks
            ways = [way] if way != "auto" else ["direct", "derived"] if trained else ["derived"]
            bar = progress.add_task(one.value, total=samples)
            drawn = scoring.questions(estimator, one, samples, seed, drawn_from)
            measured = scoring.score_task(estimator, drawn, ways, partial(progress.advance, bar))
            results[one.value] = {"unit": TASKS[one].unit, **measured}
        answered = estimator.engine.model_name
    record = {"model": answered, "domain": domain, "seed": seed, "tasks": results, "made_by": origin}
    path = scoring.write_scores(record, out)
    # Beyond a terminal rich knows no width, and would cut the columns.
    Console(width=None if Console().is_terminal else 110).print(_table(record))
    typer.echo(str(path))


def _table(record: dict[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{record['model']}, {record['domain']}"))
    for name in ("task", "way"):
        table.add_column(name, no_wrap=True)
    for name in ("answered", "within 25 %", "rel. error", "in sigma", "transl. [m]", "rot. [deg]"):
        table.add_column(name, justify="right")
    for task, result in record["tasks"].items():
        rows = {name: result[name] for name in ("direct", "derived") if name in result}
        same = {f"no_motion, if {n}": row["no_motion"] for n, row in rows.items() if "no_motion" in row}
        for name, row in {**rows, **same, **result["trivial"]}.items():
            cells = [row[column] for column in _COLUMNS] + [row.get("sigma", {}).get("coverage")]
            table.add_row(task, name, *map(_cell, cells + [row.get(column) for column in _MOTION_COLUMNS]))
    return table


def _cell(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
