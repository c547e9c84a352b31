"""The launch file, with ROS 2's own launch; skipped where that is not installed."""

# ruff: noqa: E402

import os
from pathlib import Path

import pytest

REASON = "needs launch and launch_ros: they come with a ROS 2 installation, not from PyPI"
# `launch` alone would also find this repository's folder of that name.
pytest.importorskip("launch.actions", reason=REASON)
pytest.importorskip("launch_ros.actions", reason=REASON)

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.launch_description_sources.python_launch_file_utilities import load_python_launch_file_as_module
from launch.utilities import perform_substitutions
from launch_ros.event_handlers import OnStateTransition

from depthlm_ros.config import DepthLMConfig, flatten

LAUNCH_FILE = str(Path(__file__).parents[2] / "launch" / "depth.launch.py")


def test_every_argument_is_described_and_no_default_is_repeated():
    module = load_python_launch_file_as_module(LAUNCH_FILE)
    arguments = {a.name: a for a in module.generate_launch_description().get_launch_arguments()}
    defaults = {
        name: perform_substitutions(LaunchContext(), a.default_value) for name, a in arguments.items()
    }
    assert DeclareLaunchArgument("undescribed").description not in {a.description for a in arguments.values()}
    assert {defaults.pop(name) for name in module.PARAMETER_ARGUMENTS} == {""}
    of_config = {value for value in flatten(DepthLMConfig()).values() if isinstance(value, str) and value}
    assert not of_config & set(defaults.values())
    assert Path(defaults["params_file"]).is_file()


def _run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **arguments: str
) -> tuple[int, list[str], list[int]]:
    """Launch until the node is active or gone; returns launch's code, the states reached and the node's codes."""
    try:
        built = Path(get_package_prefix("depthlm_ros"), "lib", "depthlm_ros", "depthlm").exists()
    except PackageNotFoundError:
        built = False
    if not built:
        pytest.skip("needs the executables: build with colcon and source install/setup.bash")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    (tmp_path / "mine.yaml").write_text("/**:\n  ros__parameters:\n    engine.threads: 1\n", encoding="utf-8")
    given = {
        "namespace": f"launch_test_{os.getpid()}",
        "params_file": str(tmp_path / "mine.yaml"),
        **arguments,
    }
    states: list[str] = []
    codes: list[int] = []
    active = [OpaqueFunction(function=lambda _: states.append("active")), EmitEvent(event=Shutdown())]
    service = LaunchService(noninteractive=True)
    service.include_launch_description(
        LaunchDescription(
            [
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource(LAUNCH_FILE), launch_arguments=given.items()
                ),
                RegisterEventHandler(OnStateTransition(goal_state="active", entities=active)),
                RegisterEventHandler(OnProcessExit(on_exit=lambda event, _: codes.append(event.returncode))),
                TimerAction(period=150.0, actions=[EmitEvent(event=Shutdown(reason="it took too long"))]),
            ]
        )
    )
    return service.run(), states, codes


def test_the_node_becomes_active_and_ends_cleanly(tmp_path, monkeypatch):
    assert _run(tmp_path, monkeypatch) == (0, ["active"], [0])


def test_a_parameter_file_that_is_not_there_is_refused(tmp_path, monkeypatch):
    code, states, codes = _run(tmp_path, monkeypatch, params_file=str(tmp_path / "absent.yaml"))
    assert (code, states, codes) == (1, [], [])
