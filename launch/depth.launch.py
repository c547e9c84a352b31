"""Bring the node ``depthlm`` to active on a camera."""

from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from depthlm_ros.ros.launch_arguments import Argument, node_arguments, sim_time
from depthlm_ros.ros.launching import declared, given, node_action, switch, value, with_server

SHARE = Path(__file__).parent.parent
SHOWN = ("debug/image", "points", "obstacles")


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *declared(
                Argument("namespace", "", "Namespace of the node."),
                Argument("image", "image", "Topic of the camera's images."),
                Argument("camera_info", "camera_info", "Topic of the CameraInfo of these images."),
                switch("rviz", "false", "Start rviz2 with config/depthlm.rviz."),
                Argument(
                    "rviz_frame",
                    "",
                    "Fixed frame of rviz2: the camera's optical frame. Empty: as in config/depthlm.rviz.",
                ),
                *node_arguments(SHARE),
            ),
            OpaqueFunction(function=_start),
        ]
    )


def _start(context: LaunchContext) -> list[Action]:
    namespace = value(context, "namespace")
    node = node_action(context, namespace, value(context, "image"), value(context, "camera_info"))
    started = with_server(context, [node])
    return [*started, _rviz(context, namespace)] if value(context, "rviz") == "true" else started


def _rviz(context: LaunchContext, namespace: str) -> Node:
    prefix = f"/{namespace.strip('/')}" if namespace.strip("/") else ""
    frame = value(context, "rviz_frame")
    clock = sim_time(given(context), f"{prefix}/depthlm")
    return Node(
        package="rviz2",
        executable="rviz2",
        name="depthlm_rviz",
        arguments=["-d", str(SHARE / "config" / "depthlm.rviz"), *(["-f", frame] if frame else [])],
        parameters=[clock] if clock else [],
        remappings=[(f"/depthlm/{topic}", f"{prefix}/depthlm/{topic}") for topic in SHOWN],
    )
