"""A record as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from depthlm_ros.bench.clock import STAGES
from depthlm_ros.bench.contest import ARMS

# Okabe and Ito's colours, which colour-blind readers tell apart; the engine's own stages are the strong ones.
_COLOURS = {
    "decode_image": "#D9D9D9",
    "rectify": "#BFBFBF",
    "resize": "#A6A6A6",
    "mark": "#8C8C8C",
    "process": "#F0E442",
    "vision": "#0072B2",
    "prefill": "#56B4E9",
    "decode_tokens": "#D55E00",
    "engine": "#E69F00",
    "parse": "#737373",
    "publish": "#009E73",
    "other": "#595959",
}
_ARM_COLOURS = {"official": "#8C8C8C", "marker": "#0072B2", "text": "#D55E00"}
_INK = "#222222"


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw a record.

    Args:
        record: What ``compare``, ``sweep`` or ``soak`` gave.
        path: The PNG file, which is replaced.
    """
    # The object-oriented interface: pyplot would choose a backend for the whole process, perhaps a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    {"compare": _compare, "sweep": _sweep, "soak": _soak}[record["kind"]](figure, record)
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(visible=True, color="#E6E6E6")
        ax.set_axisbelow(True)
    machine = record["machine"]
    figure.suptitle(
        f"{record['shape']['name']} shape, {record['width']}x{record['height']} camera, {machine['device_name']}, "
        f"{machine['threads']} threads, {machine['dtype']}",
        fontsize=10, color=_INK, x=0.01, ha="left",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": "depthlm bench"})


def _compare(figure: Any, record: dict[str, Any]) -> None:
    ax = figure.subplots()
    ends = dict.fromkeys(ARMS, 0.0)
    for stage in STAGES:
        widths = [1e3 * (record["stages"][arm][stage] or 0.0) / record["points"] for arm in ARMS]
        ax.barh(
            ARMS, widths, left=[ends[arm] for arm in ARMS], color=_COLOURS[stage], label=stage, height=0.62
        )
        for arm, width in zip(ARMS, widths, strict=True):
            ends[arm] += width
    for arm in ARMS[1:]:
        ax.text(ends[arm], arm, f"  {record['ratio'][arm]:.2f} x official", va="center", color=_INK)
    ax.invert_yaxis()
    ax.set_xlabel(f"milliseconds per query ({record['points']} points a frame)")
    ax.legend(ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, fontsize=8)


def _sweep(figure: Any, record: dict[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    points = [row["points"] for row in record["by_points"]]
    megapixels = [row["width"] * row["height"] / 1e6 for row in record["by_size"]]
    for arm in ARMS:
        style = {"marker": "o", "color": _ARM_COLOURS[arm], "label": arm}
        left.plot(points, [row[arm]["frame_s"] for row in record["by_points"]], **style)
        right.plot(megapixels, [row[arm]["queries_per_s"] for row in record["by_size"]], **style)
    left.set(xscale="log", yscale="log", xlabel="points a frame", ylabel="seconds per frame")
    right.set(yscale="log", xlabel="camera [megapixels], one field of view", ylabel="queries/s")
    left.legend(frameon=False)


def _soak(figure: Any, record: dict[str, Any]) -> None:
    ax = figure.subplots()
    numbers, resident = zip(*record["resident_mb"], strict=True)
    ax.plot(numbers, resident, color=_ARM_COLOURS["marker"])
    ax.set(xlabel="frames", ylabel="resident memory [MB]", ylim=(0.0, 1.15 * max(resident)))
