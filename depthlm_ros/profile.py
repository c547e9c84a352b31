"""The checkpoint profile ``depthlm.json``: what a checkpoint was trained with, so how it must be asked."""

from __future__ import annotations

import json
import math
import re
import string
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from depthlm_ros.files import what_came
from depthlm_ros.spatial.tasks import SpatialTask

PROFILE_FILE = "depthlm.json"
PROBABILITY, RELATIVE = "probability", "relative"

DEPTHLM_QUESTION = (
    "Given this image, how far is the point pointed by the red arrow from the camera? "
    "Output the thinking process in <think> </think> and final answer "
    "(the meter number only, without the unit) in <answer> </answer> tags."
)
"""The official question, word for word (``generate_prompt_depth_sft`` in the official code)."""

VLM3_QUESTION = (
    "Given this image, how far is the point at coordinates ({x}, {y}) from the camera? "
    "The coordinates are in normalised [0, 2000] format relative to image width and height. "
    "Output the thinking process in <think> </think> and final answer "
    "(the meter number only, without the unit) in <answer> </answer> tags."
)
"""The question of VLM3 (arXiv 2605.30561), word for word (``README.md`` and ``inference.ipynb`` of its code)."""

TEXT_QUESTION = (
    "The coordinates are in normalised [0, 2000] format relative to image width and height. "
    "Output the thinking process in <think> </think> and final answer "
    "(the meter number only, without the unit) in <answer> </answer> tags. "
    "Given this image, how far from the camera is the point at coordinates ({x}, {y})?"
)
"""VLM3's sentences with the coordinates at the end, for checkpoints trained here (our wording, not the paper's).

Behind the image, whose tokens come first, all queries of a frame then have all but their last words in common.
"""

DEPTHLM_PREFIX = "<think> The point is around"
DEPTHLM_ANSWER = (
    "<think> The point is around {depth:.2f} meters away from the camera. </think>\n\n"
    "<answer> {depth:.2f} </answer>"
)


