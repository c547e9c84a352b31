"""The log of a run of the embedded recipe: ``metrics.jsonl``, one object a line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from depthlm_ros.training.state import Progress

METRICS_FILE = "metrics.jsonl"
_STAGES = ("vision", "text", "done")


def read_log(run: Path) -> list[dict[str, Any]]:
    """All lines so far."""
    path = run / METRICS_FILE
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    )


def append_log(run: Path, progress: Progress, record: dict[str, Any]) -> None:
    """Add a line: where the run stands, and what was measured there."""
    with (run / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**asdict(progress), **record}) + "\n")


def trim_log(run: Path, progress: Progress) -> None:
    """Drop the lines of steps that will be made again."""
    here = (_STAGES.index(progress.stage), progress.step)
    kept = [r for r in read_log(run) if (_STAGES.index(r["stage"]), r["step"]) <= here]
    if run.is_dir():
        text = "".join(json.dumps(record) + "\n" for record in kept)
        (run / METRICS_FILE).write_text(text, encoding="utf-8")


def last_losses(run: Path) -> dict[str, Any]:
    """The last logged losses of each stage."""
    left_out = ("stage", "done", "vision_s", "text_s")
    return {
        record["stage"]: {key: value for key, value in record.items() if key not in left_out}
        for record in read_log(run)
        if "loss" in record
    }
