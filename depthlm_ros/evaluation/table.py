"""The paper's table: one row per predictor, one column per data set, and the average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from depthlm_ros.evaluation.metrics import Floats, bootstrap_rates, interval95, middle95, within_delta1
from depthlm_ros.evaluation.results import Evaluation

AVERAGE = "average"
"""The last column: the mean of the others, every data set counting alike."""


def paper_table(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, dict[str, Any]]]:
    """delta1 of each predictor on each data set, as in the paper's tables.

    Args:
        evaluations: One per data set, of different names, answered by one model.

    Returns:
        {predictor: {data set: {``delta1``, ``delta1_interval95``}}}, the model first and :data:`AVERAGE` last among
        the data sets. The interval of the average draws images anew within each data set; an interval is None where
        a data set has a single image.
    """
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    draws: dict[str, list[Floats | None]] = {}
    for number, evaluation in enumerate(evaluations):
        truth = evaluation.by_scene(evaluation.truth)
        predictions = {evaluation.model: evaluation.predicted, **evaluation.trivial}
        for predictor, guesses in predictions.items():
            said = evaluation.by_scene(guesses)
            hits = [within_delta1(z, guess) for z, guess in zip(truth, said, strict=True)]
            # A seed of its own for each data set: with a common one their errors would seem to go together.
            draws.setdefault(predictor, []).append(bootstrap_rates(hits, seed=number))
            rows.setdefault(predictor, {})[evaluation.name] = {
                "delta1": float(np.concatenate(hits).mean()),
                "delta1_interval95": interval95(hits),
            }
    for predictor, cells in rows.items():
        known = [rates for rates in draws[predictor] if rates is not None]
        cells[AVERAGE] = {
            "delta1": float(np.mean([cell["delta1"] for cell in cells.values()])),
            "delta1_interval95": middle95(np.mean(known, axis=0)) if len(known) == len(cells) else None,
        }
    return rows


def markdown_table(rows: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The table of :func:`paper_table` as Markdown, with the intervals."""
    columns = list(next(iter(rows.values())))
    lines = [f"| delta1 | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for predictor, cells in rows.items():
        lines.append(f"| {predictor} | {' | '.join(cell_text(cells[name]) for name in columns)} |")
    return "\n".join(lines) + "\n"


def cell_text(cell: dict[str, Any]) -> str:
    """delta1 with its interval, such as ``0.506 (0.478 to 0.534)``."""
    interval = cell["delta1_interval95"]
    return f"{cell['delta1']:.3f}" + (
        "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    )
