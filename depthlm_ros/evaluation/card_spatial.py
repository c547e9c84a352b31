"""The section of a model card about spatial questions: what ``depthlm ask-eval`` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOTION = "median_translation_error_m"
"""A figure that camera motions alone have."""


def spatial_section(run: Mapping[str, Any]) -> str:
    """What one run of ``depthlm ask-eval`` measured, direct beside derived beside trivial answers.

    Args:
        run: The record of a :class:`~depthlm_ros.evaluation.card_files.Measured`.

    Raises:
        KeyError: The record lacks something, as one of another version of ``depthlm ask-eval`` may.
    """
    made_by = run["made_by"]
    rows = [(task, *row) for task, result in run["tasks"].items() for row in _ways(result)]
    tables = [
        "| task | answer | questions | answered | within 25 % | relative error | errors within sigma |\n"
        "|---|---|---|---|---|---|---|\n"
        + "\n".join(
            f"| {task} | {way} | {row['n']} | {row['answered']:.1%} | {_cell(row, 'within_25')} "
            f"| {_cell(row, 'median_relative_error')} | {_coverage(row)} |"
            for task, way, row in rows
        )
    ]
    motions = [
        f"| {way} | {_cell(row, _MOTION)} | {_cell(row, 'median_rotation_error_deg')} |"
        for _, way, row in rows
        if _MOTION in row
    ]
    if motions:
        heading = "| camera motion | translation error [m] | rotation error [deg] |\n|---|---|---|\n"
        tables.append(heading + "\n".join(motions))
    return "\n\n".join(
        [
            f"### Spatial questions, {run['domain']} domain",
            f"```bash\n{made_by['command']}\n```",
            f"Version {made_by['version']}; rendered scenes, one question each, seed {run['seed']}.",
            *tables,
            *_beside_the_blind(run["tasks"]),
        ]
    )


def _beside_the_blind(tasks: Mapping[str, Any]) -> list[str]:
    """Which answers are worse, or not shown to be better, than those of a predictor that looks at no image."""
    lines = []
    for task, result in tasks.items():
        for way in ("direct", "derived"):
            row = result.get(way)
            if row is None:
                continue
            motion = "no_motion" in row or "no_motion" in result["trivial"]
            blind = "no_motion" if motion else "best_constant"
            other = row.get(blind) or result["trivial"][blind]
            figure, what = (_MOTION, "translation error") if motion else ("within_25", "share within 25 %")
            if judgement := _against(row, other, figure, more_is_better=not motion):
                lines.append(f"- {way} answers to {task} {judgement} `{blind}` ({what}).")
    return ["\n".join(lines)] if lines else []


def _against(row: Mapping[str, Any], other: Mapping[str, Any], figure: str, *, more_is_better: bool) -> str:
    """How answers compare with a predictor's, by their 95 % intervals; empty where they are better."""
    own, its = row[f"{figure}_interval95"], other[f"{figure}_interval95"]
    if own is None or its is None:
        return "are too few to be compared with"
    low, high = (own, its) if more_is_better else (its, own)
    if low[0] > high[1]:
        return ""
    return "are **worse than**" if low[1] < high[0] else "are **not shown to be better than**"


def _ways(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The ways to an answer and the predictors beside them, in the order of the table."""
    asked = [(way, result[way]) for way in ("direct", "derived") if way in result]
    same = [(f"no_motion, where {way} answers", row["no_motion"]) for way, row in asked if "no_motion" in row]
    return [*asked, *same, *result["trivial"].items()]


def _cell(row: Mapping[str, Any], figure: str) -> str:
    value, interval = row[figure], row[f"{figure}_interval95"]
    if value is None:
        return "-"
    return f"{value:.3f}" + ("" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})")


def _coverage(row: Mapping[str, Any]) -> str:
    """Of trivial predictors, which have no sigma, and where the answers have none: a dash."""
    sigma = row.get("sigma", {"n": 0})
    return f"{sigma['coverage']:.1%} of {sigma['n']}" if sigma["n"] else "-"
