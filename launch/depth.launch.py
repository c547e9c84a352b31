"""Bring the node ``depthlm`` to active on a camera."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from depthlm_ros.config import options
from depthlm_ros.config_yaml import describe

# Launch argument, and the parameter that it sets where it is given; its default stays in config.py.
PARAMETER_ARGUMENTS = {
    "engine": "engine.name",
    "checkpoint": "engine.checkpoint",
    "profile": "engine.profile",
    "device": "engine.device",
    "dtype": "engine.dtype",
    "image_kind": "camera.image_kind",
    "transport": "stream.transport",
}


def generate_launch_description() -> LaunchDescription:
    described = dict(options())
    params_file = str(Path(__file__).parent.parent / "config" / "depthlm.yaml")
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
        DeclareLaunchArgument("params_file", default_value=params_file, description="Parameter file (YAML)."),
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
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            description="Log level: debug, info, warn, error or fatal; or of one logger, as in depthlm:=debug.",
        ),
        *(
            DeclareLaunchArgument(
                name,
                default_value="",
                description=f"{describe(described[parameter])} Empty: as in params_file.",
            )
            for name, parameter in PARAMETER_ARGUMENTS.items()
        ),
    ]  # fmt: skip
    return LaunchDescription([*arguments, OpaqueFunction(function=_node)])


def _node(context: LaunchContext) -> list[LifecycleNode]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    params_file = Path(value("params_file")).expanduser()
    if not params_file.is_file():
        raise FileNotFoundError(f"params_file: '{params_file}' is not a file; give the path of a YAML file")
    # All of them are strings, also a checkpoint directory that is called 2025.
    given = {
        parameter: ParameterValue(value(name), value_type=str)
        for name, parameter in PARAMETER_ARGUMENTS.items()
        if value(name)
    }
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
            parameters=[str(params_file), {**given, **switches}],
            remappings=[
                ("image", image),
                ("image/compressed", f"{image}/compressed"),
                ("camera_info", value("camera_info")),
            ],
            arguments=["--ros-args", "--log-level", value("log_level")],
            output="both",
        )
    ]
