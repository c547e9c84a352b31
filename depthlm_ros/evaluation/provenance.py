"""Where figures come from: the command, the version, the very weights and the very data."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from depthlm_ros import __version__
from depthlm_ros.config import EngineConfig
from depthlm_ros.engines.factory import resolve_checkpoint
from depthlm_ros.evaluation.benchmark import BenchmarkError, LabelledImage
from depthlm_ros.profile import PROFILE_FILE
from depthlm_ros.rendered import rendered_by

_CHUNK = 1 << 20
_LOCAL = ("transformers", "tensorrt_llm")
"""The engines that read their weights from the checkpoint's directory; what a server holds is not known here."""


def command_line(words: Sequence[object], given: Iterable[tuple[str, object]]) -> str:
    """A command as it can be pasted into a shell.

    Args:
        words: The command and its arguments.
        given: Options with their values; those whose value is None were not given.
    """
    options = [str(word) for option in given if option[1] is not None for word in option]
    return shlex.join([*map(str, words), *options])


def made_by(
    command: str, engine: EngineConfig, data: Mapping[str, Sequence[LabelledImage]] | None = None
) -> dict[str, Any]:
    """What a file of figures says about where they come from.

    Args:
        command: The command that was run.
        engine: What answers.
        data: {path of a benchmark as it was named: what was read of it}.

    Returns:
        ``command``; ``version`` of this package; ``checkpoint``, see :func:`weights_digest`, ``absent`` too where the
        engine runs the model elsewhere; ``profile``, see :func:`profile_origin`; ``labels_sha256`` {benchmark:
        :func:`labels_digest`}; ``rendered`` {benchmark: the command that rendered it} of those that say so.

    Raises:
        EngineError: There is no such checkpoint.
    """
    checkpoint = resolve_checkpoint(engine)
    if engine.name in _LOCAL:
        weights = weights_digest(checkpoint)
    else:
        weights = {"absent": f"the engine {engine.name} does not read its weights from a directory here"}
    rendered = {name: rendered_by(Path(name)) for name in data or {}}
    return {
        "command": command,
        "version": __version__,
        "checkpoint": weights,
        "profile": profile_origin(checkpoint, engine.profile),
        "labels_sha256": {name: labels_digest(samples) for name, samples in (data or {}).items()},
        "rendered": {name: by for name, by in rendered.items() if by is not None},
    }


def labels_digest(samples: Iterable[LabelledImage]) -> str:
    """What tells labels from all others: one SHA-256 over the labels and cameras of a benchmark, in their order.

    Not over the file, which holds more than figures rest on, and in which the same rendering differs by a number's
    last place between kinds of processor, as NumPy's tangent does. Six significant digits are far above that, and
    far below what any figure shows. Pictures differ so too, and are told by ``mean_level`` beside the figures.

    Args:
        samples: The images with their labels.

    Returns:
        The digest over one JSON array per line: name of the image, intrinsics, pixels, depths, static scene.
    """
    digest = hashlib.sha256()
    for sample in samples:
        numbers = [[f"{x:.6g}" for x in values] for values in (sample.intrinsics, sample.depth.tolist())]
        line = [sample.name, numbers[0], sample.pixels.tolist(), numbers[1], sample.static]
        digest.update(f"{json.dumps(line)}\n".encode())
    return digest.hexdigest()


def weights_digest(checkpoint: Path) -> dict[str, str]:
    """What tells the weights of a checkpoint from all others.

    Args:
        checkpoint: A Hugging Face directory.

    Returns:
        ``sha256``: one digest over the names and contents of its safetensors files, what
        ``LC_ALL=C sha256sum *.safetensors | sha256sum`` prints in the directory. Where there is no such file
        ``absent`` instead, the reason in words.
    """
    files = sorted(checkpoint.glob("*.safetensors"), key=lambda path: path.name)
    if not files:
        return {"absent": f"{checkpoint.name} holds no *.safetensors"}
    listing = "".join(f"{file_sha256(path)}  {path.name}\n" for path in files)
    return {"sha256": hashlib.sha256(listing.encode()).hexdigest()}


def profile_origin(checkpoint: Path, name: str = "") -> dict[str, str]:
    """What tells the profile by which a checkpoint is asked: the same weights asked otherwise answer otherwise.

    Args:
        checkpoint: A Hugging Face directory.
        name: A built-in profile that is used instead of the directory's own; empty uses that.

    Returns:
        ``sha256`` of ``depthlm.json``, or ``built_in``, the name. Empty where there is neither.
    """
    if name:
        return {"built_in": name}
    path = checkpoint / PROFILE_FILE
    return {"sha256": file_sha256(path)} if path.is_file() else {}


def check_profiles(measured: Mapping[str, Mapping[str, str] | None], profile: Mapping[str, str]) -> list[str]:
    """Refuse figures of a checkpoint that was asked otherwise than it is asked now.

    Args:
        measured: {file: what its ``made_by`` says of the profile; None where it says nothing, as files of before}.
        profile: The :func:`profile_origin` of the checkpoint now.

    Returns:
        The files that say nothing.

    Raises:
        BenchmarkError: A file is of another profile.
    """
    for name, record in measured.items():
        if record is not None and record != profile:
            raise BenchmarkError(
                f"{name} was measured with another checkpoint profile ({_profile(record)}) than the checkpoint has "
                f"now ({_profile(profile)}): name the one that was measured (--checkpoint, --profile), or measure "
                "again"
            )
    return [name for name, record in measured.items() if record is None]


def _profile(record: Mapping[str, str]) -> str:
    if "built_in" in record:
        return f"the built-in {record['built_in']}"
    return (
        f"{PROFILE_FILE} with sha256 {record['sha256'][:12]}" if "sha256" in record else f"no {PROFILE_FILE}"
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read piece by piece: weights may be larger than the memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def check_weights(
    measured: Mapping[str, Mapping[str, str]], checkpoint: Path, weights: Mapping[str, str]
) -> None:
    """Refuse figures that are not of the very weights of a checkpoint.

    Args:
        measured: {file: what its ``made_by`` says of the checkpoint}.
        checkpoint: The checkpoint's directory.
        weights: Its :func:`weights_digest`.

    Raises:
        BenchmarkError: The weights differ between the files, or from those of the checkpoint.
    """
    digests = {name: record.get("sha256") for name, record in measured.items()}
    if len(set(digests.values())) > 1:
        listed = ", ".join(f"{_short(digest)} in {name}" for name, digest in digests.items())
        raise BenchmarkError(
            f"a model card is about one set of weights, but they differ: {listed}; measure all with one checkpoint"
        )
    own = weights.get("sha256")
    for name, digest in digests.items():
        if digest != own:
            raise BenchmarkError(
                f"{name} was measured with weights {_short(digest)}, but {checkpoint} holds {_short(own)}: name the "
                "checkpoint that was measured (--checkpoint), or measure again"
            )


def _short(digest: str | None) -> str:
    return "unknown (no safetensors file)" if digest is None else f"sha256 {digest[:12]}"
