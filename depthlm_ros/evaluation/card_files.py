"""What a model card is written from: the files of evaluations and of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from depthlm_ros.evaluation.benchmark import BenchmarkError
from depthlm_ros.evaluation.provenance import weights_digest
from depthlm_ros.files import what_came
from depthlm_ros.profile import CheckpointProfile, load_profile

METRICS_FILE = "metrics.json"
SPATIAL_FILE = "spatial.json"
TRAINING_FILE = "training.json"


@dataclass(frozen=True)
class Measured:
    """What one command measured.

    Attributes:
        path: The file.
        record: What it holds. Of ``depthlm eval`` always ``datasets`` {name: figures} and ``table``, also where there
            is one data set.
    """

    path: Path
    record: Mapping[str, Any]

    @property
    def model(self) -> str:
        """What answered."""
        return str(self.record["model"])


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as its own files describe it.

    Attributes:
        folder: The Hugging Face directory.
        profile: How it is asked.
        profile_name: The built-in profile that was named for it; empty where it has a profile of its own.
        architecture: The class that ``config.json`` names; empty where it names none.
        training: ``training.json``; None where there is none.
    """

    folder: Path
    profile: CheckpointProfile
    profile_name: str
    architecture: str
    training: Mapping[str, Any] | None

    @cached_property
    def weights(self) -> dict[str, str]:
        """Its :func:`~depthlm_ros.evaluation.provenance.weights_digest`: read once, since weights may be large."""
        return weights_digest(self.folder)


def read_run(folder: Path) -> tuple[Measured | None, Measured | None]:
    """Read what ``depthlm eval`` and ``depthlm ask-eval`` wrote into a directory.

    Returns:
        The figures of depth and those of spatial questions; None for what the directory does not hold.

    Raises:
        BenchmarkError: It holds neither, or a file is not one of these commands in this version.
    """
    depth, spatial = folder / METRICS_FILE, folder / SPATIAL_FILE
    if not depth.is_file() and not spatial.is_file():
        raise BenchmarkError(
            f"{folder}: expected {METRICS_FILE} of `depthlm eval` or {SPATIAL_FILE} of `depthlm ask-eval`, found "
            "neither; name a directory that one of them wrote"
        )
    return _read_metrics(depth), _read_spatial(spatial)


def read_checkpoint(folder: Path, profile_name: str = "") -> Checkpoint:
    """Read the files that describe a checkpoint.

    Args:
        folder: The Hugging Face directory.
        profile_name: A built-in profile to use instead of the directory's own; empty uses that.

    Raises:
        BenchmarkError: ``config.json`` or ``training.json`` is no JSON object.
        ProfileError: There is no profile, or it is wrong.
    """
    architectures = (_object(folder / "config.json") or {}).get("architectures")
    return Checkpoint(
        folder=folder,
        profile=load_profile(folder, profile_name),
        profile_name=profile_name,
        architecture=str(architectures[0]) if architectures else "",
        training=_object(folder / TRAINING_FILE),
    )


def _read_metrics(path: Path) -> Measured | None:
    record = _object(path)
    if record is None:
        return None
    several = record.get("datasets", {"": record})
    if not isinstance(several, dict) or not all(isinstance(one, dict) for one in several.values()):
        raise BenchmarkError(f"{path}: expected what `depthlm eval` writes")
    _check_origin(path, record, "eval")
    if not all(isinstance(one.get("by_canvas"), dict) for one in several.values()):
        raise BenchmarkError(f"{path}: expected what `depthlm eval` of this version writes; run it again")
    if "datasets" in record:
        return Measured(path, record)
    try:
        name, model = record["name"], record["model"]
        rows = {model: record, **record["trivial"]}
    except (KeyError, TypeError) as error:
        raise BenchmarkError(f"{path}: expected what `depthlm eval` writes: {error!r}") from error
    table = {predictor: {name: figures} for predictor, figures in rows.items()}
    return Measured(path, {**record, "table": table, "datasets": {name: record}})


def _read_spatial(path: Path) -> Measured | None:
    record = _object(path)
    if record is None:
        return None
    _check_origin(path, record, "ask-eval")
    return Measured(path, record)


def _check_origin(path: Path, record: Mapping[str, Any], command: str) -> None:
    """Refuse a file that does not say what it is of."""
    origin = record.get("made_by")
    known = isinstance(origin, dict) and isinstance(origin.get("checkpoint"), dict)
    if not known or not isinstance(record.get("model"), str):
        raise BenchmarkError(
            f"{path}: expected what `depthlm {command}` of this version writes, with the model and the weights that "
            "answered; run it again"
        )


def _object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path}: expected a JSON object, but {what_came(error)}") from error
    if not isinstance(record, dict):
        raise BenchmarkError(f"{path}: expected a JSON object, got {type(record).__name__}")
    return record
