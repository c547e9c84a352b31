"""Where figures come from: the command, the version, the very weights and the very data."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from depthlm_ros import __version__
from depthlm_ros.config import EngineConfig
from depthlm_ros.engines.factory import resolve_checkpoint
from depthlm_ros.evaluation.benchmark import BenchmarkError

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


def made_by(command: str, engine: EngineConfig, data: Sequence[Path] = ()) -> dict[str, Any]:
    """What a file of figures says about where they come from.

    Args:
        command: The command that was run.
        engine: What answers.
        data: The benchmarks that were read.

    Returns:
        ``command``; ``version`` of this package; ``checkpoint``, see :func:`weights_digest`, ``absent`` too where the
        engine runs the model elsewhere; ``data_sha256`` {file: SHA-256}.

    Raises:
        EngineError: There is no such checkpoint.
    """
    if engine.name in _LOCAL:
        weights = weights_digest(resolve_checkpoint(engine))
    else:
        weights = {"absent": f"the engine {engine.name} does not read its weights from a directory here"}
    return {
        "command": command,
        "version": __version__,
        "checkpoint": weights,
        "data_sha256": {str(path): file_sha256(path) for path in data},
    }


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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read piece by piece: weights may be larger than the memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def check_weights(measured: Mapping[str, Mapping[str, str]], checkpoint: Path) -> None:
    """Refuse figures that are not of the very weights of a checkpoint.

    Args:
        measured: {file: what its ``made_by`` says of the checkpoint}.
        checkpoint: The checkpoint's directory.

    Raises:
        BenchmarkError: The weights differ between the files, or from those of the checkpoint.
    """
    digests = {name: record.get("sha256") for name, record in measured.items()}
    if len(set(digests.values())) > 1:
        listed = ", ".join(f"{_short(digest)} in {name}" for name, digest in digests.items())
        raise BenchmarkError(
            f"a model card is about one set of weights, but they differ: {listed}; measure all with one checkpoint"
        )
    own = weights_digest(checkpoint).get("sha256")
    for name, digest in digests.items():
        if digest != own:
            raise BenchmarkError(
                f"{name} was measured with weights {_short(digest)}, but {checkpoint} holds {_short(own)}: name the "
                "checkpoint that was measured (--checkpoint), or measure again"
            )


def _short(digest: str | None) -> str:
    return "unknown (no safetensors file)" if digest is None else f"sha256 {digest[:12]}"
