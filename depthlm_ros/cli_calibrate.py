"""``depthlm calibrate``: what a checkpoint's certainty means, fitted on labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthlm_ros.cli_common import InputError, one_line_errors
from depthlm_ros.cli_eval import Data, Images, Limit, ask_all, name_failures, read_data
from depthlm_ros.cli_options import ModelOptions, with_groups

if TYPE_CHECKING:
    from depthlm_ros.config import EngineConfig
    from depthlm_ros.evaluation.fitting import Fit

_DIGITS = 16
"""Of a SHA-256, as many as tell any two apart that are not made to be alike."""


@one_line_errors
@with_groups
def calibrate(
    data: Data,
    images: Images,
    model: ModelOptions,
    write: Annotated[
        bool, typer.Option("--write", help="Put the calibration into the checkpoint's depthlm.json.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the profile with the calibration into this new file.")
    ] = None,
    limit: Limit = None,
) -> None:
    """Fit a checkpoint's confidence and sigma on labelled images.

    DATA is what `depthlm eval` reads: images like those of the task, but neither trained on nor to be scored on.
    Every label is asked through the engine; the fit is to the log-probabilities of the answers. The figures are of
    images that the fit did not see (in five parts, each by a fit to the others), while what is written is fitted on
    all. Without --write or --out nothing is written.
    """
    if write and out is not None:
        raise InputError("--write and --out: expected one of them: the checkpoint's own file, or a new one")
    options = model.configured()

    from depthlm_ros.engines.factory import resolve_checkpoint
    from depthlm_ros.evaluation.fitting import fit_answers
    from depthlm_ros.evaluation.provenance import made_by
    from depthlm_ros.profile_calibration import check_writable, write_calibrated

    folder, name = resolve_checkpoint(options.engine), options.engine.profile
    path = check_writable(folder, name, out) if write or out is not None else None
    benchmarks = read_data(data, images, limit)
    read = dict(zip(map(str, data), benchmarks.values(), strict=True))
    origin = made_by("", options.engine, read)
    measured = list(ask_all(options, benchmarks))
    fit = fit_answers(measured, _fitted_on(origin, list(benchmarks), options.engine, measured[0].model))
    for line in _in_words(fit):
        typer.echo(line)
    if path is None:
        typer.echo(
            "nothing is written: --write puts it into the checkpoint's depthlm.json, --out into a new file"
        )
    else:
        write_calibrated(fit.calibration, folder, name, path)
        typer.echo(f"{path}: calibrated")
        if write and name:
            typer.echo(f"from now on leave --profile {name} out: with it, the file is not read")
    name_failures(measured, "the fit is without them")


def _fitted_on(origin: Mapping[str, Any], names: list[str], engine: EngineConfig, model: str) -> str:
    labels = ", ".join(
        f"{name} ({_made(origin, path)}labels SHA-256 {digest[:_DIGITS]})"
        for name, (path, digest) in zip(names, origin["labels_sha256"].items(), strict=True)
    )
    weights = origin["checkpoint"].get("sha256")
    known = f"weights SHA-256 {weights[:_DIGITS]}" if weights else "weights not known here"
    asked = f"engine {engine.name} ({model}), device {engine.device}, dtype {engine.dtype}"
    return f"labels of {labels}; {known}; {asked}"


def _made(origin: Mapping[str, Any], path: str) -> str:
    command = origin["rendered"].get(path)
    return "" if command is None else f"`{command}`, "


def _in_words(fit: Fit) -> list[str]:
    left_out = f"; {fit.unscored} answers without log-probabilities are left out" if fit.unscored else ""
    how = (
        "by fits to other images"
        if fit.crossed
        else "in-sample, of the one image that it was fitted on: it looks better than it is"
    )
    return [
        f"{fit.answers} answers, {fit.scenes} images or static scenes{left_out}",
        f"before: {_figures(fit.before)}",
        f"after ({how}): {_figures(fit.after)}",
    ]


def _figures(figures: Mapping[str, Any]) -> str:
    sure, sigma = figures["confidence"], figures["sigma"]
    if not sure["n"]:
        return "no calibration: confidence and sigma are NaN"
    auroc = "-" if sure["auroc"] is None else f"{sure['auroc']:.3f}"
    within = f"{sigma['coverage']:.1%}" if sigma["n"] else "-"
    return (
        f"calibration error {sure['calibration_error']['equal_mass']:.3f} (chance alone: "
        f"{sure['calibration_error_if_perfect']['equal_mass']:.3f}), AUROC {auroc}, {within} of errors within sigma"
    )
