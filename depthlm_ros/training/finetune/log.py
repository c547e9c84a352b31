"""The record of a run: ``metrics.jsonl``, one object a line, and ``curve.png`` from it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
CURVE_FILE = "curve.png"


class RunLog:
    """Appends to a run's ``metrics.jsonl`` and draws its curve.

    Args:
        run: The run's directory.
        step: The step at which the run goes on; lines of later steps, which will be made again, are dropped.
        writes: Whether this process is the one that writes.
    """

    def __init__(self, run: Path, step: int, *, writes: bool = True) -> None:
        self._run, self._path, self._writes = run, run / METRICS_FILE, writes
        if writes:
            run.mkdir(parents=True, exist_ok=True)
            kept = [record for record in self.records() if step and record["step"] <= step]
            text = "".join(json.dumps(record) + "\n" for record in kept)
            self._path.write_text(text, encoding="utf-8")

    def records(self) -> list[dict[str, Any]]:
        """All lines so far."""
        if not self._path.is_file():
            return []
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]

    def add(self, step: int, samples: int, **values: float | None) -> None:
        """Append a line.

        Args:
            step: Optimiser steps that are finished.
            samples: Labels seen so far, of all processes.
            values: What was measured; what is not finite is written as null.
        """
        if not self._writes:
            return
        plain = {
            name: float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
            for name, value in values.items()
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "samples": samples, **plain}) + "\n")

    def draw(self) -> None:
        """Draw loss (or reward) and validation delta1 over the samples seen."""
        if not self._writes:
            return
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.0), layout="constrained")
        left = figure.subplots()
        right = left.twinx()
        left.set_xlabel("samples seen")
        records = self.records()
        shown = (
            (left, "loss", "loss per answer token", "tab:blue"),
            (left, "reward", "reward (minus metres)", "tab:green"),
            (right, "delta1", "validation delta1", "tab:red"),
        )
        for axes, key, label, colour in shown:
            points = [(r["samples"], r[key]) for r in records if r.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker=".", label=label)
                axes.set_ylabel(label, color=colour)
        right.set_ylim(0.0, 1.0)
        left.grid(alpha=0.3)
        figure.savefig(self._run / CURVE_FILE, dpi=120)
