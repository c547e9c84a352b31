"""``depthlm demo``: camera, node and recorder as separate processes, and a table at the end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]
DOMAINS = range(215, 232)
"""ROS domains that people do not pick and whose ports lie above Linux's ephemeral range (ROS 2, domain ID)."""


class DemoError(RuntimeError):
    """The demo could not run; the message says which part failed and what it last said."""


@dataclass
class _Part:
    """One process of the demo with the lines that it prints."""

    name: str
    process: subprocess.Popen[str]
    lines: Queue[str]
    errors: deque[str]


def run_demo(out: Path, *, frames: int = 24, timeout_s: float = 300.0, seed: int = 7) -> dict[str, object]:
    """Run the main job on a simulated robot camera and measure it.

    Args:
        out: Where ``summary.json``, ``contact_sheet.png``, ``demo.webp``, ``cloud.ply`` and ``demo.mcap`` go.
        frames: Answered frames to record.
        timeout_s: When to give up.
        seed: Seed of the scenes.

    Returns:
        What ``summary.json`` holds.

    Raises:
        DemoError: A part ended early, or the frames did not come in time.
    """
    console = Console()
    camera = {"image": "/camera/image_raw", "camera_info": "/camera/camera_info"}
    outputs = ("depth/image", "depth/camera_info", "points", "obstacles", "sparse_depth")
    heard = {**camera, "depth_truth": "/camera_sim/depth_truth", **{t: f"/depthlm/{t}" for t in outputs}}
    with tempfile.TemporaryDirectory(prefix="depthlm_demo_") as logs:
        env = _environment(Path(logs))
        commands = {
            "recorder": _command("recorder", {"out": str(out), "frames": frames}, heard),
            "camera": _command("camera_sim", {"seed": seed}, camera),
            "node": _command("main", {"lifecycle.autostart": True, "engine.threads": 1}, camera),
        }
        parts = [_start(name, command, env) for name, command in commands.items()]
        try:
            _watch(parts, frames, timeout_s, console)
        finally:
            _stop(parts)
    summary: dict[str, object] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    _print_table(summary, console)
    console.print(f"Written to {out}/: contact_sheet.png, demo.webp, cloud.ply, demo.mcap, summary.json")
    return summary


def _environment(logs: Path) -> dict[str, str]:
    """A ROS graph of its own: this machine only, a domain nobody else uses, transport fit for images."""
    env = dict(os.environ)
    # Not the user's own domain: on a robot the simulated camera must not reach the real graph.
    env["ROS_DOMAIN_ID"] = str(random.choice(DOMAINS))
    env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    env["ROS_LOCALHOST_ONLY"] = "1"
    env["ROS_LOG_DIR"] = str(logs)
    env["PYTHONUNBUFFERED"] = "1"
    profile = REPOSITORY / "config" / "fastdds.xml"
    if profile.is_file():
        env.setdefault(profile_variable(), str(profile))
    return env


def profile_variable() -> str:
    """The environment variable from which this ROS distribution's Fast DDS takes its profile."""
    old = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")
    return "FASTRTPS_DEFAULT_PROFILES_FILE" if old else "FASTDDS_DEFAULT_PROFILES_FILE"


def _command(module: str, parameters: dict[str, object], remaps: dict[str, str]) -> list[str]:
    command = [sys.executable, "-m", f"depthlm_ros.ros.{module}", "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
    own = {"depth_truth": "~/depth_truth"} if module == "camera_sim" else {}
    for name, target in remaps.items():
        command += ["-r", f"{own.get(name, name)}:={target}"]
    return command


def _start(name: str, command: list[str], env: dict[str, str]) -> _Part:
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    part = _Part(name, process, Queue(), deque(maxlen=20))
    assert process.stdout is not None
    assert process.stderr is not None
    threading.Thread(target=_forward, args=(process.stdout, part.lines.put), daemon=True).start()
    threading.Thread(target=_forward, args=(process.stderr, part.errors.append), daemon=True).start()
    return part


def _forward(stream: IO[str], take: object) -> None:
    for line in stream:
        take(line.rstrip())  # type: ignore[operator]


def _watch(parts: list[_Part], frames: int, timeout_s: float, console: Console) -> None:
    """Show progress until the recorder is done."""
    recorder = parts[0]
    give_up = time.monotonic() + timeout_s
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} frames"),
        TimeElapsedColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("camera -> depthlm -> recorder", total=frames, note="loading the model")
        while recorder.process.poll() is None or not recorder.lines.empty():
            ended = next((p for p in parts[1:] if p.process.poll() is not None), None)
            if ended is not None and recorder.process.poll() is None:
                raise DemoError(_last_words(ended, f"ended with exit code {ended.process.returncode}"))
            if time.monotonic() > give_up:
                raise DemoError(
                    f"not done within {timeout_s:g} s. " + " ".join(_last_words(p, "runs") for p in parts)
                )
            try:
                line = json.loads(recorder.lines.get(timeout=0.2))
            except (Empty, ValueError):
                continue
            note = f"{line['answered']}/{line['asked']} points, {line['latency_s']:.2f} s camera to cloud"
            progress.update(task, completed=line["frame"], note=note)
    if recorder.process.returncode:
        raise DemoError(_last_words(recorder, f"ended with exit code {recorder.process.returncode}"))


def _last_words(part: _Part, what: str) -> str:
    said = " | ".join(list(part.errors)[-3:]) or "nothing"
    return f"{part.name} {what}; its last lines: {said}"


def _stop(parts: list[_Part]) -> None:
    for part in parts:
        if part.process.poll() is None:
            os.killpg(part.process.pid, signal.SIGINT)
    for part in parts:
        try:
            part.process.wait(5.0)
        except subprocess.TimeoutExpired:
            os.killpg(part.process.pid, signal.SIGKILL)
            part.process.wait()


def _print_table(summary: dict[str, object], console: Console) -> None:
    """The closing table: our numbers beside the trivial predictors'."""
    table = Table(title=f"{summary['model']}: {summary['frames']} frames", title_justify="left")
    for column in ("", "delta1", "AbsRel", "RMSE (m)"):
        table.add_column(column, justify="left" if not column else "right")
    predictors = summary["predictors"]
    assert isinstance(predictors, dict)
    for name, row in predictors.items():
        table.add_row(name.replace("_", " "), *(f"{row[k]:.3f}" for k in ("delta1", "abs_rel", "rmse")))
    latency = summary["latency_s"]
    assert isinstance(latency, dict)
    console.print(table)
    console.print(
        f"{summary['points_answered']} of {summary['points_asked']} points answered, "
        f"{summary['points_per_s']:.1f} points/s\n"
        f"camera to cloud {latency['median']:.2f} s median, {latency['p95']:.2f} s p95\n"
        f"{summary['frames_in']} frames came while these were answered; {summary['frames_dropped']} of them gave "
        "way to a newer one, by design, or were refused"
    )
