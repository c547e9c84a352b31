"""How a rendered benchmark was made: written beside it by ``depthlm render``, so that figures on it can say so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_SUFFIX = "_render.json"


def record_path(index: Path) -> Path:
    """Where the record of a benchmark lies: ``robot_render.json`` beside ``robot.jsonl``."""
    return index.with_name(f"{index.stem}{_SUFFIX}")


def write_record(index: Path, command: str) -> Path:
    """Write down by which command a benchmark was rendered.

    Args:
        index: The ``.jsonl`` file, which is there.
        command: As it can be pasted into a shell.

    Returns:
        The record's path.
    """
    path = record_path(index)
    record = {"command": command, "jsonl_sha256": _digest(index)}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def rendered_by(index: Path) -> str | None:
    """By which command a benchmark was rendered.

    Args:
        index: The ``.jsonl`` file.

    Returns:
        The command; None where no record lies beside the file, or one of another file: a benchmark that was edited
        or replaced since is not what the command gives.
    """
    try:
        record = json.loads(record_path(index).read_text(encoding="utf-8"))
        return str(record["command"]) if record["jsonl_sha256"] == _digest(index) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