class ProfileError(ValueError):
    """A checkpoint profile is missing or wrong; the message says what to do."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Calibration:
    """Piecewise-linear maps from a score of the number's tokens to what it means, fitted on held-out scenes.

    Attributes:
        raw: Scores, 0 or more, strictly increasing.
        confidence: Share of answers within 25 % of the truth at each ``raw``, in [0, 1].
        relative_sigma: 1-sigma error as a share of the answered depth at each ``raw``.
        fitted_on: What it was fitted on, in words.
        score: What ``raw`` is: ``relative`` (:func:`~depthlm_ros.certainty.relative_certainty`), or ``probability``
            of the number's tokens, in [0, 1], as in files of before this key.
    """

    raw: tuple[float, ...]
    confidence: tuple[float, ...]
    relative_sigma: tuple[float, ...]
    fitted_on: str = ""
    score: str = PROBABILITY

    def __post_init__(self) -> None:
        for name in ("raw", "confidence", "relative_sigma"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(_is_number(x) for x in value):
                raise ProfileError(f"calibration: {name}: expected a list of numbers, got {value!r}")
            object.__setattr__(self, name, tuple(float(x) for x in value))
        lengths = {len(self.raw), len(self.confidence), len(self.relative_sigma)}
        if len(lengths) != 1 or len(self.raw) < 2:
            raise ProfileError(
                "calibration: raw, confidence and relative_sigma need one equal number (two or more) of "
                f"knots; got {len(self.raw)}, {len(self.confidence)} and {len(self.relative_sigma)}"
            )
        if any(b <= a for a, b in zip(self.raw, self.raw[1:], strict=False)):
            raise ProfileError(f"calibration: raw must increase strictly; got {list(self.raw)}")
        if self.score not in (PROBABILITY, RELATIVE):
            raise ProfileError(
                f"calibration: score: expected '{RELATIVE}' or '{PROBABILITY}', got {self.score!r}"
            )
        most = 1.0 if self.score == PROBABILITY else math.inf
        if not all(0.0 <= x <= most and math.isfinite(x) for x in self.raw):
            raise ProfileError(
                f"calibration: raw must lie in [0, {most:g}] and be finite; got {list(self.raw)}"
            )
        if not all(0.0 <= x <= 1.0 for x in self.confidence):
            raise ProfileError(f"calibration: confidence must lie in [0, 1]; got {list(self.confidence)}")
        if not all(math.isfinite(x) and x >= 0.0 for x in self.relative_sigma):
            raise ProfileError("calibration: relative_sigma must be finite and not negative")


@dataclass(frozen=True)
class CheckpointProfile:
    """How a checkpoint sees and answers.

    Attributes:
        name: What the checkpoint is called in messages.
        canonical_focal_px: Focal length in pixels to which every image is resized.
        patch_grid_px: Side in pixels of the squares of which the model sees whole ones (patch size times merged
            patches: 28 for Qwen2.5-VL, 32 for Qwen3-VL, 16 for Pixtral). The canonical view is filled up to whole
            squares, black at the right and at the bottom, so that the model's image processor does not resize it a
            second time. 0 adds nothing: the released checkpoints were trained with the second resize.
        pixel_reference: ``marker`` (red arrow) or ``text`` (coordinates in the question).
        coordinate_steps: With ``text``, the number of steps into which the coordinates divide each side of the
            image; the question's words must say the same.
        image_first: Whether the image comes before the text.
        system: The system message; None sends none.
        question: The user's text; with ``text``, a template that holds ``{x}`` and ``{y}``.
        answer: Template of the whole answer in training, with ``{depth}``; empty where it is not published.
        prompt_prefix: Start of the answer that is given, so that only the number is decoded; empty decodes
            the whole answer.
        stop: Strings that end decoding once the number is complete.
        max_new_tokens: The most tokens that an answer may take after the prefix.
        depth_convention: ``z`` (along the optical axis) or ``range`` (along the ray).
        max_depth_m: Answers beyond this many metres are refused as out of range.
        calibration: What the number's token probability means; None where it was never measured, and then
            confidence and sigma are NaN.
        spatial_tasks: The tasks of :class:`~depthlm_ros.spatial.tasks.SpatialTask` that the checkpoint was trained
            for, by value; answers to the others are computed from depths.
    """

    name: str
    canonical_focal_px: float
    patch_grid_px: int = 0
    pixel_reference: str = "marker"
    coordinate_steps: int = 2000
    image_first: bool = True
    system: str | None = None
    question: str = DEPTHLM_QUESTION
    answer: str = DEPTHLM_ANSWER
    prompt_prefix: str = DEPTHLM_PREFIX
    stop: tuple[str, ...] = (" meters",)
    max_new_tokens: int = 12
    depth_convention: str = "z"
    max_depth_m: float = 1000.0
    calibration: Calibration | None = None
    spatial_tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.stop, list | tuple) or not all(isinstance(x, str) and x for x in self.stop):
            raise ProfileError(f"stop: expected a list of strings, got {self.stop!r}")
        object.__setattr__(self, "stop", tuple(self.stop))
        for name in ("name", "question", "answer", "prompt_prefix"):
            if not isinstance(getattr(self, name), str):
                raise ProfileError(f"{name}: expected a string, got {getattr(self, name)!r}")
        if not isinstance(self.image_first, bool):
            raise ProfileError(f"image_first: expected true or false, got {self.image_first!r}")
        if not isinstance(self.system, str | None):
            raise ProfileError(f"system: expected a string or null, got {self.system!r}")
        for name in ("canonical_focal_px", "max_depth_m"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < 1e6:
                raise ProfileError(f"{name}: expected a number of pixels or metres above 0, got {value!r}")
        for name, allowed in (("pixel_reference", ("marker", "text")), ("depth_convention", ("z", "range"))):
            if getattr(self, name) not in allowed:
                raise ProfileError(f"{name}: expected one of {allowed}, got {getattr(self, name)!r}")
        if type(self.patch_grid_px) is not int or not 0 <= self.patch_grid_px <= 1024:
            raise ProfileError(f"patch_grid_px: expected 0 to 1024 pixels, got {self.patch_grid_px!r}")
        if type(self.max_new_tokens) is not int or not 1 <= self.max_new_tokens <= 4096:
            raise ProfileError(f"max_new_tokens: expected 1 to 4096, got {self.max_new_tokens!r}")
        if type(self.coordinate_steps) is not int or not 2 <= self.coordinate_steps <= 1_000_000:
            raise ProfileError(f"coordinate_steps: expected 2 to 1000000, got {self.coordinate_steps!r}")
        known = [task.value for task in SpatialTask]
        if not isinstance(self.spatial_tasks, list | tuple) or any(
            name not in known for name in self.spatial_tasks
        ):
            raise ProfileError(f"spatial_tasks: expected a list of {known}, got {self.spatial_tasks!r}")
        object.__setattr__(self, "spatial_tasks", tuple(self.spatial_tasks))
        self._check_question()
        if self.prompt_prefix and not self.answer.startswith(self.prompt_prefix):
            raise ProfileError(f"prompt_prefix {self.prompt_prefix!r} is not how the answer template starts")

    def _check_question(self) -> None:
        if self.pixel_reference == "marker":
            if "{x}" in self.question or "{y}" in self.question:
                raise ProfileError(
                    "question: it asks for coordinates ({x}, {y}) but pixel_reference is 'marker': take them "
                    "out, or set pixel_reference to 'text'"
                )
            return
        try:
            holes = sorted(
                name for _, name, _, _ in string.Formatter().parse(self.question) if name is not None
            )
        except ValueError as error:
            raise ProfileError(f"question: {self.question!r} is no template: {error}") from error
        if holes != ["x", "y"]:
            raise ProfileError(
                "question: with pixel_reference 'text' it must hold {x} and {y} once each and nothing else in "
                f"braces, got {self.question!r}"
            )
        if str(self.coordinate_steps) not in re.findall(r"\d+", self.question):
            raise ProfileError(
                f"coordinate_steps: the question does not say that the coordinates go up to {self.coordinate_steps}; "
                f"give the number that it was trained with, or say it in the question: {self.question!r}"
            )


BUILT_IN_PROFILES: dict[str, CheckpointProfile] = {
    profile.name: profile
    for profile in (
        CheckpointProfile("depthlm-3b", 1000.0, system="You are a helpful assistant."),
        CheckpointProfile("depthlm-7b", 1000.0, system="You are a helpful assistant."),
        CheckpointProfile("depthlm-12b", 750.0),
        CheckpointProfile(
            "vlm3-depth",
            1000.0,
            pixel_reference="text",
            question=VLM3_QUESTION,
            answer="",
            prompt_prefix="",
            stop=(),
            max_new_tokens=256,
        ),
    )
}
"""Profiles of the published checkpoints (papers and official code).

