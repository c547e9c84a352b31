"""A simulated robot camera for the demo: drives through a rendered scene and publishes what it sees."""

from __future__ import annotations

import contextlib
from itertools import cycle

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from depthlm_ros.ros.messages import float_image, rgb_image
from depthlm_ros.synthetic import Domain, Intrinsics, Pose, Scene, build_scene, render, trajectory

FRAME_ID = "camera_optical_frame"


class CameraSim(Node):  # type: ignore[misc]
    """Publishes ``image`` and ``camera_info`` as a driver does, and the exact depth on ``~/depth_truth``.

    The exact depth is for the recorder, which measures; the node ``depthlm`` never reads it.
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
        self._camera = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
        self._noise = np.random.default_rng([seed, 1])
        self._views = cycle(self._route(seed, scenes, frames, rate))
        qos = QoSProfile(depth=2, reliability=QoSReliabilityPolicy.RELIABLE)
        self._image_pub = self.create_publisher(Image, "image", qos)
        self._info_pub = self.create_publisher(CameraInfo, "camera_info", qos)
        self._truth_pub = self.create_publisher(Image, "~/depth_truth", qos)
        self.create_timer(1.0 / rate, self._publish)

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
        self._info_pub.publish(info)
        self._image_pub.publish(rgb_image(view.rgb, header))
        self._truth_pub.publish(float_image(view.z_depth, header))


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
