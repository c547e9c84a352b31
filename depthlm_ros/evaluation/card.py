"""A model card from the files of evaluations and of the checkpoint: no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence

from depthlm_ros.evaluation.benchmark import BenchmarkError
from depthlm_ros.evaluation.card_checkpoint import how_it_was_made, how_to_ask, is_embedded, what_it_is
from depthlm_ros.evaluation.card_figures import depth_section
from depthlm_ros.evaluation.card_files import Checkpoint, Measured
from depthlm_ros.evaluation.card_spatial import spatial_section
from depthlm_ros.evaluation.provenance import check_profiles, check_weights, profile_origin

_EMBEDDED_LICENCE = "Apache-2.0, as this package."
_UNKNOWN_LICENCE = "Not stated here: read the terms of the checkpoint's publisher."

_USE = """\
Metric depth at single pixels of a calibrated RGB image, with a confidence for each, through `depthlm` or the ROS 2
node. A pixel whose answer cannot be read stays NaN with its reason; nothing is filled in.

Not for: the only obstacle sensor of a robot; images without a calibration; scenes unlike those that it was trained
and measured on."""

_DEPTH = """\
delta1 is the share of labels answered within 25 % of the truth, a label without an answer being a miss; in brackets
95 % intervals over images. `best_constant` and `oracle_image_constant` see the labels."""

_SPATIAL = """\
Of spatial questions, `direct` is what the model says in the task's words, `derived` what follows from its depths by
geometry. The share within 25 % is of all questions (of motions: of those that moved at all), errors are medians over
the answered ones; in brackets 95 % intervals over questions. Of normal errors 68.3 % are within one sigma.
`best_constant` sees the truth; `no_motion` says that the camera stood still."""

_UNKNOWN_PROFILE = """\
By which `depthlm.json` these were measured is not known, and may not be that of the checkpoint now: {files}."""

_LIMITS = (
    "Numbers hold for data like that they were measured on; the tables say which.",
    "What the model sees in a picture is what lies between its figures and those of the predictors that do not look.",
    "Intervals are bootstraps over images, or over questions; they cover no other camera, site or seed of training.",
    "Queries beside edges leave out things thinner than a few pixels of the canonical view.",
)


def model_card(
    depth: Sequence[Measured],
    spatial: Sequence[Measured],
    checkpoint: Checkpoint,
    licence: str | None,
    command: str,
) -> str:
    """Write a model card.

    Args:
        depth: Runs of ``depthlm eval``, one or more.
        spatial: Runs of ``depthlm ask-eval``.
        checkpoint: What was measured.
        licence: The licence of the weights, in words; None is known for the embedded checkpoint alone.
        command: The command that writes this card.

    Returns:
        Markdown.

    Raises:
        BenchmarkError: No run measured depth; the runs are of different models, weights or profiles, or of others
            than the checkpoint's; or a file is of another version of this package.
    """
    if not depth:
        raise BenchmarkError(
            "a model card needs a run of `depthlm eval`, but all runs are of `depthlm ask-eval`"
        )
    runs = [*depth, *spatial]
    models = sorted({run.model for run in runs})
    if len(models) != 1:
        raise BenchmarkError(f"a model card is about one model, but the runs are of {', '.join(models)}")
    measured = {str(run.path): run.record["made_by"]["checkpoint"] for run in runs}
    check_weights(measured, checkpoint.folder, checkpoint.weights)
    unknown = check_profiles(
        {str(run.path): run.record["made_by"].get("profile") for run in runs},
        profile_origin(checkpoint.folder, checkpoint.profile_name),
    )
    try:
        figures = [_DEPTH, *(depth_section(run.record) for run in depth)]
        figures += [_SPATIAL, *(spatial_section(run.record) for run in spatial)] if spatial else []
        made = how_it_was_made(checkpoint)
    except KeyError as error:
        raise BenchmarkError(
            f"a file lacks {error}: another version of `depthlm eval`, `ask-eval` or `train` wrote it; run it again"
        ) from error
    known = _EMBEDDED_LICENCE if is_embedded(checkpoint) else _UNKNOWN_LICENCE
    parts = [
        f"# Model card: {models[0]}",
        f"Written by `{command}` from the files of the evaluations and of the checkpoint.",
        "## What it is",
        what_it_is(checkpoint),
        "## How to ask it",
        how_to_ask(checkpoint),
        "## Intended use",
        _USE,
        "## How good it is",
        *([_UNKNOWN_PROFILE.format(files=", ".join(f"`{name}`" for name in unknown))] if unknown else []),
        *figures,
        "## How it was made",
        made,
        "## Limits",
        "\n".join(f"- {limit}" for limit in _LIMITS),
        "## Licence",
        licence or known,
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"
