"""``report.png``: an evaluation at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from depthlm_ros.evaluation.metrics import DELTA1_RATIO
from depthlm_ros.evaluation.results import Evaluation

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8C8C8C", "#222222"

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def draw_report(evaluation: Evaluation, metrics: dict[str, Any], path: Path) -> None:
    """Draw what an evaluation found: answers over truth, depth bins, canvas sizes, confidence, and a table.

    Args:
        evaluation: The answers.
        metrics: What its ``metrics`` gave.
        path: The PNG file, which is replaced.
    """
    # The object-oriented interface: pyplot would choose a backend for the whole process, perhaps a screen.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with rc_context(_STYLE):
        figure = Figure(figsize=(15.0, 9.6), dpi=110, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15))
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 3)
        _answers(axes[0, 0], evaluation)
        _depth_bins(axes[0, 1], metrics)
        _table(axes[0, 2], metrics)
        _reliability(axes[1, 0], metrics["confidence"])
        _sparsification(axes[1, 1], metrics["confidence"])
        _canvases(axes[1, 2], metrics)
        figure.suptitle(
            f"{metrics['name']}: {metrics['model']}", fontsize=15, fontweight="bold", x=0.01, ha="left"
        )
        figure.savefig(path, metadata={"Software": "depthlm eval"})


def draw_comparison(rows: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Draw the table over several data sets: delta1 of every predictor, with its interval.

    Args:
        rows: What :func:`~depthlm_ros.evaluation.table.paper_table` gave.
        path: The PNG file, which is replaced.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = list(next(iter(rows.values())))
    colours = (BLUE, GREY, ORANGE, "#CC79A7", GREEN)
    with rc_context(_STYLE):
        figure = Figure(figsize=(max(7.0, 2.2 * len(columns)), 5.2), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        for k, (predictor, cells) in enumerate(rows.items()):
            places = np.arange(len(columns)) + 0.13 * (k - (len(rows) - 1) / 2)
            height = [cells[name]["delta1"] for name in columns]
            marker, colour = "osD^v"[k % 5], colours[k % 5]
            ax.plot(places, height, marker, color=colour, ms=9 if k == 0 else 7, label=predictor, zorder=3)
            for x, name in zip(places, columns, strict=True):
                if cells[name]["delta1_interval95"] is not None:
                    ax.vlines(x, *cells[name]["delta1_interval95"], color=colour, lw=1.6)
        for border in np.arange(1, len(columns)) - 0.5:
            ax.axvline(border, color="#E6E6E6", lw=1.0)
        ax.set_xticks(np.arange(len(columns)), columns)
        ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(0.0, 1.0), ylabel="delta1 (95 % interval)")
        ax.grid(visible=False, axis="x")
        ax.set_title("Share of answers within 25 %")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
        figure.savefig(path, metadata={"Software": "depthlm eval"})


def _answers(ax: Any, evaluation: Evaluation) -> None:
    truth, said = np.concatenate(evaluation.truth), np.concatenate(evaluation.predicted)
    known = np.isfinite(said)
    truth, said = truth[known], said[known]
    ax.set_title("Answer over truth")
    ax.set_xlabel("true z-depth [m]")
    ax.set_ylabel("answered z-depth [m]")
    if not len(truth):
        _nothing(ax, "no label was answered")
        return
    low, high = (float(f([truth.min(), truth.max(), *np.percentile(said, (0.5, 99.5))])) for f in (min, max))
    low, high = low / 1.15, high * 1.15
    line = np.array([low, high])
    ax.fill_between(line, line / DELTA1_RATIO, line * DELTA1_RATIO, color=GREEN, alpha=0.16, lw=0)
    ax.plot(line, line, color=GREEN, lw=1.2)
    # Thousands of points would hide each other: fainter the more there are.
    alpha = float(np.clip(30.0 / np.sqrt(len(truth)), 0.12, 0.8))
    ax.scatter(truth, said, s=9, color=BLUE, alpha=alpha, linewidths=0, rasterized=True)
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    _plain_ticks(ax, low, high)
    outside = int(((said < low) | (said > high)).sum())
    note = f"{len(truth)} answers; green: within 25 %"
    ax.text(0.03, 0.97, note + (f"; {outside} outside" if outside else ""), transform=ax.transAxes, va="top")


def _plain_ticks(ax: Any, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= t <= high]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _depth_bins(ax: Any, metrics: dict[str, Any]) -> None:
    ax.set_title("delta1 by true depth")
    bins = [b for b in metrics["by_depth"] if b["n"]]
    names = [f"{b['from_m']:g}+" if b["to_m"] is None else f"{b['from_m']:g} to {b['to_m']:g}" for b in bins]
    _bars(ax, bins, names)
    ax.set_xlabel("true z-depth [m], with the number of labels")


def _canvases(ax: Any, metrics: dict[str, Any]) -> None:
    ax.set_title("delta1 by size of the canonical view")
    groups = metrics["by_canvas"]["area"]
    names = []
    for group in groups:
        small, large = (f"{w}×{h}" for w, h in (group["smallest"], group["largest"]))
        names.append(small if small == large else f"{small}\nto {large}")
    _bars(ax, groups, names)
    if groups:
        best = max(group["delta1"] for group in groups)
        ax.axhline(best - 0.05, color=ORANGE, lw=1.4, ls=(0, (4, 3)), label="0.05 below the best")
        ax.legend(loc="upper left")
    ax.set_xlabel("width × height [px], with the number of labels")


def _bars(ax: Any, rows: list[dict[str, Any]], names: list[str]) -> None:
    """delta1 of some groups with its 95 % interval, and the number of labels in the group's name."""
    places = np.arange(len(rows))
    height = np.array([row["delta1"] for row in rows])
    ax.bar(places, height, width=0.7, color=BLUE, alpha=0.85)
    for x, row in zip(places, rows, strict=True):
        if row["delta1_interval95"] is not None:
            ax.vlines(x, *row["delta1_interval95"], color=INK, lw=1.4)
    ax.set_xticks(places, [f"{name}\n{row['n']}" for name, row in zip(names, rows, strict=True)], fontsize=9)
    ax.set_ylim(0.0, 1.0)
    ax.set_ylabel("delta1 (95 % interval)")
    ax.grid(visible=False, axis="x")


