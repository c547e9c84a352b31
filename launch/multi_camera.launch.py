"""One node ``depthlm`` for each of several cameras; all ask one server, which holds the model once."""

from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from depthlm_ros.config import ConfigError
from depthlm_ros.ros.launch_arguments import Argument, node_arguments
from depthlm_ros.ros.launching import declared, node_action, value, with_server


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *declared(
                Argument(
                    "cameras",
                    "front rear",
                    "Names of the cameras, which are their namespaces, with spaces between.",
                ),
                Argument("image", "image_raw", "Topic of the images in a camera's namespace."),
                Argument("camera_info", "camera_info", "Topic of the CameraInfo in a camera's namespace."),
                *node_arguments(Path(__file__).parent.parent),
            ),
            OpaqueFunction(function=_start),
        ]
    )


def _start(context: LaunchContext) -> list[Action]:
    cameras = value(context, "cameras").split()
    if not cameras or len(set(cameras)) < len(cameras):
        raise ConfigError(f"cameras: expected names that differ, with spaces between, got {cameras}")
    if value(context, "serve") != "true" and value(context, "engine") != "openai":
        raise ConfigError(
            "several cameras share a server, so that the model is held once: give engine:=openai "
            "base_url:=http://HOST:PORT model:=NAME, or serve:=true checkpoint:=DIR"
        )
    image, info = value(context, "image"), value(context, "camera_info")
    nodes: list[Action] = [node_action(context, camera, image, info) for camera in cameras]
    return with_server(context, nodes)
