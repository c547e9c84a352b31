"""Bring the node ``depthlm`` to active on a camera."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.substitutions import FindPackageShare

from depthlm_ros.config import options

# Launch argument, and the parameter that it sets where it is given; its default stays in config.py.
PARAMETER_ARGUMENTS = {
    "engine": "engine.name",
    "checkpoint": "engine.checkpoint",
    "profile": "engine.profile",
    "device": "engine.device",
    "image_kind": "camera.image_kind",
    "transport": "stream.transport",
}


def generate_launch_description() -> LaunchDescription:
    described = dict(options())
    params_file = PathJoinSubstitution([FindPackageShare("depthlm_ros"), "config", "depthlm.yaml"])
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
        DeclareLaunchArgument("params_file", default_value=params_file, description="Parameters (YAML)."),
        DeclareLaunchArgument("image", default_value="image", description="Topic of the camera's images."),
        DeclareLaunchArgument(
            "camera_info", default_value="camera_info", description="Topic of the CameraInfo of these images."
        ),
        DeclareLaunchArgument(
            "autostart", default_value="true", description="Configure and activate at start.",
            choices=["true", "false"],
        ),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", description="Take the time from /clock.",
            choices=["true", "false"],
        ),
        DeclareLaunchArgument("log_level", default_value="info", description="Log level of the node."),
        *(
            DeclareLaunchArgument(
                name,
                default_value="",
                description=f"{described[parameter].metadata['description']} Empty: as in params_file.",
            )
            for name, parameter in PARAMETER_ARGUMENTS.items()
        ),
    ]  # fmt: skip
    return LaunchDescription([*arguments, OpaqueFunction(function=_node)])


def _node(context: LaunchContext) -> list[LifecycleNode]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    given = {p: value(name) for name, p in PARAMETER_ARGUMENTS.items() if value(name)}
    switches = {
        "use_sim_time": value("use_sim_time") == "true",
        "lifecycle.autostart": value("autostart") == "true",
    }
    image = value("image")
    return [
        LifecycleNode(
            package="depthlm_ros",
            executable="depthlm",
            name="depthlm",
            namespace=value("namespace"),
            parameters=[value("params_file"), {**given, **switches}],
            remappings=[
                ("image", image),
                ("image/compressed", f"{image}/compressed"),
                ("camera_info", value("camera_info")),
            ],
            arguments=["--ros-args", "--log-level", f"depthlm:={value('log_level')}"],
            output="both",
        )
    ]