def _reliability(ax: Any, confidence: dict[str, Any]) -> None:
    ax.set_title("Does the confidence mean what it says?")
    ax.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0), aspect="equal")
    ax.set_xlabel("confidence")
    ax.set_ylabel("share within 25 %")
    ax.plot([0, 1], [0, 1], color=GREEN, lw=1.2)
    if not confidence["n"]:
        _nothing(ax, "the answers have no confidence")
        return
    most = max(row["n"] for row in confidence["reliability"]["equal_width"])
    for row in confidence["reliability"]["equal_width"]:
        ax.bar(
            row["from"], 0.16 * row["n"] / most, width=row["to"] - row["from"], align="edge", color=GREY,
            alpha=0.28, lw=0,
        )  # fmt: skip
    rows = confidence["reliability"]["equal_mass"]
    ax.plot([r["confidence"] for r in rows], [r["delta1"] for r in rows], "o-", color=BLUE, lw=1.4, ms=6)
    error = confidence["calibration_error"]["equal_mass"]
    chance = confidence["calibration_error_if_perfect"]["equal_mass"]
    ax.text(
        0.03, 0.97, f"calibration error {error:.3f}\n(chance alone: {chance:.3f})\ngrey: how many answers",
        transform=ax.transAxes, va="top",
    )  # fmt: skip


