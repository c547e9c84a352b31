"""What rehearsed failures have in common: verdicts of the diagnostics, settled counters, what may be published."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from graph import OUTPUTS, Bench
from std_msgs.msg import Header

LEVELS = {DiagnosticStatus.OK: "OK", DiagnosticStatus.WARN: "WARN", DiagnosticStatus.ERROR: "ERROR"}
ALWAYS = ("depth/image", "depth/camera_info", "points", "sparse_depth")
"""Published for every answered frame; obstacles need sure points, and the overlay somebody who looks at it."""

FORBIDDEN = (
    "[WARN]", "[ERROR]", "[FATAL]", "Traceback", "Exception", "Warning:", "terminate called", "Segmentation fault",
    "core dumped", "Aborted", "never retrieved", "rcl node's context is invalid",
)  # fmt: skip
"""In no line of the log of a node that is started as it should be, and has a good camera."""


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def stamp(header: Header) -> tuple[int, int]:
    return header.stamp.sec, header.stamp.nanosec


def stamps(bench: Bench, name: str) -> list[tuple[int, int]]:
    return [stamp(message.header) for message in bench.got[name]]


def verdict(bench: Bench, aspect: str) -> tuple[str, str]:
    """Level and sentence of an aspect in the node's newest diagnostics."""
    name = f"{bench.get_namespace()[1:]}/depthlm: {aspect}"
    found = [s for array in bench.got["diagnostics"] for s in array.status if s.name == name]
    return (LEVELS[found[-1].level], found[-1].message) if found else ("", "")


def wait_for_verdict(bench: Bench, aspect: str, level: str, says: str = "") -> str:
    """Spin until an aspect has a level and its sentence contains a text; returns the sentence."""

    def message() -> str:
        now, sentence = verdict(bench, aspect)
        return sentence if now == level and says in sentence else ""

    try:
        return str(bench.wait(message))
    except AssertionError:
        raise AssertionError(f"{aspect} stayed {verdict(bench, aspect)}") from None


def settled(bench: Bench) -> dict[str, str]:
    """The counters once nothing is under way any more; every frame was either answered or dropped."""

    def done() -> dict[str, str] | None:
        told = bench.counters()
        given_up = int(told["frames_dropped"]) + int(told["frames_answered"])
        return told if int(told["frames_in"]) == given_up else None

    return bench.wait(done)  # type: ignore[no-any-return]


def forget(bench: Bench) -> None:
    """Let what is under way arrive, then forget it."""
    settled(bench)
    bench.spin(0.3)
    for messages in bench.got.values():
        messages.clear()


def nothing_was_published(bench: Bench, headers: Iterable[Header]) -> None:
    """None of the outputs carries one of these stamps; called once the frames were counted as dropped."""
    bench.spin(0.3)
    refused = {stamp(header) for header in headers}
    for name in OUTPUTS:
        assert not refused & set(stamps(bench, name)), name


def forbidden_lines(log: Iterable[str], allowed: tuple[str, ...] = ()) -> list[str]:
    return [line for line in log if any(f in line for f in FORBIDDEN) and not any(a in line for a in allowed)]


def dropped(bench: Bench, reason: str) -> int:
    return int(bench.counters().get(f"dropped/{reason}", 0))


def answered_with(bench: Bench, image: Any, info: Any) -> Any:
    """Publish a pair again and again, with new stamps, until the node answers; returns its SparseDepth."""
    sent: set[tuple[int, int]] = set()

    def answer() -> Any:
        image.header = info.header = bench.header()
        sent.add(stamp(image.header))
        bench.send(image, info)
        bench.spin(0.3)
        return next((m for m in bench.got["sparse_depth"] if stamp(m.header) in sent), None)

    return bench.wait(answer)
