"""What the node publishes of an answered frame: always the image's own stamp, never an empty claim."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from depthlm_ros.config import ObstaclesConfig
from depthlm_ros.engines.base import RgbImage
from depthlm_ros.geometry import SparseDepth, confident, within_height, within_range
from depthlm_ros.msg import SparseDepth as SparseDepthMsg
from depthlm_ros.overlay import draw_overlay
from depthlm_ros.ros import messages
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.pipeline import Pair
from depthlm_ros.ros.transforms import NoTransformError, Transforms


class Outputs:
    """The publishers of a configured node. All are reliable: a best-effort one is not heard by every listener."""

    def __init__(self, node: LifecycleNode, health: Health, target_frame: str = "") -> None:
        """Make the publishers.

        Args:
            node: Whose they are; they are silent while it is not active.
            health: Counts what is published.
            target_frame: Frame in which the heights of obstacles are looked at; empty looks at none.

        Raises:
            ConfigError: There is a target frame but no tf2_ros.
        """
        self._target = target_frame
        self._transforms = Transforms(node, "obstacles.target_frame") if target_frame else None
        self._node, self._health = node, health
        self._depth = node.create_lifecycle_publisher(Image, "~/depth/image", 1)
        self._info = node.create_lifecycle_publisher(CameraInfo, "~/depth/camera_info", 1)
        self._points = node.create_lifecycle_publisher(PointCloud2, "~/points", 1)
        self._obstacles = node.create_lifecycle_publisher(PointCloud2, "~/obstacles", 1)
        self._sparse = node.create_lifecycle_publisher(SparseDepthMsg, "~/sparse_depth", 1)
        self._debug = node.create_lifecycle_publisher(Image, "~/debug/image", 1)

    def publish(self, pair: Pair, sparse: SparseDepth, source: RgbImage, limits: ObstaclesConfig) -> None:
        """Publish an answered frame on every topic.

        Args:
            pair: The frame.
            sparse: Its answers, at least one of them with a depth.
            source: Its rectified image, for the overlay.
            limits: Which points count as obstacles.
        """
        header, latency = pair.header, time.monotonic() - pair.arrived
        self._health.answered_frame(sparse, latency)
        self._depth.publish(messages.depth_image(sparse, header))
        self._info.publish(messages.rectified_info(sparse.camera, header))
        self._points.publish(messages.point_cloud(sparse, header))
        self._publish_obstacles(sparse, header, limits)
        counters = self._health.counters()
        self._sparse.publish(messages.sparse_depth(sparse, header, latency_s=latency, counters=counters))
        if self._debug.get_subscription_count():
            self._debug.publish(messages.rgb_image(draw_overlay(source, sparse), header))

    def _publish_obstacles(self, sparse: SparseDepth, header: Header, limits: ObstaclesConfig) -> None:
        """An empty cloud says "looked, nothing there"; where no point is sure, nothing is said at all."""
        sure = confident(sparse, limits.min_confidence)
        if not sure.any():
            self._withheld_obstacles(
                "unsure",
                f"no point reaches obstacles.min_confidence ({limits.min_confidence:g}), so ~/obstacles is not "
                "published; lower it, or calibrate the checkpoint if all confidences are NaN",
            )
            return
        near = within_range(sparse, limits.min_range_m, limits.max_range_m)
        try:
            high = self._within_height(sparse, header, limits)
        except NoTransformError as error:
            self._withheld_obstacles(
                "no_transform",
                f"~/obstacles is not published: where {header.frame_id!r} was in obstacles.target_frame "
                f"{self._target!r} at the image's time is not known ({error})",
            )
            return
        self._obstacles.publish(messages.obstacle_cloud(sparse, sure & near & high, header))

    def _withheld_obstacles(self, reason: str, explanation: str) -> None:
        # Nobody misses what nobody hears: a node without Nav2 is not to look ill for it.
        if self._obstacles.get_subscription_count():
            self._health.withheld_obstacles(reason, explanation)

    def _within_height(
        self, sparse: SparseDepth, header: Header, limits: ObstaclesConfig
    ) -> npt.NDArray[np.bool_]:
        if self._transforms is None:
            return sparse.answered
        pose = self._transforms.matrix(self._target, header)
        return within_height(sparse, pose, limits.min_height_m, limits.max_height_m)

    def forget(self) -> None:
        """Forget transforms of a time before the clock went back."""
        if self._transforms is not None:
            self._transforms.clear()

    def destroy(self) -> None:
        """Take the publishers down."""
        for publisher in (
            self._depth, self._info, self._points, self._obstacles, self._sparse, self._debug,
        ):  # fmt: skip
            self._node.destroy_lifecycle_publisher(publisher)
        if self._transforms is not None:
            self._transforms.close()
