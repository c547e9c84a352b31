"""The sections of a model card about the checkpoint itself: what it is, how to ask it, how it was made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from depthlm_ros.config import EMBEDDED
from depthlm_ros.engines.factory import CHECKPOINTS
from depthlm_ros.evaluation.card_files import TRAINING_FILE, Checkpoint
from depthlm_ros.profile import PROFILE_FILE, CheckpointProfile
from depthlm_ros.prompting import MARKER_MARGIN
from depthlm_ros.spatial.tasks import SpatialTask

_EMBEDDED_PURPOSE = (
    "It lies inside the package, so that the whole pipeline (engine, parser, calibration, ROS topics) runs anywhere, "
    "offline, on one CPU core. For real images use a published DepthLM checkpoint."
)
_RENDERED_ONLY = (
    "**It knows rendered scenes only**: it has never seen a photograph, and makes no claim on real images beyond the "
    "numbers below."
)
_MEASURED_ELSEWHERE = ("validation", "test", "last_losses")
"""Scores of the training's own: taken otherwise than by ``depthlm eval``, and one card has one way of measuring."""


def is_embedded(checkpoint: Checkpoint) -> bool:
    """Whether it is the checkpoint inside this package."""
    return checkpoint.folder.resolve() == (CHECKPOINTS / EMBEDDED).resolve()


def what_it_is(checkpoint: Checkpoint) -> str:
    """What kind of model it is, which weights, and what its numbers mean."""
    profile, training = checkpoint.profile, checkpoint.training or {}
    size = f" of {training['parameters'] / 1e6:.2f} million parameters" if "parameters" in training else ""
    facts = [
        f"`{checkpoint.architecture or 'architecture not recorded'}`{size}: a standard Hugging Face directory.",
        f"Weights: {_weights(checkpoint)}.",
        f"It answers with metres of depth along {_CONVENTION[profile.depth_convention]}, up to "
        f"{profile.max_depth_m:g} m.",
        f"Confidence and sigma: {_calibration(profile)}.",
        _spatial_tasks(profile, training),
    ]
    words = [_EMBEDDED_PURPOSE] if is_embedded(checkpoint) else []
    words += [_RENDERED_ONLY] if _is_staged(checkpoint.training) else []
    return "\n\n".join(["\n".join(f"- {fact}" for fact in facts), *words])


def _spatial_tasks(profile: CheckpointProfile, training: Mapping[str, Any]) -> str:
    direct = profile.spatial_tasks
    listed = "none: all follow from its depths by geometry, and say so"
    if direct:
        listed = f"{', '.join(direct)}; answers to others follow from its depths by geometry, and say so"
    silent = [task for task in _trained_tasks(training) if task not in direct]
    learnt = (
        f" Its training asked {', '.join(silent)} too, which it does not answer directly." if silent else ""
    )
    return f"Spatial questions that it answers directly, in words: {listed}.{learnt}"


def _trained_tasks(training: Mapping[str, Any]) -> list[str]:
    """The spatial tasks that batches of the training asked, from its record."""
    data = training["recipe"]["data"] if _is_staged(training) else {}
    shares = {task: data.get("task_share", 0.0) for task in SpatialTask}
    shares[SpatialTask.CAMERA_MOTION] = data.get("motion_share", 0.0)
    return [task.value for task, share in shares.items() if share > 0.0]


_CONVENTION = {"z": "the optical axis", "range": "the ray of the pixel"}


def _weights(checkpoint: Checkpoint) -> str:
    if "sha256" not in checkpoint.weights:
        return f"not identified ({checkpoint.weights['absent']})"
    return f"`LC_ALL=C sha256sum *.safetensors | sha256sum` prints `{checkpoint.weights['sha256']}`"


def _calibration(profile: CheckpointProfile) -> str:
    if profile.calibration is None:
        return "none; the checkpoint has no calibration"
    return f"fitted on {profile.calibration.fitted_on or 'data that are not recorded'}"


