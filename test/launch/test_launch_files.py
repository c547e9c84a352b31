"""What the launch files start and refuse."""

# ruff: noqa: E402

import sys
from pathlib import Path

import pytest

REASON = "needs launch and launch_ros: they come with a ROS 2 installation, not from PyPI"
# `launch` alone would also find this repository's folder of that name.
pytest.importorskip("launch.actions", reason=REASON)
pytest.importorskip("launch_ros.actions", reason=REASON)

import yaml
from bring_up import DEPTH, FILES, FOLDER, run, start
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources.python_launch_file_utilities import load_python_launch_file_as_module
from launch.utilities import perform_substitutions
from launch_ros.actions import Node

from depthlm_ros.config import ConfigError, DepthLMConfig, flatten
from depthlm_ros.ros.launch_arguments import PARAMETER_ARGUMENTS, SWITCHES, server_command

WANTED = {
    "namespace", "params_file", "image", "camera_info", "engine", "checkpoint", "base_url", "autostart",
    "use_sim_time", "use_respawn", "log_level", "rviz", "serve",
}  # fmt: skip


def arguments_of(path):
    module = load_python_launch_file_as_module(path)
    return {a.name: a for a in module.generate_launch_description().get_launch_arguments()}


@pytest.mark.parametrize("name", FILES)
def test_every_argument_is_described_and_no_default_is_repeated(name):
    arguments = arguments_of(FILES[name])
    defaults = {key: perform_substitutions(LaunchContext(), a.default_value) for key, a in arguments.items()}
    assert DeclareLaunchArgument("undescribed").description not in {a.description for a in arguments.values()}
    unsaid = {*PARAMETER_ARGUMENTS, *SWITCHES, "rviz_frame"} & set(defaults)
    assert {defaults.pop(key) for key in unsaid} <= {""}
    of_config = {value for value in flatten(DepthLMConfig()).values() if isinstance(value, str) and value}
    assert not of_config & set(defaults.values())


def test_the_one_line_launch_takes_what_users_ask_for():
    arguments = arguments_of(DEPTH)
    assert set(arguments) >= WANTED
    params = perform_substitutions(LaunchContext(), arguments["params_file"].default_value)
    assert Path(params).is_file()


def test_the_node_becomes_active_and_ends_cleanly(launched):
    code, said, codes = run(DEPTH, **launched)
    assert (code, len(said), codes) == (0, 1, [0])


def test_a_parameter_file_that_is_not_there_is_refused(tmp_path):
    absent = str(tmp_path / "absent.yaml")
    with pytest.raises(FileNotFoundError, match=rf"params_file: '{absent}' is not a file; give the path"):
        start(DEPTH, params_file=absent)


def test_what_is_refused_starts_nothing(launched, tmp_path):
    assert run(DEPTH, **{**launched, "params_file": str(tmp_path / "absent.yaml")}) == (1, [], [])


def test_several_cameras_need_a_server():
    with pytest.raises(ConfigError, match=r"several cameras share a server.*engine:=openai"):
        start(FILES["multi_camera"])


@pytest.mark.parametrize("cameras", ["a a", " "])
def test_several_cameras_need_names_that_differ(cameras):
    with pytest.raises(ConfigError, match="cameras: expected names that differ"):
        start(FILES["multi_camera"], cameras=cameras, engine="openai")


def test_several_cameras_share_a_server(launched):
    from servers.brain import EmbeddedModel
    from servers.fixtures import CHECKPOINT
    from servers.kinds import Vllm

    launched.pop("namespace")
    with EmbeddedModel(CHECKPOINT) as model, Vllm(model) as server:
        code, said, codes = run(
            FILES["multi_camera"], times=2, cameras="front rear", engine="openai", model="embedded",
            base_url=server.url, **launched,
        )  # fmt: skip
    assert (code, len(said), codes) == (0, 2, [0, 0])
    assert len(server.chats) >= 2  # each node's first question


def test_a_server_that_is_not_installed_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs trtllm-serve on the PATH.*base_url:="):
        start(DEPTH, serve="true", checkpoint=str(tmp_path))


SERVER = """#!{python}
import sys, time
open({log!r}, "w").write(" ".join(sys.argv[1:]))
time.sleep(1.0)
print("INFO:     Application startup complete.", file=sys.stderr, flush=True)
time.sleep(60.0)
"""


def test_the_node_waits_for_the_server(launched, monkeypatch, tmp_path):
    """A stand-in for trtllm-serve takes a second to start; the node, which finds no model there, comes after it."""
    log = tmp_path / "called"
    stand_in = tmp_path / "bin" / "trtllm-serve"
    stand_in.parent.mkdir()
    stand_in.write_text(SERVER.format(python=sys.executable, log=str(log)))
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(stand_in.parent), prepend=":")
    checkpoint = str(Path(__file__).parents[2] / "depthlm_ros" / "checkpoints" / "embedded")
    started = {"serve": "true", "checkpoint": checkpoint, **launched}
    # Nothing listens in truth, so that the node, once it is started, cannot be configured.
    code, said, _ = run(DEPTH, says="cannot configure: no server", **started)
    assert (code, len(said)) == (0, 1)
    assert log.read_text().split() == server_command({"checkpoint": checkpoint})[1:]


def test_nav2_demo_says_what_is_missing():
    module = load_python_launch_file_as_module(FILES["nav2_demo"])
    if module._installed("nav2_controller"):
        pytest.skip("Nav2 is installed")
    with pytest.raises(RuntimeError, match=r"nav2_demo needs nav2_controller.*navigation2"):
        module._start(LaunchContext())


def test_nav2_demo_gives_the_controller_server_a_controller(monkeypatch):
    """Read by ROS as launch_ros passes it on, as the server's own node would."""
    import rclpy

    module, context = load_python_launch_file_as_module(FILES["nav2_demo"]), LaunchContext()
    monkeypatch.setattr(module, "_installed", lambda package: True)
    context.launch_configurations["rviz"] = "false"
    nodes = [action for action in module._start(context) if isinstance(action, Node)]
    (server,) = (node for node in nodes if node.node_package == "nav2_controller")
    server._perform_substitutions(context)
    command = [perform_substitutions(context, word) for word in server.cmd[1:]]
    own = rclpy.Context()
    rclpy.init(args=["controller_server", *command], context=own)
    try:
        node = rclpy.create_node(
            "controller_server", context=own, automatically_declare_parameters_from_overrides=True
        )
        got = {name: node.get_parameter(name).value for name in module.CONTROLLER}
        node.destroy_node()
    finally:
        rclpy.shutdown(context=own)
    assert got == module.CONTROLLER


def test_nav2_demo_shows_the_frame_of_the_costmap(monkeypatch):
    module, context = load_python_launch_file_as_module(FILES["nav2_demo"]), LaunchContext()
    monkeypatch.setattr(module, "_installed", lambda package: True)
    context.launch_configurations["rviz"] = "true"
    (depth,) = (action for action in module._start(context) if isinstance(action, IncludeLaunchDescription))
    costmap = yaml.safe_load((FOLDER.parent / "config" / "nav2_costmap.yaml").read_text(encoding="utf-8"))
    frame = costmap["local_costmap"]["local_costmap"]["ros__parameters"]["global_frame"]
    assert dict(depth.launch_arguments) == {"rviz": "true", "rviz_frame": frame}
