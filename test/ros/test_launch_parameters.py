"""How ROS reads what the launch files put together: the command line, the user's file, the arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from rclpy.node import Node

from depthlm_ros.ros.launch_arguments import SWITCHES, node_arguments, overrides, ros_arguments, sim_time

ROOT = Path(__file__).parents[2]
AUTOSTART, CLOCK = SWITCHES["autostart"], SWITCHES["use_sim_time"]
SAID = {"ros__parameters": {"use_sim_time": True, "lifecycle": {"autostart": False}}}
OTHER = {"ros__parameters": {"use_sim_time": False, "lifecycle": {"autostart": True}}}
FILES = {
    "all nodes": {"/**": SAID},
    "dotted": {"/**": {"ros__parameters": {"use_sim_time": True, "lifecycle.autostart": False}}},
    "the name": {"depthlm": SAID},
    "the full name": {"/depthlm": SAID},
    "a namespace": {"/front/depthlm": SAID},
    "any namespace": {"/*/depthlm": SAID},
    "any depth": {"/**/depthlm": SAID},
    "nested": {"front": {"depthlm": SAID}},
    "two parts": {"/**": OTHER, "/front/depthlm": SAID},
    "two parts, turned": {"/front/depthlm": SAID, "/**": OTHER},
    "another node": {"/front/camera": SAID},
    "other things": {"/**": {"ros__parameters": {"engine": {"threads": 1}}}},
}
FITS = {
    "/depthlm": {"all nodes", "the name", "the full name", "dotted", "any depth"},
    "/front/depthlm": {
        "all nodes", "dotted", "a namespace", "any namespace", "any depth", "nested", "two parts",
        "two parts, turned",
    },
}  # fmt: skip
"""In which of the files something is said of a node."""


def read(node: str, given: dict[str, str], folder: Path, *between: str) -> dict[str, bool]:
    """What a node has that is started as launch_ros does it.

    Args:
        node: Its full name.
        given: Of the launch file.
        folder: For files.
        between: Stands where launch_ros puts the parameters that a launch file around this one sets for all nodes.
    """
    namespace, _, name = node.rpartition("/")
    files = ["--params-file", given["params_file"]]
    if over := overrides(given):
        (folder / "over.yaml").write_text(yaml.dump({node: {"ros__parameters": over}}), encoding="utf-8")
        files += ["--params-file", str(folder / "over.yaml")]
    names = ["--ros-args", "-r", f"__node:={name}", "-r", f"__ns:={namespace or '/'}"]
    context = rclpy.Context()
    rclpy.init(args=["depthlm", *ros_arguments(given), *names, *between, *files], context=context)
    try:
        started = Node("depthlm", context=context, automatically_declare_parameters_from_overrides=True)
        found = {key: started.get_parameter(key) for key in (AUTOSTART, CLOCK)}
        started.destroy_node()
        return {key: parameter.value for key, parameter in found.items()}
    finally:
        rclpy.shutdown(context=context)


def arguments(folder: Path, record: dict[str, Any], **some: str) -> dict[str, str]:
    """The launch arguments, of which some are given, with a parameter file."""
    mine = folder / "mine.yaml"
    mine.write_text(yaml.dump(record, sort_keys=False), encoding="utf-8")
    defaults = {argument.name: argument.default for argument in node_arguments(ROOT)}
    return {**defaults, "params_file": str(mine), **some}


@pytest.mark.parametrize("node", FITS)
@pytest.mark.parametrize("how", FILES)
def test_what_the_file_says_holds_where_no_argument_is_given(node: str, how: str, tmp_path: Path) -> None:
    given = arguments(tmp_path, FILES[how])
    said = how in FITS[node]
    assert read(node, given, tmp_path) == {AUTOSTART: not said, CLOCK: said}
    assert sim_time(given, node).get(CLOCK, False) is said, "rviz2 would have another clock than the node"


@pytest.mark.parametrize("node", FITS)
@pytest.mark.parametrize("how", FILES)
@pytest.mark.parametrize("text", ["true", "false"])
def test_an_argument_that_is_given_holds_whatever_the_file_says(
    node: str, how: str, text: str, tmp_path: Path
) -> None:
    given = arguments(tmp_path, FILES[how], autostart=text, use_sim_time=text)
    assert read(node, given, tmp_path) == {AUTOSTART: text == "true", CLOCK: text == "true"}


@pytest.mark.parametrize("node", FITS)
def test_a_launch_without_arguments_activates(node: str, tmp_path: Path) -> None:
    given = {argument.name: argument.default for argument in node_arguments(ROOT)}
    assert read(node, given, tmp_path) == {AUTOSTART: True, CLOCK: False}


def test_a_launch_file_around_this_one_has_its_say(tmp_path: Path) -> None:
    """As its SetParameter and SetUseSimTime are passed on by launch_ros; the file is nearer to the node."""
    around = ("-p", "lifecycle.autostart:=false", "-p", "use_sim_time:=true")
    silent = arguments(tmp_path, FILES["other things"])
    assert read("/depthlm", silent, tmp_path, *around) == {AUTOSTART: False, CLOCK: True}
    saying = arguments(tmp_path, {"/**": OTHER})
    assert read("/depthlm", saying, tmp_path, *around) == {AUTOSTART: True, CLOCK: False}