def how_to_ask(checkpoint: Checkpoint) -> str:
    """How to ask it through this package, and what any other program has to do."""
    profile = checkpoint.profile
    command = ["depthlm", "estimate", "photo.png", "--camera-info", "camera.yaml", "--out", "answers"]
    command += ["--pixel", "300", "200"]
    if not is_embedded(checkpoint):
        command += ["--checkpoint", str(checkpoint.folder)]
    if checkpoint.profile_name:
        command += ["--profile", checkpoint.profile_name]
    source = (
        f"the built-in profile `{checkpoint.profile_name}`"
        if checkpoint.profile_name
        else f"`{PROFILE_FILE}`"
    )
    steps = [
        f"Resize the undistorted image so that its focal length is {profile.canonical_focal_px:g} px"
        + (
            f", and fill it up with black, right and below, to multiples of {profile.patch_grid_px} px."
            if profile.patch_grid_px
            else "."
        ),
        _reference(profile),
        f"Send {'the image, then the question' if profile.image_first else 'the question, then the image'}"
        + (f", after the system message {profile.system!r}" if profile.system is not None else "")
        + f":\n\n   > {profile.question}\n",
        f"Decode greedily, at most {profile.max_new_tokens} tokens"
        + (f", after the given start `{profile.prompt_prefix}`" if profile.prompt_prefix else "")
        + (f", until {' or '.join(repr(text) for text in profile.stop)}" if profile.stop else "")
        + "; the number is the depth in metres.",
    ]
    listed = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))
    return f"```bash\n{shlex.join(command)}\n```\n\nWhat happens there, from {source}:\n\n{listed}"


def _reference(profile: CheckpointProfile) -> str:
    if profile.pixel_reference == "marker":
        return (
            "Paint the red arrow of nine pixels that points at the pixel, which itself stays unpainted (`depthlm "
            f"mark` draws it). Pixels within {MARKER_MARGIN} px of the border of the resized image cannot be asked."
        )
    return (
        "Write the pixel's coordinates into the question, in steps of which each side of the image has "
        f"{profile.coordinate_steps}; nothing is painted."
    )


def how_it_was_made(checkpoint: Checkpoint) -> str:
    """What its training record says.

    Raises:
        KeyError: The record lacks something, as one of another version of ``depthlm train`` may.
    """
    training = checkpoint.training
    if training is None:
        return "The checkpoint came without a training record; ask its publisher."
    parts = []
    if _is_staged(training):
        parts.append(_stages(training, checkpoint.profile.pixel_reference))
    elif "base" in training:
        parts.append(f"Fine-tuned from `{training['base']}` by `depthlm train`.")
    settings = {key: value for key, value in training.items() if key not in _MEASURED_ELSEWHERE}
    rows = "\n".join(f"| {name} | {value} |" for name, value in _leaves(settings))
    parts.append(f"All settings, from `{TRAINING_FILE}`:\n\n| setting | value |\n|---|---|\n{rows}")
    return "\n\n".join(parts)


def _is_staged(training: Mapping[str, Any] | None) -> bool:
    """Whether the record is one of the recipe that begins from nothing, on rendered scenes, in two stages."""
    recipe = (training or {}).get("recipe", {})
    return isinstance(recipe, Mapping) and {"vision", "text"} <= recipe.keys()


