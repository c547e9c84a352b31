"""The sections of a model card about depth: what ``depthlm eval`` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from depthlm_ros.evaluation.table import cell_text, markdown_table


def depth_section(run: Mapping[str, Any]) -> str:
    """The section of one run of ``depthlm eval``: its command, its table, and each data set.

    Args:
        run: The record of a :class:`~depthlm_ros.evaluation.card_files.Measured`.

    Raises:
        KeyError: The record lacks something, as one of another version of ``depthlm eval`` may.
    """
    made_by = run["made_by"]
    digests = "; ".join(f"`{name}` `{digest}`" for name, digest in made_by["labels_sha256"].items())
    rendered = dict.fromkeys(made_by.get("rendered", {}).values())
    commands = "\n".join([*rendered, made_by["command"]])
    parts = [
        f"```bash\n{commands}\n```",
        f"Version {made_by['version']}; SHA-256 of the labels and cameras: {digests}.",
        markdown_table(run["table"]),
        *(_data_set(name, figures) for name, figures in run["datasets"].items()),
    ]
    return "\n\n".join(part.strip("\n") for part in parts)


def _data_set(name: str, figures: Mapping[str, Any]) -> str:
    status = ", ".join(f"{reason} {count}" for reason, count in figures["status"].items())
    facts = [
        f"{figures['n']} labels of {figures['images']} images (mean level {figures['mean_level']:.3f} of 255); "
        f"{status}",
        *_answered_only(figures["answered_only"]),
        f"AbsRel {_number(figures['abs_rel'])}, RMSE {_number(figures['rmse'])} m over the answered",
        f"correlation within an image, median: {_number(figures['log_correlation'])} of log depth, "
        f"{_number(figures['rank_correlation'])} of ranks",
        *_confidence(figures["confidence"], figures["sigma"]),
        *_shape(figures["dense"], figures["static"]),
    ]
    if figures["failures"]:
        facts.append(f"{len(figures['failures'])} images could not be used and count nowhere")
    tables = [
        "| true z-depth [m] | delta1 | AbsRel | labels |\n|---|---|---|---|\n"
        + "\n".join(
            f"| {row['from_m']:g} {'and more' if row['to_m'] is None else 'to ' + format(row['to_m'], 'g')} "
            f"| {cell_text(row)} | {_number(row['abs_rel'])} | {row['n']} |"
            for row in figures["by_depth"]
            if row["n"]
        ),
        _canvases(figures["by_canvas"]),
    ]
    return "\n\n".join([f"### {name}", "\n".join(f"- {fact}" for fact in facts), *tables])


def _answered_only(rows: Mapping[str, Any] | None) -> list[str]:
    """What remains between the model and the predictors where its missing answers do not count."""
    if rows is None:
        return []
    (own, *others) = rows.items()
    beside = ", ".join(f"`{name}` {cell_text(row)}" for name, row in others)
    return [f"delta1 on the {own[1]['n']} labels that it answered alone: {cell_text(own[1])}; {beside}"]


def _canvases(by_canvas: Mapping[str, Any]) -> str:
    rows = [(name, row) for name, group in by_canvas.items() for row in group]
    lines = [
        "| canonical view by | px | delta1 | below the best | labels | scenes |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows:
        lines.append(
            f"| {name} | {_range(name, row)} | {cell_text(row)} | {_gap(row)} | {row['n']} | {row['scenes']} |"
        )
    name, worst = max(rows, key=lambda entry: entry[1]["below_best"])
    largest = (
        f"Farthest below the best of its grouping: {_gap(worst)}, {name} {_range(name, worst)}. The best is best in "
        "part by chance, the more so the smaller the groups."
    )
    return "\n".join(lines) + f"\n\n{largest}"


def _range(name: str, row: Mapping[str, Any]) -> str:
    if name in ("area", "size"):
        low, high = (f"{width}x{height}" for width, height in (row["smallest"], row["largest"]))
    else:
        low, high = (f"{row[end]:.3g}" for end in ("from", "to"))
    return low if low == high else f"{low} to {high}"


def _gap(row: Mapping[str, Any]) -> str:
    interval = row["below_best_interval95"]
    return f"{row['below_best']:.3f}" + (
        "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    )


def _confidence(confidence: Mapping[str, Any], sigma: Mapping[str, Any]) -> list[str]:
    facts = []
    if confidence["n"]:
        curves = confidence["sparsification"]
        error, chance = confidence["calibration_error"], confidence["calibration_error_if_perfect"]
        facts.append(
            f"confidence: expected calibration error {error['equal_mass']:.3f} in bins of equal mass "
            f"({chance['equal_mass']:.3f} by chance alone), {error['equal_width']:.3f} of equal width "
            f"({chance['equal_width']:.3f}); AUROC {_number(confidence['auroc'])}; AUSE "
            f"{curves['ause_delta1']:.3f} (delta1), {curves['ause_abs_rel']:.3f} (AbsRel)"
        )
    if confidence["without_confidence"]:
        facts.append(f"{confidence['without_confidence']} answers without a confidence")
    if sigma["n"]:
        facts.append(
            f"sigma: {sigma['coverage']:.1%} of the errors within it, {sigma['coverage_expected']:.1%} expected"
        )
    return facts


def _shape(dense: Mapping[str, Any] | None, static: Mapping[str, Any] | None) -> list[str]:
    facts = []
    if dense is not None:
        edges, planes = dense["boundary"], dense["planes"]
        facts.append(
            f"depth edges: {edges['pairs']} pairs, both answers right and in order for {_number(edges['accuracy'])}, "
            f"in order for {_number(edges['order'])}, equal for {_number(edges['tied'])}; flying points "
            f"{_number(edges['flying_points'])} of {edges['flying_n']} answers"
        )
        facts.append(
            f"planes: {planes['planes']}, flatness {_short(planes['flatness'])} of the distance (truth "
            f"{_short(planes['truth_flatness'])}), tilt {_short(planes['tilt_deg'])} degrees, medians"
        )
    if static is not None:
        facts.append(
            f"static scenes: {static['sets']} sets of {static['pictures']} pictures in all, scale jitter "
            f"{_number(static['scale_jitter'])}, jitter of a point {_number(static['point_jitter'])} (log depth)"
        )
    return facts


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
