"""Whether a built-in checkpoint profile is of the kind of model that a directory holds."""

from __future__ import annotations

import json
from pathlib import Path

_ARCHITECTURES = {
    "depthlm-3b": ("qwen2_5_vl",),
    "depthlm-7b": ("qwen2_5_vl",),
    "depthlm-12b": ("pixtral", "llava"),
    "vlm3-depth": ("qwen3_vl",),
}
"""``model_type`` of the checkpoints that each built-in profile describes."""


def foreign_profile(checkpoint: Path, name: str) -> str:
    """Say when a built-in profile is of another kind of model than a checkpoint is.

    Args:
        checkpoint: The checkpoint directory.
        name: The built-in profile; empty for the directory's own.

    Returns:
        A sentence that says what to do; empty where they fit, or where the kind of model is not known.
    """
    try:
        record = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    kind = record.get("model_type") if isinstance(record, dict) else None
    known = _ARCHITECTURES.get(name)
    if known is None or not isinstance(kind, str) or kind in known:
        return ""
    return (
        f"profile {name!r} describes a {' or '.join(known)} model, but {checkpoint} is a {kind} model: it was "
        "trained to be asked otherwise and may answer no numbers, or wrong ones; name its own profile, or leave "
        "engine.profile empty to use the directory's depthlm.json"
    )
