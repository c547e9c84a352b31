"""What the launch files share: the node as an action, and trtllm-serve as a managed process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from launch import Action, LaunchContext
from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, LogInfo, RegisterEventHandler
from launch.event_handlers import OnProcessIO
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from depthlm_ros.config import ConfigError
from depthlm_ros.ros.exits import PARAMETERS_REFUSED
from depthlm_ros.ros.launch_arguments import (
    RESPAWN_DELAY_S,
    SERVER,
    SERVER_READY,
    Argument,
    node_arguments,
    overrides,
    parameter_file,
    ros_arguments,
    server_command,
)


def declared(*arguments: Argument) -> list[DeclareLaunchArgument]:
    """The arguments, as launch declares them."""
    return [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            **({"choices": list(argument.choices)} if argument.choices else {}),
        )
        for argument in arguments
    ]


def switch(name: str, default: str, description: str) -> Argument:
    """An argument that is true or false."""
    return Argument(name, default, description, ("true", "false"))


def value(context: LaunchContext, name: str) -> str:
    """What a launch argument is."""
    return str(LaunchConfiguration(name).perform(context))


def given(context: LaunchContext) -> dict[str, str]:
    """What the arguments that every launch file of the node takes are."""
    return {argument.name: value(context, argument.name) for argument in node_arguments(Path())}


def node_action(context: LaunchContext, namespace: str, image: str, camera_info: str) -> LifecycleNode:
    """The node, as the arguments say.

    Args:
        context: Holds the arguments.
        namespace: Of the node.
        image: Topic of the images.
        camera_info: Topic of their CameraInfo.

    Raises:
        FileNotFoundError: There is no such parameter file.
        ConfigError: The arguments do not go together.
    """
    arguments = given(context)
    file = str(parameter_file(arguments))
    # A text stays one, also a checkpoint directory that is called 2025.
    over = {
        name: ParameterValue(said, value_type=str) if isinstance(said, str) else said
        for name, said in overrides(arguments).items()
    }
    respawn = arguments["use_respawn"] == "true"
    return LifecycleNode(
        package="depthlm_ros",
        executable="depthlm",
        name="depthlm",
        namespace=namespace,
        parameters=[file, over] if over else [file],
        remappings=[
            ("image", image),
            ("image/compressed", f"{image}/compressed"),
            ("camera_info", camera_info),
        ],
        arguments=ros_arguments(arguments),
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_S,
        on_exit=_leave_refused if respawn else None,
        output="both",
    )


def _leave_refused(event: ProcessExited, _: LaunchContext) -> list[Action]:
    """Keep a node from being started again with parameters that it refused: it would refuse them for ever."""
    if event.returncode != PARAMETERS_REFUSED:
        return []
    # A respawn takes no condition, and a limit (not in humble) would count all crashes of a robot's life. But launch
    # starts nothing again that was told to end.
    return [
        LogInfo(msg="depthlm is not started again: it refused its parameters (its message is above)"),
        EmitEvent(event=ShutdownProcess(process_matcher=matches_action(event.action))),
    ]


def with_server(context: LaunchContext, nodes: list[Action]) -> list[Action]:
    """The nodes at once, or where ``serve`` says so the server and then, once it is ready, the nodes.

    Raises:
        ConfigError: The server is not installed.
    """
    arguments = given(context)
    if arguments["serve"] != "true":
        return nodes
    if shutil.which(SERVER) is None:
        raise ConfigError(
            f"serve:=true needs {SERVER} on the PATH: activate the environment that has TensorRT-LLM, or start a "
            "server yourself and give base_url:=http://HOST:PORT engine:=openai"
        )
    server = ExecuteProcess(
        cmd=server_command(arguments),
        name="trtllm_serve",
        output="both",
        respawn=arguments["use_respawn"] == "true",
        respawn_delay=RESPAWN_DELAY_S,
    )
    waiting = list(nodes)
    heard = bytearray()

    def once_ready(event: Any) -> list[Action]:
        heard.extend(event.text)  # a line may come in two pieces
        ready = list(waiting) if SERVER_READY in heard else []
        del heard[: -len(SERVER_READY)]
        if ready:
            waiting.clear()
        return ready

    watch = OnProcessIO(target_action=server, on_stdout=once_ready, on_stderr=once_ready)
    return [RegisterEventHandler(watch), server]