def _stages(training: Mapping[str, Any], reference: str) -> str:
    recipe, minutes = training["recipe"], training["wall_minutes"]
    vision, text, data = recipe["vision"], recipe["text"], recipe["data"]
    shares = (
        (data.get("task_share", 0.0), "the spatial tasks about points"),
        (data.get("motion_share", 0.0), "the camera's motion between two views"),
    )
    others = " and ".join(f"{share:.0%} ask for {what}" for share, what in shares if share > 0.0)
    arrow = "that an arrow points at" if reference == "marker" else "that is named by its coordinates"
    sentences = [
        f"**Text** ({minutes['text']:g} min). {_what_learns(text)}: a question about the pixel {arrow}, the answer's "
        f"sentence with the number, loss on the answer alone. {_labels(data)}.",
        *_medians(text),
        _auxiliary(text, reference),
        *([f"Of the batches {others}."] if others else []),
    ]
    return "\n".join(
        (
            f"Made by `depthlm train` {_start(training.get('base'))}, on {data['train_views']} rendered views; "
            f"{training['device']}:",
            "",
            f"1. **Vision** ({minutes['vision']:g} min). The vision tower alone, through linear heads that are "
            f"thrown away afterwards. What is minimised: {_losses(vision, reference)}.",
            f"2. {' '.join(sentences)}",
            "",
            "Departures from the paper: stage 1, on *dense* rendered depth, stands in for the web-scale pre-training "
            f"of a published vision-language model; {_departure(text, data, reference)}; the training views are "
            "rendered straight at the canonical focal length, one ray a pixel, where the paper shrinks a camera's "
            "images.",
        )
    )


def _start(base: Mapping[str, Any] | None) -> str:
    if base is None:
        return "from nothing"
    earlier = base.get("wall_minutes") or {}
    minutes = f" of {' and '.join(f'{m:g}' for m in earlier.values())} min" if earlier else ""
    return f"from the weights of an earlier run{minutes} (sha256 `{base['sha256']}`)"


def _what_learns(text: Mapping[str, Any]) -> str:
    frozen = text["frozen_share"]
    if frozen >= 1.0:
        return "The language model alone learns, while the tower is frozen throughout"
    when = f"the tower from {frozen:.0%} of the stage on" if frozen > 0.0 else "the tower from the start"
    return f"The whole model learns, {when}"


def _labels(data: Mapping[str, Any]) -> str:
    per_view = data.get("labels_per_view", 0)
    if per_view:
        return f"The labels are sparse: {per_view} pixels of each view, and of its mirror image, are ever asked about"
    return "The pixel may be any of the view, drawn anew each time, since each has its exact depth"


def _medians(text: Mapping[str, Any]) -> list[str]:
    share = text.get("median_share", 0.0)
    if share <= 0.0:
        return []
    return [
        f"In {share:.0%} of the depth answers the number is not the label but the median that the tower itself reads "
        "there."
    ]


def _losses(stage: Mapping[str, Any], reference: str) -> str:
    """The losses of the linear heads with their weights, those that are on."""
    # Without an arrow there is none to be found: the recipe takes this loss out.
    arrow = stage["pointing_weight"] if reference == "marker" else 0.0
    losses = (
        (stage["dense_weight"], "the dense depth of every patch"),
        (arrow, "which image token the arrow points at"),
        (stage["pointed_weight"], "the depth at the pixel that is asked about"),
    )
    return ", ".join(f"{what} (weight {weight:g})" for weight, what in losses if weight > 0.0)


def _auxiliary(text: Mapping[str, Any], reference: str) -> str:
    losses = _losses(text, reference)
    if not losses or text["frozen_share"] >= 1.0:
        return "The losses of stage 1 are off."
    return (
        "Once it moves, the losses of stage 1 go on as auxiliaries of the questions about depth, beside the answer's "
        f"(weight 1): {losses}."
    )


def _departure(text: Mapping[str, Any], data: Mapping[str, Any], reference: str) -> str:
    """How stage 2 differs from the paper's."""
    parts = []
    if _losses(text, reference) and text["frozen_share"] < 1.0:
        dense = ", dense labels among them," if text["dense_weight"] > 0.0 else ""
        parts.append(
            f"stage 2 is not text supervision alone, since the losses of stage 1{dense} go on beside it"
        )
    if text["frozen_share"] >= 1.0:
        parts.append("the tower learns nothing from the text")
    if not data.get("labels_per_view", 0):
        parts.append("the labels of stage 2 are not sparse, since any pixel may be asked about")
    if text.get("median_share", 0.0) > 0.0:
        parts.append("part of its answers is the tower's own reading in place of the label")
    return "; ".join(parts) or "stage 2 is the paper's, with nothing but text and sparse labels"


def _leaves(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in record.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", str(value).replace("|", "\\|")))
    return found