def _sparsification(ax: Any, confidence: dict[str, Any]) -> None:
    ax.set_title("Keeping only the most confident answers")
    ax.set_xlabel("share of answers kept")
    ax.set_ylabel("delta1 of what is kept")
    ax.set(xlim=(1.0, 0.0), ylim=(0.0, 1.02))
    if not confidence["n"]:
        _nothing(ax, "the answers have no confidence")
        return
    curves = confidence["sparsification"]
    ax.plot(curves["kept"], curves["delta1_oracle"], color=GREEN, lw=1.4, ls=(0, (4, 3)), label="oracle")
    ax.plot(curves["kept"], curves["delta1"], color=BLUE, lw=2.2, label="by confidence")
    ax.axhline(confidence["delta1"], color=GREY, lw=1.2, label="at random")
    ax.fill_between(curves["kept"], curves["delta1"], curves["delta1_oracle"], color=GREY, alpha=0.12, lw=0)
    auroc = "-" if confidence["auroc"] is None else f"{confidence['auroc']:.3f}"
    title = f"area to the oracle (AUSE) {curves['ause_delta1']:.3f}\nAUROC {auroc}"
    # The oracle climbs from delta1 on the left to 1 on the right: the corner away from it is free.
    corner = "lower left" if confidence["delta1"] > 0.4 else "upper left"
    ax.legend(loc=corner, title=title, alignment="left")


def _table(ax: Any, metrics: dict[str, Any]) -> None:
    ax.set_title("Beside predictors that do not look")
    ax.axis("off")
    rows = [("this model", metrics), *((n.replace("_", " "), f) for n, f in metrics["trivial"].items())]
    cells = [
        [name, f"{f['delta1']:.3f}", _number(f["abs_rel"]), _number(f["rmse"]), f"{f['answered']:.0%}"]
        for name, f in rows
    ]
    table = ax.table(
        cells,
        colLabels=["", "delta1", "AbsRel", "RMSE [m]", "answered"],
        colWidths=[0.43, 0.135, 0.135, 0.175, 0.175],
        cellLoc="right",
        loc="upper center",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    table.scale(1.0, 1.6)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#D0D0D0")
        if column == 0:
            cell.set_text_props(ha="left")
        if row == 1:
            cell.set_text_props(fontweight="bold", color=BLUE)
    ax.text(0.0, 0.36, "\n".join(_facts(metrics)), transform=ax.transAxes, va="top", linespacing=1.55)


def _facts(metrics: dict[str, Any]) -> list[str]:
    low_high = metrics["delta1_interval95"]
    interval = "" if low_high is None else f" (95 %: {low_high[0]:.3f} to {low_high[1]:.3f})"
    facts = [
        f"delta1 {metrics['delta1']:.3f}{interval}",
        f"{metrics['n']} labels of {metrics['images']} images",
        f"correlation within an image: {_number(metrics['log_correlation'])} of log depth, "
        f"{_number(metrics['rank_correlation'])} of ranks",
    ]
    if metrics["sigma"]["n"]:
        sigma = metrics["sigma"]
        facts.append(
            f"errors within sigma: {sigma['coverage']:.0%} (expected {sigma['coverage_expected']:.0%})"
        )
    if metrics["dense"]:
        edges, planes = metrics["dense"]["boundary"], metrics["dense"]["planes"]
        facts.append(
            f"at depth edges: accuracy {_number(edges['accuracy'])}, flying {_number(edges['flying_points'])}"
        )
        facts.append(f"on planes: roughness {_number(planes['flatness'])} of the distance")
    if metrics["static"]:
        facts.append(f"scale jitter on static scenes: {_number(metrics['static']['scale_jitter'])}")
    missing = {name: count for name, count in metrics["status"].items() if name != "ok"}
    if missing:
        facts.append("not answered: " + ", ".join(f"{name} {count}" for name, count in missing.items()))
    if metrics["failures"]:
        facts.append(f"{len(metrics['failures'])} images could not be used")
    return facts


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _nothing(ax: Any, why: str) -> None:
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=GREY)
