"""A rendered camera, ``depthlm``, and Nav2's local costmap that marks what it sees. Needs Nav2."""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from depthlm_ros.ros.launching import declared, switch, value

SHARE = Path(__file__).parent.parent
NEEDED = (
    "nav2_controller", "nav2_regulated_pure_pursuit_controller", "nav2_lifecycle_manager", "nav2_costmap_2d",
    "tf2_ros_py",
)  # fmt: skip
# Nothing is driven here, but the controller server does not start without a controller: its default one, DWB, refuses
# to be configured without a list of critics, while each value of this one has a default.
CONTROLLER = {
    "controller_plugins": ["FollowPath"],
    "FollowPath.plugin": "nav2_regulated_pure_pursuit_controller::RegulatedPurePursuitController",
}
# One room, or obstacles of one would be marked in another; a drive of half a minute through it, over and over.
DRIVE = {"scenes": 1, "frames_per_scene": 60, "broadcast_tf": True}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *declared(switch("rviz", "true", "Start rviz2 with config/depthlm.rviz.")),
            OpaqueFunction(function=_start),
        ]
    )


def _start(context: LaunchContext) -> list[Action]:
    missing = [package for package in NEEDED if not _installed(package)]
    if missing:
        raise RuntimeError(
            f"nav2_demo needs {', '.join(missing)}: sudo apt install ros-$ROS_DISTRO-navigation2, or start "
            "depth.launch.py alone"
        )
    depth = PythonLaunchDescriptionSource(str(SHARE / "launch" / "depth.launch.py"))
    # Where the costmap lies still.
    shown = {"rviz": value(context, "rviz"), "rviz_frame": "odom"}
    return [
        Node(package="depthlm_ros", executable="camera_sim", parameters=[DRIVE], output="both"),
        IncludeLaunchDescription(depth, launch_arguments=shown.items()),
        # Nav2 makes its local costmap inside of the controller.
        Node(
            package="nav2_controller",
            executable="controller_server",
            parameters=[str(SHARE / "config" / "nav2_costmap.yaml"), CONTROLLER],
            output="both",
        ),
        Node(
            package="nav2_lifecycle_manager",
            executable="lifecycle_manager",
            name="lifecycle_manager_depthlm_demo",
            parameters=[{"autostart": True, "node_names": ["controller_server"]}],
            output="both",
        ),
    ]


def _installed(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