``vlm3-depth`` is from VLM3's ``inference.ipynb``: focal length, question, no system message, 256 tokens. How its
answers are worded is not published, so they are decoded whole; that their depth is along z is taken from DepthLM,
whose evaluation VLM3 says that it matches.
"""


def load_profile(checkpoint: Path, name: str = "") -> CheckpointProfile:
    """Find the profile of a checkpoint directory.

    Args:
        checkpoint: The checkpoint directory.
        name: A built-in profile to use instead of the directory's ``depthlm.json``; empty reads the file.

    Raises:
        ProfileError: There is neither a file nor a name, or what there is is wrong. A profile is never
            guessed from a path.
    """
    if name:
        if name not in BUILT_IN_PROFILES:
            raise ProfileError(
                f"profile {name!r} is unknown; the built-in ones are {sorted(BUILT_IN_PROFILES)}"
            )
        return BUILT_IN_PROFILES[name]
    path = checkpoint / PROFILE_FILE
    if not path.is_file():
        raise ProfileError(
            f"{checkpoint} has no {PROFILE_FILE}; put one there, or name one of the built-in profiles "
            f"{sorted(BUILT_IN_PROFILES)} (--profile, or engine.profile in the configuration)"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProfileError(
            f"{path}: expected a checkpoint profile as JSON, but {what_came(error)}"
        ) from error
    if not isinstance(record, dict):
        raise ProfileError(f"{path}: expected a JSON object, got {type(record).__name__}")
    try:
        if record.get("calibration") is not None:
            record["calibration"] = _build(Calibration, record["calibration"], "calibration")
        profile: CheckpointProfile = _build(CheckpointProfile, record, "profile")
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error
    return profile


def _build(kind: Any, record: Any, where: str) -> Any:
    if not isinstance(record, dict):
        raise ProfileError(f"{where}: expected an object, got {type(record).__name__}")
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(record) - set(known))
    if unknown:
        raise ProfileError(f"{where}: unknown keys {unknown}; the known ones are {known}")
    try:
        return kind(**record)
    except TypeError as error:
        raise ProfileError(f"{where}: {error}; the keys are {known}") from error
