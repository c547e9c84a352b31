"""``depthlm bench``: the official procedure and ours side by side, stage by stage."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthlm_ros.cli_common import InputError, one_line_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from depthlm_ros.bench.contest import Contest


@one_line_errors
def bench(
    shape: Annotated[
        str,
        typer.Option(
            help="small: Qwen2.5-VL-3B scaled down, for a CPU. 3b: its true shape, for a GPU. embedded: the "
            "checkpoint of this package. tiny: a first look."
        ),
    ] = "small",
    points: Annotated[int, typer.Option(min=1, max=4096, help="Queries of a frame.")] = 64,
    width: Annotated[int, typer.Option(min=64, max=8192, help="Of the camera's image, in pixels.")] = 1280,
    height: Annotated[int, typer.Option(min=64, max=8192, help="Of the camera's image, in pixels.")] = 720,
    rounds: Annotated[int, typer.Option(min=1, help="Frames that every procedure answers.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16. [default: float32, on a GPU bfloat16]")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of torch; 0 leaves its choice.")] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Most queries that ours answers at once. [default: engine.batch_size]"),
    ] = None,
    marker_batch: Annotated[
        int,
        typer.Option(
            min=0, help="The same for marker alone, up to --batch-size; 0 is the engine's own choice."
        ),
    ] = 0,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Growth over 1 to 512 points and 320x240 to 1920x1080 instead.")
    ] = False,
    frames: Annotated[
        int | None,
        typer.Option(
            "--frames", min=4, help="Answer so many frames with ours instead, and watch the memory."
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the whole record.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG file for the picture.")] = None,
    docs: Annotated[
        Path | None, typer.Option(help="Document whose section of this shape is replaced by the figures.")
    ] = None,
) -> None:
    """Time the official DepthLM procedure against ours, in marker and in text reference, in one run.

    All run the same checkpoint (made on the fly with random weights, unless it is the embedded one) with the same
    dtype, device and threads, on the same frames and pixels. docs/performance.md says what is fair about it and how.
    """
    from depthlm_ros.bench.contest import BenchOptions, Contest
    from depthlm_ros.bench.frames import BenchError
    from depthlm_ros.bench.plot import draw
    from depthlm_ros.bench.report import markdown, section_name, write_section

    if sweep and frames is not None:
        raise InputError("name either --sweep or --frames, not both")
    given: dict[str, Any] = {"marker_batch": marker_batch}
    given |= {} if batch_size is None else {"batch_size": batch_size}
    publish, why_not = _publisher()
    try:
        options = BenchOptions(shape, points, width, height, rounds, device, dtype or "", threads, **given)
        with Contest(options, publish) as contest:
            record = _measure(contest, sweep, frames)
        record["publish"] = why_not or "messages built and serialised, without a network"
        text = markdown(record, _command(locals()))
        if json_file is not None:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if plot is not None:
            draw(record, plot)
        if docs is not None:
            if plot is not None:
                text += f"\n![The same as a picture]({os.path.relpath(plot, docs.parent)})\n"
            write_section(docs, section_name(record), text)
    except BenchError as error:
        raise InputError(str(error)) from error
    typer.echo(text)


def _measure(contest: Contest, sweep: bool, frames: int | None) -> dict[str, Any]:
    """Run what was chosen under a progress bar that counts answered queries."""
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    options = contest.options
    total = None if sweep else options.points * (frames or 3 * options.rounds)
    with tqdm(total=total, unit="query", dynamic_ncols=True) as bar:

        def say(arm: str, answered: int) -> None:
            bar.set_description(arm, refresh=answered == 0)
            bar.update(answered)

        if sweep:
            from depthlm_ros.bench.sweep import sweep as run_sweep

            return run_sweep(contest, say)
        if frames is not None:
            from depthlm_ros.bench.soak import soak

            return soak(contest, frames, say)
        from depthlm_ros.bench.compare import compare

        return compare(contest, say)


def _publisher() -> tuple[Callable[[Any], object] | None, str]:
    """What builds the messages; without ROS nothing, and why."""
    if find_spec("rclpy") is None:
        return None, "not measured: no ROS"
    try:
        from depthlm_ros.ros.bench_publish import build_messages
    except ImportError as error:
        return None, f"not measured: {error}"
    return build_messages, ""


def _command(given: dict[str, Any]) -> str:
    """The command line as it was, with what differs from the defaults."""
    from depthlm_ros.evaluation.provenance import command_line

    flags = [
        ("--shape", given["shape"]), ("--points", given["points"]), ("--width", given["width"]),
        ("--height", given["height"]), ("--rounds", given["rounds"] if given["rounds"] > 1 else None),
        ("--device", given["device"] if given["device"] != "auto" else None), ("--dtype", given["dtype"]),
        ("--threads", given["threads"] or None), ("--batch-size", given["batch_size"]),
        ("--marker-batch", given["marker_batch"] or None),
        ("--frames", given["frames"]), ("--json", given["json_file"]), ("--plot", given["plot"]),
        ("--docs", given["docs"]),
    ]  # fmt: skip
    return command_line(["depthlm", "bench", *(["--sweep"] if given["sweep"] else [])], flags)
