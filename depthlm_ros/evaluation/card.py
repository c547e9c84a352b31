"""A model card from the files of evaluations and of the training: no number in it is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depthlm_ros.evaluation.benchmark import BenchmarkError
from depthlm_ros.evaluation.table import cell_text, markdown_table
from depthlm_ros.profile import CheckpointProfile

_USE = """\
Metric z-depth at single pixels of a calibrated RGB image, with a confidence for each, through `depthlm` or the ROS 2
node. A pixel whose answer cannot be read stays NaN with its reason; nothing is filled in.

Not for: the only obstacle sensor of a robot; images without a calibration; scenes unlike those that it was trained
and measured on."""

_STAGES = """\
One departure from the paper: the vision tower is pre-trained on *dense* depth of rendered scenes, through linear
heads that are then thrown away, in place of the web-scale pre-training of a published vision-language model. The text
fine-tuning that follows is the paper's: a pixel, a sentence, a number, sparse labels. It has seen rendered scenes
only, no photograph."""

_LIMITS = (
    "Numbers hold for data like that they were measured on; the tables say which.",
    "What the model sees in a picture is what lies between its delta1 and those of the predictors that do not look.",
    "Intervals are bootstraps over the images of a data set; they cover no other camera, site or seed of training.",
    "Queries beside edges leave out things thinner than a few pixels of the canonical view.",
)


def read_run(folder: Path) -> dict[str, Any]:
    """Read the ``metrics.json`` that ``depthlm eval`` wrote into a directory.

    Returns:
        The record, with ``datasets`` {name: figures} and ``table`` also where there is only one data set.

    Raises:
        BenchmarkError: There is none, or it is not one of ``depthlm eval``.
    """
    path = folder / "metrics.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if "datasets" in record:
            figures = list(record["datasets"].values())
            known = all("by_depth" in one for one in figures) and "table" in record
        else:
            known = "by_depth" in record
        model, made_by = record["model"], record["made_by"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(f"{path}: expected what `depthlm eval` writes: {error!r}") from error
    if not known:
        raise BenchmarkError(f"{path}: expected what `depthlm eval` of this version writes; run it again")
    if "datasets" in record:
        return dict(record)
    rows = {model: record, **record["trivial"]}
    table = {name: {record["name"]: figures} for name, figures in rows.items()}
    return {"model": model, "table": table, "datasets": {record["name"]: record}, "made_by": made_by}


def model_card(
    runs: Sequence[Mapping[str, Any]],
    profile: CheckpointProfile,
    training: Mapping[str, Any] | None,
    licence: str,
    command: str,
) -> str:
    """Write a model card.

    Args:
        runs: What :func:`read_run` gave, one or more, all of one model.
        profile: The checkpoint's profile.
        training: The checkpoint's ``training.json``; None where it has none.
        licence: The licence of the weights, in words.
        command: The command that writes this card.

    Returns:
        Markdown.

    Raises:
        BenchmarkError: The runs are of different models, or of another version of ``depthlm eval``.
    """
    models = sorted({run["model"] for run in runs})
    if len(models) != 1:
        raise BenchmarkError(f"a model card is about one model, but the runs are of {', '.join(models)}")
    try:
        measured = [_run(run) for run in runs]
    except KeyError as error:
        raise BenchmarkError(
            f"a metrics.json lacks {error}: another version of `depthlm eval` wrote it; run it again"
        ) from error
    parts = [
        f"# Model card: {models[0]}",
        f"Written by `{command}` from the files of the evaluations and of the checkpoint.",
        "## What it is",
        _what(profile, training),
        "## Intended use",
        _USE,
        "## How good it is",
        "delta1 is the share of labels answered within 25 % of the truth, a label without an answer being a miss; in "
        "brackets 95 % intervals over images. `best_constant` and `oracle_image_constant` see the labels.",
        *measured,
        "## How it was trained",
        _training(training),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _LIMITS),
        "## Licence",
        licence,
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _what(profile: CheckpointProfile, training: Mapping[str, Any] | None) -> str:
    facts = [
        f"Profile `{profile.name}`: canonical focal length {profile.canonical_focal_px:g} px, pixel reference "
        f"`{profile.pixel_reference}`, depth convention `{profile.depth_convention}`, answers up to "
        f"{profile.max_depth_m:g} m.",
        f"Question: {profile.question}",
    ]
    if training is not None and "parameters" in training:
        facts.insert(0, f"{training['parameters']} parameters.")
    if profile.calibration is None:
        facts.append("Confidence and sigma: none; the checkpoint has no calibration.")
    else:
        facts.append(
            f"Confidence and sigma fitted on {profile.calibration.fitted_on or 'data not recorded'}."
        )
    return "\n".join(f"- {fact}" for fact in facts)


def _run(run: Mapping[str, Any]) -> str:
    made_by = run["made_by"]
    hashes = "; ".join(f"`{name}` sha256 `{digest}`" for name, digest in made_by["data_sha256"].items())
    parts = [
        f"```bash\n{made_by['command']}\n```",
        f"Version {made_by['version']}; {hashes}.",
        markdown_table(run["table"]),
        *(_data_set(name, figures) for name, figures in run["datasets"].items()),
    ]
    return "\n\n".join(part.strip("\n") for part in parts)


def _data_set(name: str, figures: Mapping[str, Any]) -> str:
    status = ", ".join(f"{reason} {count}" for reason, count in figures["status"].items())
    facts = [
        f"{figures['n']} labels of {figures['images']} images; {status}",
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
        "| canonical view [px] | delta1 | below the best | labels | scenes |\n|---|---|---|---|---|\n"
        + "\n".join(
            f"| {_sizes(row)} | {cell_text(row)} | {row['below_best']:.3f} | {row['n']} | {row['scenes']} |"
            for row in figures["by_canvas"]
        ),
    ]
    return "\n\n".join([f"### {name}", "\n".join(f"- {fact}" for fact in facts), *tables])


def _sizes(row: Mapping[str, Any]) -> str:
    small, large = (f"{width}x{height}" for width, height in (row["smallest"], row["largest"]))
    return small if small == large else f"{small} to {large}"


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


def _training(training: Mapping[str, Any] | None) -> str:
    if training is None:
        return "The checkpoint came without a training record; ask its publisher."
    parts = [_STAGES] if "vision" in training.get("recipe", {}) else []
    # The scores in it were taken otherwise than by `depthlm eval`: one card, one way of measuring.
    settings = {
        key: value for key, value in training.items() if key not in ("validation", "test", "last_losses")
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in _leaves(settings))
    parts.append(f"All settings, from `training.json`:\n\n| setting | value |\n|---|---|\n{rows}")
    return "\n\n".join(parts)


def _leaves(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in record.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", str(value).replace("|", "\\|")))
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
