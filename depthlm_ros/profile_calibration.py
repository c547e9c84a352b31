"""Puts a calibration into a checkpoint profile on disk."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from depthlm_ros.profile import BUILT_IN_PROFILES, PROFILE_FILE, Calibration, ProfileError, load_profile


def check_writable(checkpoint: Path, name: str, out: Path | None) -> Path:
    """The file that a calibrated profile goes into.

    Args:
        checkpoint: The checkpoint's directory.
        name: The built-in profile that it is asked with; empty for its own file.
        out: Another file to write; None is the checkpoint's own.

    Raises:
        ProfileError: That would replace a file which nobody said is to be replaced.
    """
    if out is not None:
        if out.exists():
            raise ProfileError(f"{out} exists and is not replaced: name another file, or move it away")
        return out
    own = checkpoint / PROFILE_FILE
    if name and own.exists():
        raise ProfileError(
            f"{own} exists, but the checkpoint is asked with the built-in profile {name!r}, whose settings would "
            "replace the file's: leave the name out to calibrate the file, or write into another one"
        )
    return own


def write_calibrated(calibration: Calibration, checkpoint: Path, name: str, path: Path) -> None:
    """Write a checkpoint's profile with a calibration; all else stays as it is.

    Args:
        calibration: The calibration.
        checkpoint: The checkpoint's directory.
        name: The built-in profile that it is asked with; empty for its own file.
        path: Where to, see :func:`check_writable`. It is replaced as a whole, or not at all.

    Raises:
        ProfileError: The profile cannot be read.
    """
    record: dict[str, Any]
    load_profile(checkpoint, name)
    if name:
        record = asdict(BUILT_IN_PROFILES[name])
    else:
        record = json.loads((checkpoint / PROFILE_FILE).read_text(encoding="utf-8"))
    record["calibration"] = asdict(calibration)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f"{path.name}.new")
    whole.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(whole, path)
