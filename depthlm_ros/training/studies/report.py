"""``results.json``, ``table.md`` and the section of a document, all from the runs of a study."""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthlm_ros.training.studies.runner import Run
from depthlm_ros.training.studies.study import Options, Study, StudyError
from depthlm_ros.training.studies.verdict import Judgement, judge


def judgements(study: Study, runs: Sequence[Run]) -> list[Judgement]:
    """The study's claims, judged from seeds that both arms have."""
    found = []
    for claim in study.claims:
        figures = {arm: _figures(runs, arm, claim.figure) for arm in (claim.better, claim.than)}
        found.append(judge(claim, figures[claim.better], figures[claim.than]))
    return found


def _figures(runs: Sequence[Run], arm: str, figure: str) -> list[float]:
    return [run.figures[figure] for run in sorted(runs, key=lambda r: r.seed) if run.arm == arm]


def write_results(study: Study, options: Options, runs: Sequence[Run], command: str) -> str:
    """Write ``results.json`` and ``table.md`` into the study's directory.

    Args:
        study: The study.
        options: How it was run.
        runs: Its runs.
        command: The command line that made them.

    Returns:
        The table in Markdown.
    """
    found = judgements(study, runs)
    record = {
        "study": study.name,
        "command": command,
        "options": {**options.record(), "seeds": options.seeds},
        "machine": machine(),
        "runs": [
            {
                "arm": run.arm,
                "seed": run.seed,
                "wall_s": run.wall_s,
                "cpu_s": run.cpu_s,
                "figures": {name: _plain(value) for name, value in run.figures.items()},
            }
            for run in runs
        ],
        "claims": [
            {
                "claim": j.claim.text,
                "rule": j.claim.rule,
                "differences": [_plain(d) for d in j.differences],
                "mean": _plain(j.mean),
                "standard_error": _plain(j.error),
                "verdict": j.verdict.value,
            }
            for j in found
        ],
    }
    path = options.run / "results.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    text = table(study, options, runs, found, command)
    (options.run / "table.md").write_text(text, encoding="utf-8")
    return text


def machine() -> str:
    """What the numbers were made on."""
    import torch

    return f"CPU ({platform.machine()}), one thread per run, torch {torch.__version__}"


def table(
    study: Study, options: Options, runs: Sequence[Run], found: Sequence[Judgement], command: str
) -> str:
    """The results in Markdown: a row per arm, a column per figure, and a line per claim."""
    names = list(study.figures)
    times = [] if study.together else ["CPU seconds", "wall seconds"]
    lines = [
        f"`{command}`",
        "",
        f"{options.seeds} seeds; {budget(study, options)}; {machine()}; "
        f"{sum(_seconds(study, runs)) / 60.0:.1f} core minutes in all. A cell is the mean "
        "over the seeds (least to most; sample standard deviation).",
        "",
        "| arm | " + " | ".join([*names, *times]) + " |",
        "|" + "---|" * (1 + len(names) + len(times)),
    ]
    for arm in study.arms:
        cells = [spread(_figures(runs, arm, name)) for name in names]
        if times:
            own = [run for run in runs if run.arm == arm]
            cells += [spread([run.cpu_s for run in own]), spread([run.wall_s for run in own])]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines.append("")
    for judgement in found:
        claim = judgement.claim
        lines.append(
            f"**{judgement.verdict.value.capitalize()}**: {claim.text} ({claim.figure} of {claim.better} less "
            f"that of {claim.than}: {_number(judgement.mean)}, standard error {_number(judgement.error)}; per seed "
            f"{', '.join(_number(d) for d in judgement.differences)}). Rule: {claim.rule}."
        )
        lines.append("")
    return "\n".join(lines)


def budget(study: Study, options: Options) -> str:
    """What each run may use, in words."""
    return study.budget.format(steps=options.steps, batch=options.batch, queries=options.queries)


def _seconds(study: Study, runs: Sequence[Run]) -> list[float]:
    first = next(iter(study.arms))
    return [run.cpu_s for run in runs if not study.together or run.arm == first]


def spread(values: Sequence[float]) -> str:
    """Mean (least to most; sample standard deviation) of what was measured."""
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return "not measured"
    text = _number(statistics.fmean(known))
    if len(known) > 1:
        text += f" ({_number(min(known))} to {_number(max(known))}; {_number(statistics.stdev(known))})"
    return text if len(known) == len(values) else f"{text}, {len(values) - len(known)} not measured"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "none"
    return f"{value:.1f}" if abs(value) >= 10.0 else f"{value:.3f}"


def _plain(value: float) -> Any:
    return round(value, 6) if math.isfinite(value) else None


def write_section(path: Path, name: str, text: str) -> None:
    """Put a table between ``<!-- study: NAME -->`` and ``<!-- end: NAME -->`` of a document.

    Args:
        path: The document.
        name: The study.
        text: What goes between the marks; what was there is dropped.

    Raises:
        StudyError: The document is not there or lacks the marks.
    """
    first, last = f"<!-- study: {name} -->", f"<!-- end: {name} -->"
    whole = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, begun, rest = whole.partition(first)
    _, ended, after = rest.partition(last)
    if not begun or not ended:
        raise StudyError(f"{path}: expected the lines {first} and {last}, between which the table goes")
    path.write_text(f"{before}{first}\n{text.strip()}\n{last}{after}", encoding="utf-8")
