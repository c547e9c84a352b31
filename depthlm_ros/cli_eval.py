"""``depthlm eval``: how good a checkpoint is on DepthLM benchmarks, beside predictors that look at no image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthlm_ros.cli_common import InputError, one_line_errors
from depthlm_ros.cli_options import ModelOptions, with_groups

if TYPE_CHECKING:
    from depthlm_ros.config import DepthLMConfig
    from depthlm_ros.evaluation import Evaluation, LabelledImage

_FAILURES_NAMED = 5

Data = Annotated[list[Path], typer.Argument(help="DepthLM benchmarks: one JSON object a line.")]
Images = Annotated[
    list[Path],
    typer.Option(help="Directory that the paths in DATA start from: one for all, or one for each, in order."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many images of each DATA.")]


@one_line_errors
@with_groups
def evaluate(
    data: Data,
    images: Images,
    out: Annotated[Path, typer.Option(help="Directory to write into.")],
    model: ModelOptions,
    limit: Limit = None,
    dense: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Ask N more pixels (24 or more) of each image that has dense truth: half on both sides of depth "
            "edges, half on one flat surface. Costs N queries an image. 0: none.",
        ),
    ] = 0,
) -> None:
    """Measure a checkpoint on labelled images.

    A line of DATA holds image, intrinsics [fx, fy, cx, cy, width, height], pixel_coords [[u, v], ...] and depth
    [metres, ...]; it may name a file of dense truth (dense) and a static scene that it shares with other lines
    (static). delta1 is the share of labels answered within 25 %.

    OUT gets metrics.json, per_point.csv and report.png, with --dense also dense.csv. With several DATA each gets
    a folder of these in OUT, named after the file, and OUT itself metrics.json, table.md and report.png: delta1 of
    every predictor on every data set, and the average.

    Images that cannot be used are named, counted and left out; then the exit code is 1.
    """
    options = model.configured()
    benchmarks = read_data(data, images, limit)
    given = [
        *(("--images", root) for root in images), ("--out", out), ("--limit", limit), ("--dense", dense or None),
        *model.words(),
    ]  # fmt: skip

    from rich.console import Console

    from depthlm_ros.evaluation.provenance import command_line, made_by

    read = dict(zip(map(str, data), benchmarks.values(), strict=True))
    origin = made_by(command_line(["depthlm", "eval", *data], given), options.engine, read)
    console = Console()
    measured: list[tuple[Evaluation, dict[str, Any]]] = []
    for one in ask_all(options, benchmarks, dense=dense):
        # Written at once: an engine that fails on the next data set must not cost this one.
        measured.append((one, one.write(out if len(data) == 1 else out / one.name, origin)))
    for one, metrics in measured:
        _report(one, metrics, out if len(data) == 1 else out / one.name, console)
    if len(measured) > 1:
        _compare(measured, out, origin, console)
    name_failures([one for one, _ in measured], "metrics.json lists them all")


def read_data(data: list[Path], images: list[Path], limit: int | None) -> dict[str, list[LabelledImage]]:
    """The benchmarks that a command names, by :func:`distinct_names`, in their order.

    Raises:
        InputError: The directories are neither one nor as many as the benchmarks, or a file is given twice.
        BenchmarkError: A file cannot be used.
    """
    roots = images * len(data) if len(images) == 1 else images
    if len(roots) != len(data):
        raise InputError(
            f"--images: expected one directory, or one for each DATA, got {len(images)} for {len(data)}"
        )
    names = distinct_names(data)
    from depthlm_ros.evaluation import read_benchmark

    return {
        name: read_benchmark(path, root, limit=limit)
        for name, path, root in zip(names, data, roots, strict=True)
    }


def ask_all(
    options: DepthLMConfig, benchmarks: dict[str, list[LabelledImage]], *, dense: int = 0
) -> Iterator[Evaluation]:
    """Ask the configured engine for every label, with a bar of progress; one benchmark after the other."""
    from rich.console import Console
    from rich.progress import Progress

    from depthlm_ros import evaluation
    from depthlm_ros.session import open_estimator

    with open_estimator(options) as estimator, Progress(console=Console(stderr=True)) as progress:
        for name, samples in benchmarks.items():
            task = progress.add_task(name, total=len(samples))
            yield evaluation.evaluate(
                estimator,
                samples,
                max_megapixels=options.camera.max_megapixels,
                name=name,
                dense=dense,
                on_image=lambda task=task: progress.advance(task),  # type: ignore[misc]
            )


def distinct_names(paths: list[Path]) -> list[str]:
    """What data sets are called: the names of their files, with their folders where files are called alike.

    Raises:
        InputError: A file is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("DATA: a file is given twice")
    for depth in range(1, max(len(path.resolve().parts) for path in paths)):
        names = ["_".join(path.resolve().with_suffix("").parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise InputError("DATA: two files differ in the ending of their names only; rename one")


def _report(measured: Evaluation, metrics: dict[str, Any], out: Path, console: Any) -> None:
    """Print one data set's figures and draw them."""
    from depthlm_ros.evaluation.plot import draw_report

    draw_report(measured, metrics, out / "report.png")
    console.print(_table(metrics))
    for line in _in_words(metrics):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    files = "metrics.json, per_point.csv, report.png" + (", dense.csv" if metrics["dense"] else "")
    console.print(f"{out}: {files}", highlight=False, markup=False, soft_wrap=True)


def _in_words(metrics: dict[str, Any]) -> list[str]:
    reasons = ", ".join(f"{name} {count}" for name, count in metrics["status"].items())
    lines = [
        f"{metrics['n']} labels of {metrics['images']} images: {reasons}",
        f"within an image (median): rank correlation {_number(metrics['rank_correlation'])}, "
        f"correlation of log depth {_number(metrics['log_correlation'])}",
    ]
    sure = metrics["confidence"]
    if sure["n"]:
        lines.append(
            f"confidence: calibration error {_number(sure['calibration_error']['equal_mass'])} "
            f"(chance alone: {_number(sure['calibration_error_if_perfect']['equal_mass'])}), "
            f"AUROC {_number(sure['auroc'])}, AUSE(delta1) {_number(sure['sparsification']['ause_delta1'])}"
        )
    if metrics["sigma"]["n"]:
        expected = metrics["sigma"]["coverage_expected"]
        lines.append(
            f"sigma: {metrics['sigma']['coverage']:.1%} of errors within it, {expected:.1%} expected"
        )
    if metrics["static"]:
        static = metrics["static"]
        lines.append(f"static scenes: {static['sets']}, scale jitter {_number(static['scale_jitter'])}")
    if metrics["dense"]:
        edges, planes = metrics["dense"]["boundary"], metrics["dense"]["planes"]
        lines.append(
            f"{edges['pairs']} edge pairs: accuracy {_number(edges['accuracy'])}, right order "
            f"{_number(edges['order'])}, flying points {_number(edges['flying_points'])}; {planes['planes']} planes: "
            f"flatness {_number(planes['flatness'])} of the distance (truth {_number(planes['truth_flatness'])})"
        )
    return lines


def _compare(
    measured: list[tuple[Evaluation, dict[str, Any]]], out: Path, made_by: dict[str, Any], console: Any
) -> None:
    """Print and write the table over all data sets."""
    from rich.markup import escape
    from rich.table import Table

    from depthlm_ros.evaluation.plot import draw_comparison
    from depthlm_ros.evaluation.table import cell_text, markdown_table, paper_table

    rows = paper_table([one for one, _ in measured])
    record = {
        "model": measured[0][0].model,
        "table": rows,
        "datasets": {one.name: metrics for one, metrics in measured},
        "made_by": made_by,
    }
    (out / "metrics.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (out / "table.md").write_text(markdown_table(rows), encoding="utf-8")
    draw_comparison(rows, out / "report.png")
    table = Table("predictor", title="delta1 (95 % interval)")
    for name in next(iter(rows.values())):
        table.add_column(escape(name), justify="right")
    for predictor, cells in rows.items():
        table.add_row(escape(predictor), *(cell_text(cell) for cell in cells.values()))
    console.print(table)
    console.print(f"{out}: metrics.json, table.md, report.png", highlight=False, markup=False, soft_wrap=True)


def name_failures(measured: list[Evaluation], listed: str) -> None:
    """Say which images were left out and why, and end with exit code 1 if any was."""
    failures = [(one.name, failure) for one in measured for failure in one.failures]
    if not failures:
        return
    for name, failure in failures[:_FAILURES_NAMED]:
        typer.secho(f"depthlm: {name}: {failure.reason}", fg=typer.colors.RED, err=True)
    labels = sum(failure.labels for _, failure in failures)
    rest = len(failures) - _FAILURES_NAMED
    typer.secho(
        f"depthlm: {len(failures)} images with {labels} labels were left out"
        + (f", {rest} more than named here" if rest > 0 else "")
        + f"; {listed}",
        fg=typer.colors.RED,
        err=True,
    )
    raise typer.Exit(1)


def _table(metrics: dict[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("predictor", title=f"{metrics['name']}: {metrics['n']} labels")
    for name in ("delta1", "95 % interval", "abs_rel", "rmse [m]", "answered"):
        table.add_column(name, justify="right")
    for name, figures in ((metrics["model"], metrics), *metrics["trivial"].items()):
        low_high = figures["delta1_interval95"]
        table.add_row(
            escape(name),
            f"{figures['delta1']:.3f}",
            "-" if low_high is None else f"{low_high[0]:.3f} to {low_high[1]:.3f}",
            _number(figures["abs_rel"]),
            _number(figures["rmse"]),
            f"{figures['answered']:.1%}",
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
