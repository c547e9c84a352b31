"""Records in words: Markdown for the terminal and for the document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from depthlm_ros import sections
from depthlm_ros.bench.clock import IN_ENGINE, STAGES
from depthlm_ros.bench.contest import ARMS
from depthlm_ros.bench.frames import BenchError
from depthlm_ros.bench.promises import OUTSIDE_BOUND, other_size, promises

_MEANING = {
    "decode_image": "image file to RGB",
    "rectify": "undistort",
    "resize": "to the canonical focal length",
    "mark": "arrow or coordinates",
    "process": "resize to the patch grid, normalise, tokenise, batch",
    "vision": "vision tower",
    "prefill": "language model over the prompt",
    "decode_tokens": "language model, token by token",
    "engine": "between these: generation loop, tokens to text",
    "parse": "text to metres, confidence",
    "publish": "build and serialise the messages",
    "other": "what is left",
}

_PEAKS = {"above_rest": "above rest", "peak": "in all"}
_MEDIANS = (
    " Rates, ratios, latencies and the share outside of the engine are medians over the frames. A ratio is taken "
    "within each frame first, so it need not be that of the two medians. Stages and their sum are means."
)


def section_name(record: dict[str, Any]) -> str:
    """What marks the record's place in the document."""
    return f"{record['kind']} {record['shape']['name']}"


def markdown(record: dict[str, Any], command: str) -> str:
    """A record as Markdown.

    Args:
        record: What ``compare``, ``sweep`` or ``soak`` gave.
        command: The command line that made it.
    """
    body = {"compare": _compare, "sweep": _sweep, "soak": _soak}[record["kind"]](record)
    return "\n".join([f"`{command}`", "", _machine(record), "", *body, *_promises(record)]) + "\n"


def _promises(record: dict[str, Any]) -> list[str]:
    """What is promised of such a record and whether it keeps it; nothing of a record of another size."""
    if other_size(record):
        return []
    return ["", "Promised: " + "; ".join(str(promise) for promise in promises(record)) + "."]


def _machine(record: dict[str, Any]) -> str:
    machine, shape = record["machine"], record["shape"]
    threads = f"{machine['threads']} thread(s) on {machine['cores']} cores, load {machine['load_1min']:.1f}"
    return (
        f"{machine['device_name']} ({machine['device']}), {threads} when it was noted; "
        f"{machine['dtype']}, {machine['attention']} attention, torch {machine['torch']}, transformers "
        f"{machine['transformers']}. Shape `{shape['name']}`: {shape['parameters'] / 1e6:.1f} million "
        f"{shape['weights']} weights, {shape['about']}. Camera {record['width']}x{record['height']}."
    )


def _compare(record: dict[str, Any]) -> list[str]:
    speed, ratio, theory = record["queries_per_s"], record["ratio"], record["theory"]
    lines = [
        f"{record['points']} points a frame, {record['rounds']} frame(s); queries answered at once: "
        + ", ".join(f"{arm} {record['batch_size'][arm]}" for arm in ARMS)
        + "."
        + (_MEDIANS if record["rounds"] > 1 else ""),
        "",
        "| | official | `marker` | `text` |",
        "|---|---|---|---|",
        _row("queries/s", [_number(speed[arm]) for arm in ARMS]),
        _row("**ratio to official**", ["1", *(f"**{ratio[arm]:.2f}**" for arm in ARMS[1:])]),
        _row("ratio by processor time", ["1", *(f"{record['ratio_cpu'][arm]:.2f}" for arm in ARMS[1:])]),
        _row("first point [s]", [_number(record["latency_s"]["first_point"][arm]) for arm in ARMS]),
        _row("last point [s]", [_number(record["latency_s"]["last_point"][arm]) for arm in ARMS]),
        _row("tokens decoded per query", [f"{record['decoded_tokens'][arm]:.1f}" for arm in ARMS]),
        _row(
            "outside of the engine",
            ["-", *(f"{record['outside_engine_share_of'][arm]:.2%}" for arm in ARMS[1:])],
        ),
        *(
            _row(
                f"peak {kind} memory {above} [MB]",
                [f"{record['peak_memory_mb'][arm][kind][key]:.0f}" for arm in ARMS],
            )
            for kind in record["peak_memory_mb"]["official"]
            for key, above in _PEAKS.items()
        ),
        "",
        "Milliseconds per query:",
        "",
        "| stage | official | `marker` | `text` | |",
        "|---|---|---|---|---|",
    ]
    for stage in STAGES:
        cells = [_milliseconds(record["stages"][arm][stage], record["points"]) for arm in ARMS]
        lines.append(_row(f"`{stage}`", [*cells, _MEANING[stage]]))
    for stage in sorted({name for arm in ARMS[1:] for name in record["beside"][arm]}):
        cells = [_milliseconds(record["beside"][arm].get(stage), record["points"]) for arm in ARMS[1:]]
        lines.append(
            _row(f"(`{stage}` beside)", ["-", *cells, "in another thread; waiting for it is in `engine`"])
        )
    totals = [f"{1e3 * record['frame_s'][arm] / record['points']:.2f}" for arm in ARMS]
    lines += [_row("all", [*totals, ""]), ""]
    return [*lines, *_outside(record), *_theory(record, theory), "", _agreement(record["agreement"])]


