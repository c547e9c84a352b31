"""docs/diagnostics.md and the code name the same reasons, keys, aspects and thresholds."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from builtin_interfaces.msg import Time
from test_diagnostics import WELL, watched

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.config import options
from depthlm_ros.ros.diagnostics import CAMERA_REASONS, CLOCK_REASONS, diagnostics
from depthlm_ros.spatial.request import SpatialStatus

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
SERVICES_ALONE = {"outside"}
"""Frames are refused to services for these; the stream never is."""


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def first_column(title: str) -> set[str]:
    words = re.findall(r"^\| `([^`]+)` \|", section(title), re.MULTILINE)
    assert words, title
    return set(words)


def literals(*functions: str) -> Iterator[str]:
    """The first argument of every call of these functions in the ROS part, where it is a literal."""
    for path in (ROOT / "depthlm_ros" / "ros").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in functions:
                yield str(node.args[0].value)


def names(statuses: type[AnswerStatus] | type[SpatialStatus]) -> set[str]:
    return {status.name.lower() for status in statuses} - {"ok"}


def test_the_reasons_of_dropped_frames_are_those_of_the_code() -> None:
    counted = set(literals("FrameRefusedError", "dropped_frame", "_refuse")) - SERVICES_ALONE
    assert counted >= {"newer", "engine", "stale", "internal"}, (
        "the search in the code finds nothing any more"
    )
    assert first_column("Why a frame gave no output") == counted
    assert counted > CAMERA_REASONS | CLOCK_REASONS
    for reason in SERVICES_ALONE:
        assert f"`{reason}`" in section("Why a frame gave no output")


def test_the_reasons_of_points_and_questions_are_the_statuses() -> None:
    assert first_column("Why a point has no depth") == names(AnswerStatus) | names(SpatialStatus)


def test_the_reasons_of_withheld_obstacles_are_those_of_the_code() -> None:
    assert first_column("Why an answered frame has no obstacles") == set(literals("_withheld_obstacles"))


def test_the_values_are_those_that_are_published_with_the_aspect_that_has_them() -> None:
    reason = Counter(REASON=1)
    total = replace(
        WELL.total,
        dropped=reason,
        failed_points=reason,
        failed_questions=reason,
        withheld=reason,
        clicks=reason,
    )
    what = replace(
        watched(total=total, engine_error="gone"),
        engine={"NAME": "well"},
        clock={"clock": "simulated", "clock_rate": "2.00"},
    )
    published = {
        (value.key, status.name.rsplit(": ", 1)[1])
        for status in diagnostics(what, Time()).status
        for value in status.values
    }
    told = set(re.findall(r"^\| `([^`]+)` \| `(\w+)` \|", section("Values"), re.MULTILINE))
    assert told == published


def test_every_aspect_and_every_threshold_is_explained() -> None:
    levels = section("Levels")
    aspects = {status.name.rsplit(": ", 1)[1] for status in diagnostics(watched(), Time()).status}
    assert first_column("Levels") == aspects
    thresholds = {name for name, _ in options() if name.startswith("diagnostics.")} - {"diagnostics.window_s"}
    assert thresholds == set(re.findall(r"`(diagnostics\.\w+)`", levels))
    assert "`diagnostics.window_s`" in PAGE


def test_the_page_names_only_options_that_exist() -> None:
    sections = {name.split(".")[0] for name, _ in options()}
    named = {name for name in re.findall(r"`(\w+\.\w+)`", PAGE) if name.split(".")[0] in sections}
    assert len(named) > 10
    assert named <= {name for name, _ in options()}
