"""A simulated robot camera for the demo: drives through a rendered scene and publishes what it sees."""

from __future__ import annotations

import contextlib
from itertools import cycle
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from depthlm_ros.config import ConfigError
from depthlm_ros.ros.messages import float_image, rgb_image
from depthlm_ros.synthetic import Domain, Intrinsics, Pose, Scene, build_scene, render, trajectory

FRAME_ID = "camera_optical_frame"


class CameraSim(Node):  # type: ignore[misc]
    """Publishes ``image`` and ``camera_info`` as a driver does, and the exact depth on ``~/depth_truth``.

    The exact depth is for the recorder, which measures; the node ``depthlm`` never reads it. With ``broadcast_tf`` it
    also says where it stands. Use that with one scene: each has its own ``odom``, and after the last pose comes the
    first.
    """

    def __init__(self) -> None:
        super().__init__("camera_sim")
        seed = self.declare_parameter("seed", 7).value
        scenes = self.declare_parameter("scenes", 6).value
        frames = self.declare_parameter("frames_per_scene", 12).value
        rate = self.declare_parameter("rate_hz", 2.0).value
        width = self.declare_parameter("width", 320).value
        height = self.declare_parameter("height", 240).value
        focal = self.declare_parameter("focal_px", 277.0).value
        broadcast = self.declare_parameter("broadcast_tf", False).value
        self._broadcaster = self._tf_broadcaster() if broadcast else None
        self._camera = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
        self._noise = np.random.default_rng([seed, 1])
        self._views = cycle(self._route(seed, scenes, frames, rate))
        qos = QoSProfile(depth=2, reliability=QoSReliabilityPolicy.RELIABLE)
        self._image_pub = self.create_publisher(Image, "image", qos)
        self._info_pub = self.create_publisher(CameraInfo, "camera_info", qos)
        self._truth_pub = self.create_publisher(Image, "~/depth_truth", qos)
        self.create_timer(1.0 / rate, self._publish)

    def _tf_broadcaster(self) -> Any:
        try:
            from tf2_ros import TransformBroadcaster
        except ImportError as error:
            raise ConfigError(
                f"broadcast_tf is set, which needs tf2_ros ({error}): install ros-$ROS_DISTRO-tf2-ros-py, or leave "
                "it false"
            ) from error
        return TransformBroadcaster(self)

    @staticmethod
    def _route(seed: int, scenes: int, frames: int, rate: float) -> list[tuple[Scene, Pose]]:
        """Scene and pose of every frame: a drive through each of several scenes.

        Of a few drives in each scene the one that sees farthest is taken: a robot does not face a bare wall for
        half of its time. The model has no say in it.
        """
        route: list[tuple[Scene, Pose]] = []
        for child in np.random.SeedSequence(seed).spawn(scenes):
            rng = np.random.default_rng(child)
            scene = build_scene(rng, Domain.ROBOT)
            drives = [trajectory(rng, scene, Domain.ROBOT, frames, rate) for _ in range(6)]
            route += [(scene, pose) for pose in max(drives, key=lambda drive: _sight(scene, drive))]
        return route

    def _publish(self) -> None:
        scene, pose = next(self._views)
        stamp = self.get_clock().now().to_msg()
        view = render(scene, pose, self._camera, self._noise)
        header = Header(stamp=stamp, frame_id=FRAME_ID)
        camera = self._camera
        k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
        info = CameraInfo(
            header=header, width=camera.width, height=camera.height, distortion_model="plumb_bob",
            d=[0.0] * 5, k=k, r=np.eye(3).ravel().tolist(), p=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0],
        )  # fmt: skip
        if self._broadcaster is not None:
            self._broadcaster.sendTransform(transforms(pose, stamp))
        self._info_pub.publish(info)
        self._image_pub.publish(rgb_image(view.rgb, header))
        self._truth_pub.publish(float_image(view.z_depth, header))


def transforms(pose: Pose, stamp: Time) -> list[TransformStamped]:
    """Where a camera's robot stands in its scene, and the camera on the robot (frames of REP 105).

    Args:
        pose: The camera's, in its scene, whose floor is z = 0.
        stamp: Of both transforms.

    Returns:
        ``odom`` to ``base_link``, on the floor below the camera, and ``base_link`` to the optical frame.
    """
    on_robot = Pose(0.0, 0.0, pose.z, 0.0, pose.pitch, pose.roll)
    return [
        _transform("odom", "base_link", (pose.x, pose.y, 0.0), Rotation.from_euler("z", pose.yaw), stamp),
        _transform("base_link", FRAME_ID, (0.0, 0.0, pose.z), Rotation.from_matrix(on_robot.rotation), stamp),
    ]


def _transform(
    parent: str, child: str, move: tuple[float, float, float], turn: Rotation, stamp: Time
) -> TransformStamped:
    (x, y, z), (qx, qy, qz, qw) = move, turn.as_quat().tolist()
    return TransformStamped(
        header=Header(stamp=stamp, frame_id=parent),
        child_frame_id=child,
        transform=Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw)),
    )


def _sight(scene: Scene, drive: list[Pose]) -> float:
    """Median depth in metres where a drive sees least far."""
    coarse = Intrinsics(14.0, 14.0, 7.5, 5.5, 16, 12)
    rng = np.random.default_rng(0)
    return min(float(np.median(render(scene, pose, coarse, rng).z_depth)) for pose in drive[::3])


def main(args: list[str] | None = None) -> None:
    """Run the camera until it is told to stop."""
    rclpy.init(args=args)
    node = CameraSim()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
