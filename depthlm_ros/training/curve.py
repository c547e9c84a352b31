"""The picture of a run of the embedded recipe: its losses and what it scored on validation scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from depthlm_ros.training.config import TrainingConfig
from depthlm_ros.training.log import read_log

CURVE_FILE = "curve.png"

_LOSSES = (
    ("dense", "dense depth", "#0072b2"),
    ("pointed", "depth at the arrow", "#56b4e9"),
    ("text", "answer, per token", "#d55e00"),
)
_SCORES = (
    ("robot_tower_delta1", "robot, vision tower", "#0072b2", "--"),
    ("wide_tower_delta1", "wide, vision tower", "#e69f00", "--"),
    ("robot_text_delta1", "robot, text answer", "#0072b2", "-"),
    ("wide_text_delta1", "wide, text answer", "#e69f00", "-"),
)
_SMOOTHED = 20
"""Logged steps that one point of a loss curve is the mean of."""


def read_metrics(run: Path, config: TrainingConfig) -> list[dict[str, Any]]:
    """The lines of a run's log with ``views``: how many views both stages had seen."""
    records = read_log(run)
    first = max((r["step"] for r in records if r["stage"] == "vision"), default=0) * config.vision.batch
    for record in records:
        text = record["stage"] == "text"
        record["views"] = (
            first + record["step"] * config.text.batch if text else record["step"] * config.vision.batch
        )
    return records


def draw_curve(run: Path, config: TrainingConfig) -> None:
    """Write ``curve.png`` into the folder of a run; nothing where nothing is logged yet.

    Args:
        run: The folder, with ``metrics.jsonl``.
        config: The recipe.
    """
    from matplotlib.figure import Figure

    records = read_metrics(run, config)
    if not records:
        return
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for key, label, colour in _LOSSES:
        points = [(r["views"], r[key]) for r in records if key in r]
        groups = [points[k : k + _SMOOTHED] for k in range(0, len(points), _SMOOTHED)]
        means = [tuple(sum(column) / len(group) for column in zip(*group, strict=True)) for group in groups]
        if means:
            losses.plot(*zip(*means, strict=True), color=colour, label=label)
    for key, label, colour, style in _SCORES:
        points = [(r["views"], r[key]) for r in records if key in r]
        if points:
            scores.plot(*zip(*points, strict=True), style, color=colour, marker="o", label=label)
    losses.set_ylabel("loss (nats)")
    scores.set_ylabel("delta1 on validation scenes")
    scores.set_ylim(0.0, 1.0)
    boundary = [r["views"] for r in records if r["stage"] == "text"]
    for axes in (losses, scores):
        axes.set_xlabel("views seen")
        axes.grid(alpha=0.3)
        if boundary:
            axes.axvline(boundary[0], color="0.5", linewidth=1.0, linestyle=":")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.savefig(run / CURVE_FILE, dpi=120)
