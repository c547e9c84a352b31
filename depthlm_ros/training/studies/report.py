"""``results.json``, ``table.md`` and the section of a document, all from the runs of a study."""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthlm_ros import sections
from depthlm_ros.training.studies.runner import Run
from depthlm_ros.training.studies.study import LEAD, Options, Study, StudyError
from depthlm_ros.training.studies.trivial import PREDICTORS
from depthlm_ros.training.studies.verdict import Floor, Judgement, judge


def judgements(study: Study, runs: Sequence[Run]) -> list[Judgement]:
    """The study's claims, judged from seeds that both arms have, if one of the two has learnt anything."""
    found = []
    for claim in study.claims:
        arms = (claim.better, claim.than)
        better, than = (_figures(runs, arm, claim.figure) for arm in arms)
        delta1 = max(_mean(_figures(runs, arm, "delta1")) for arm in arms)
        found.append(judge(claim, better, than, delta1=delta1, floors=_floors(study, runs, arms)))
    return found


def _floors(study: Study, runs: Sequence[Run], arms: Sequence[str]) -> list[Floor]:
    floors = [Floor(name, tuple(_figures(runs, name, "delta1")), LEAD) for name in PREDICTORS]
    if study.start_lead is not None:
        before = [value for arm in arms for value in _figures(runs, arm, "delta1_before")]
        floors.append(Floor("the model that they started from", tuple(before), study.start_lead))
    return floors


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _figures(runs: Sequence[Run], arm: str, figure: str) -> list[float]:
    """A figure of an arm by seed; NaN where it was not measured."""
    own = sorted((run for run in runs if run.arm == arm), key=lambda r: r.seed)
    return [run.figures.get(figure, math.nan) for run in own]


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
                "reason": j.reason,
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
    """The results in Markdown: a row per arm and predictor, a column per figure, and a line per claim."""
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
    for predictor in PREDICTORS:
        own = [run for run in runs if run.arm == predictor]
        scored = {name for run in own for name in run.figures}
        cells = [spread(_figures(own, predictor, name)) if name in scored else "-" for name in names]
        lines.append(f"| {predictor} (no image) | " + " | ".join([*cells, *("-" for _ in times)]) + " |")
    legend = "; ".join(f"`{name}`: {meaning}" for name, meaning in study.figures.items())
    lines += ["", f"{legend}.", "", _what_is_judged(study), ""]
    for judgement in found:
        claim = judgement.claim
        lines.append(
            f"**{judgement.verdict.value.capitalize()}**: {claim.text} ({claim.figure} of {claim.better} less "
            f"that of {claim.than}: {_number(judgement.mean)}, standard error {_number(judgement.error)}; per seed "
            f"{', '.join(_number(d) for d in judgement.differences)}). "
            + (f"Not judged, since {judgement.reason}." if judgement.reason else f"Rule: {claim.rule}.")
        )
        lines.append("")
    return "\n".join(lines)


def _what_is_judged(study: Study) -> str:
    start = ""
    if study.start_lead is not None:
        start = f", and {study.start_lead:g} above the model that both started from"
    return (
        "`row_prior` and `best_constant` look at no image. A claim is judged if the better of its two arms has a "
        f"mean delta1 of at least {LEAD:g} above each of them{start}."
    )


def budget(study: Study, options: Options) -> str:
    """What each run may use, in words."""
    return study.budget.format(steps=options.steps, batch=options.batch, queries=options.queries)


def _seconds(study: Study, runs: Sequence[Run]) -> list[float]:
    counted = list(study.arms)[:1] if study.together else list(study.arms)
    return [run.cpu_s for run in runs if run.arm in counted]


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
    try:
        sections.write_section(path, "study", name, text, what="the table goes")
    except sections.SectionError as error:
        raise StudyError(str(error)) from error
