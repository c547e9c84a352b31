"""``depthlm eval``: how good a checkpoint is on a DepthLM benchmark, beside predictors that look at no image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from depthlm_ros.cli_common import (
    Checkpoint,
    ConfigFile,
    Device,
    Dtype,
    EngineName,
    Profile,
    Settings,
    build_config,
    engine_options,
    one_line_errors,
)


@one_line_errors
def evaluate(
    data: Annotated[Path, typer.Argument(help="DepthLM benchmark: one JSON object a line.")],
    images: Annotated[Path, typer.Option(help="Directory that the image paths start from.")],
    out: Annotated[Path, typer.Option(help="Directory to write into.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    engine: EngineName = None,
    checkpoint: Checkpoint = None,
    profile: Profile = None,
    device: Device = None,
    dtype: Dtype = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Measure a checkpoint on labelled images.

    A line of DATA holds image, intrinsics [fx, fy, cx, cy, width, height], pixel_coords [[u, v], ...] and depth
    [metres, ...]. OUT gets metrics.json and per_point.csv. delta1 is the share of labels answered within 25 %.
    """
    options = build_config(config, settings, engine_options(engine, checkpoint, profile, device, dtype))
    from rich.console import Console
    from rich.progress import Progress

    from depthlm_ros import evaluation
    from depthlm_ros.session import open_estimator

    samples = evaluation.read_benchmark(data, images, limit=limit)
    console = Console()
    with open_estimator(options) as estimator, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("images", total=len(samples))
        measured = evaluation.evaluate(
            estimator,
            samples,
            max_megapixels=options.camera.max_megapixels,
            on_image=lambda: progress.advance(task),
        )
    metrics = measured.write(out)
    console.print(_table(metrics))
    reasons = ", ".join(f"{name} {count}" for name, count in metrics["status"].items())
    console.print(f"{metrics['n']} labels of {metrics['images']} images: {reasons}", highlight=False)
    console.print(f"{out}: metrics.json, per_point.csv", highlight=False, markup=False, soft_wrap=True)


def _table(metrics: dict[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("predictor", title=f"{metrics['n']} labels")
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