def _outside(record: dict[str, Any]) -> list[str]:
    """What to know of each procedure that spends more than ``OUTSIDE_BOUND`` outside of the engine."""
    lines = []
    for arm in ARMS[1:]:
        if record["outside_engine_share_of"][arm] <= OUTSIDE_BOUND:
            continue
        stages = {stage: seconds or 0.0 for stage, seconds in record["stages"][arm].items()}
        outside = sum(seconds for stage, seconds in stages.items() if stage not in IN_ENGINE)
        opened, frame = stages["decode_image"], sum(stages.values())
        lines += [
            f"More than {OUTSIDE_BOUND:.0%} of a frame is spent outside of the engine in `{arm}`, whose queries take "
            f"{1e3 * frame / record['points']:.2f} ms: {opened / outside:.0%} of that opens the image file, which a "
            "node does not do, since it is given pixels in a sensor_msgs/Image. Without it, "
            f"{(outside - opened) / (frame - opened):.1%} would be left.",
            "",
        ]
    return lines


def _theory(record: dict[str, Any], theory: dict[str, Any]) -> list[str]:
    flop, peak = theory["gflop_per_query"], theory["peak_tflops"]
    rated = f", rated {peak['rated']:g}" if peak["rated"] else ""
    share = theory["prefill_share_of_peak"]
    bound = theory["marker_bound_queries_per_s"]
    reached = record["queries_per_s"]["marker"] / bound
    return [
        f"By the shape, a query of {theory['image_patches']} patches ({theory['image_tokens']} image tokens, "
        f"{theory['prompt_tokens']} prompt tokens) costs {flop['vision']:.4g} GFLOP in the vision tower, "
        f"{flop['prefill']:.4g} in the prefill and {flop['per_decoded_token']:.3g} per decoded token. Matrix "
        f"products run at {peak['measured']:.3g} TFLOP/s here at best (measured in the same run{rated}). Vision and "
        f"prefill reach {share['marker']:.0%} of the peak in `marker` and {share['official']:.0%} in the official "
        "procedure.",
        "",
        f"Exact `marker` must redo vision and prefill for every query: at the peak, {bound:.3g} queries/s, of which "
        f"it reaches {reached:.0%}. If everything but vision and prefill were free, at the official procedure's own "
        f"speed in them, the ratio would be {theory['ratio_if_only_prefill_counted']:.2f}; it is "
        f"{record['ratio']['marker']:.2f}.",
    ]


def _agreement(found: dict[str, Any]) -> str:
    more = ""
    if "largest_logprob_difference" in found:
        more = f" (largest difference of its log-probability: {found['largest_logprob_difference']:.1e})"
    return (
        f"Official and `marker` agree in {found['equal']} of {found['compared']} comparisons of the {found['what']}"
        f"{more}."
    )


def _sweep(record: dict[str, Any]) -> list[str]:
    exponent = record["growth_exponent"]
    lines = [
        "Seconds per frame (official: from the queries that were timed, its cost per query being constant):",
        "",
        "| points | official | `marker` | `text` | official queries timed |",
        "|---|---|---|---|---|",
    ]
    for row in record["by_points"]:
        cells = [_number(row[arm]["frame_s"]) for arm in ARMS]
        lines.append(_row(str(row["points"]), [*cells, str(row["official"]["timed_queries"])]))
    if exponent["marker"] is not None:
        few, many = sorted(int(row["points"]) for row in record["by_points"])[-2:]
        lines += [
            "",
            f"From {few} to {many} points, time grows with the power {exponent['marker']:.2f} of the points in "
            f"`marker` and {exponent['text']:.2f} in `text` (1 is linear).",
        ]
    lines += [
        "",
        f"Queries/s at {record['points_per_size']} points, at one field of view:",
        "",
        "| camera | patches | official | `marker` | `text` |",
        "|---|---|---|---|---|",
    ]
    for row in record["by_size"]:
        cells = [_number(row[arm]["queries_per_s"]) for arm in ARMS]
        lines.append(_row(f"{row['width']}x{row['height']}", [str(row["image_patches"]), *cells]))
    return lines


def _soak(record: dict[str, Any]) -> list[str]:
    seen = record["resident_mb"]
    marks = [seen[round(k * (len(seen) - 1) / 4)] for k in range(5)]
    number, mb = seen[1]
    return [
        f"{record['frames']} frames of {record['points']} points, `marker` and `text` in turn.",
        "",
        "| frames | " + " | ".join(str(number) for number, _ in marks) + " |",
        "|---|" + "---|" * len(marks),
        _row("resident [MB]", [f"{mb:.1f}" for _, mb in marks]),
        "",
        f"Warm-up, which is left out of what is promised: {record['warmup_mb']:+.2f} MB in the first quarter of the "
        f"frames, {mb - seen[0][1]:+.2f} MB of it by frame {number}. From a quarter to the end: "
        f"{record['growth_mb']:+.2f} MB; slope {record['growth_mb_per_1000_frames']:+.2f} MB per 1000 frames.",
    ]


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _milliseconds(seconds: float | None, queries: int) -> str:
    return "-" if seconds is None else f"{1e3 * seconds / queries:.2f}"


def write_section(path: Path, name: str, text: str) -> None:
    """Put a text between ``<!-- bench: NAME -->`` and ``<!-- end: NAME -->`` of a document.

    Args:
        path: The document.
        name: What :func:`section_name` gave.
        text: What goes between the marks; what was there is dropped.

    Raises:
        BenchError: The document is not there or lacks the marks.
    """
    try:
        sections.write_section(path, "bench", name, text, what="the figures go")
    except sections.SectionError as error:
        raise BenchError(str(error)) from error
