"""Clicks: a point in rviz2 or a pixel in rqt_image_view is measured in the newest frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, PointStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import CameraError, PinholeCamera
from depthlm_ros.camera_info import camera_from_info
from depthlm_ros.config import ConfigError, DepthLMConfig
from depthlm_ros.geometry import SparseDepth, project
from depthlm_ros.ros.desk import Serving
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.pipeline import Pair
from depthlm_ros.ros.shared_queries import Measured, Query
from depthlm_ros.ros.transforms import NoTransformError, Transforms

MOUSE = "_mouse_left"
"""What rqt_image_view appends to an image's topic, where it publishes the clicked pixel as a geometry_msgs/Point."""


class ClickRefusedError(ValueError):
    """A click cannot be asked.

    Attributes:
        reason: A short word, counted in the diagnostics.
    """

    def __init__(self, reason: str, explanation: str) -> None:
        super().__init__(explanation)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Clickable:
    """The newest frame, as a click needs it.

    Attributes:
        pair: The frame.
        camera: Its camera.
    """

    pair: Pair
    camera: PinholeCamera


class Clicks:
    """Answers clicks on ``~/clicked/point``; without a depth nothing is published, but counted and said."""

    def __init__(
        self,
        node: LifecycleNode,
        health: Health,
        config: Callable[[], DepthLMConfig],
        serving: Callable[[], Serving],
    ) -> None:
        """Make the publisher.

        Args:
            node: Whose it is; it is silent while the node is not active.
            health: Counts what became of the clicks.
            config: The configuration now.
            serving: What to answer with now.
        """
        self._node, self._health, self._config, self._serving = node, health, config, serving
        self._answers = node.create_lifecycle_publisher(PointStamped, "~/clicked/point", 10)
        self._group = MutuallyExclusiveCallbackGroup()
        self._transforms: Transforms | None = None
        self._subscriptions: list[Any] = []
        self._closed = True

    def open(self) -> None:
        """Subscribe.

        ``/clicked_point`` is where rviz2 publishes, whatever the node's namespace; it can be remapped all the same.
        """
        self._closed = False
        node, group = self._node, self._group
        image = node.resolve_topic_name("image")
        if self._config().stream.transport == "compressed":
            image = node.resolve_topic_name("image/compressed").removesuffix("/compressed")
        on_pixel = {image: self._of_image, "~/debug/image": _of_source, "~/depth/image": _of_source}
        self._subscriptions = [
            node.create_subscription(
                PointStamped, "/clicked_point", self._on_point, 10, callback_group=group
            ),
            *(
                node.create_subscription(
                    Point, topic + MOUSE, partial(self._on_pixel, find), 10, callback_group=group
                )
                for topic, find in on_pixel.items()
            ),
        ]

    def close(self) -> None:
        """Unsubscribe, and publish nothing more of what is still asked."""
        self._closed = True
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def forget(self) -> None:
        """Forget transforms of a time before the clock went back."""
        if self._transforms is not None:
            self._transforms.clear()

    def destroy(self) -> None:
        """Take the publisher down."""
        self._node.destroy_lifecycle_publisher(self._answers)
        if self._transforms is not None:
            self._transforms.close()

    def _on_point(self, click: PointStamped) -> None:
        self._ask(lambda newest: self._seen_at(click, newest))

    def _on_pixel(self, find: Callable[[Point, PinholeCamera], np.ndarray], click: Point) -> None:
        self._ask(lambda newest: find(click, newest.camera))

    def _ask(self, find: Callable[[Clickable], np.ndarray]) -> None:
        if not self._config().clicks.enabled:
            return
        serving = self._serving()
        try:
            newest = self._newest(serving)
            pixel = np.rint(find(newest))
            size = (newest.camera.width, newest.camera.height)
            if not (np.isfinite(pixel).all() and (pixel >= 0).all() and (pixel < size).all()):
                raise ClickRefusedError("outside", f"it is outside of the image of {size[0]}x{size[1]}")
        except ClickRefusedError as error:
            self._refuse(error.reason, str(error))
            return
        deadline = time.monotonic() + serving.stream.query_timeout_s
        query = Query(newest.pair, deadline, serving.stream, pixel.astype(np.int64).reshape(1, 2))
        query.result.add_done_callback(self._answer)
        if serving.queries is not None:
            serving.queries.ask(query)

    def _newest(self, serving: Serving) -> Clickable:
        pair = serving.frames.newest
        if pair is None or serving.queries is None:
            raise ClickRefusedError("no_frame", "there is no frame: check the image and camera_info topics")
        try:
            camera = camera_from_info(pair.info, rectified=self._config().camera.image_kind == "rectified")
        except CameraError as error:
            raise ClickRefusedError("bad_camera_info", str(error)) from error
        return Clickable(pair, camera)

    def _of_image(self, click: Point, camera: PinholeCamera) -> np.ndarray:
        """The source pixel of one clicked in the camera's own image, which may be distorted."""
        try:
            return camera.rectified_pixels(_whole(click, camera))
        except CameraError as error:
            raise ClickRefusedError("bad_camera_info", str(error)) from error

    def _seen_at(self, click: PointStamped, newest: Clickable) -> np.ndarray:
        """The source pixel at which the camera sees a point of space."""
        point = np.array([click.point.x, click.point.y, click.point.z, 1.0])
        header = newest.pair.header
        if click.header.frame_id != header.frame_id:
            at_the_time = Header(stamp=header.stamp, frame_id=click.header.frame_id)
            try:
                point = self._listening().matrix(header.frame_id, at_the_time) @ point
            except ConfigError as error:
                raise ClickRefusedError(
                    "no_tf2",
                    f"it is in frame {click.header.frame_id!r}, not in the camera's {header.frame_id!r}, and tf2_ros "
                    f"is missing: install ros-$ROS_DISTRO-tf2-ros-py, or make {header.frame_id!r} the fixed frame",
                ) from error
            except NoTransformError as error:
                raise ClickRefusedError(
                    "no_transform",
                    f"tf2 does not know where {click.header.frame_id!r} was ({error}): the node listens to /tf since "
                    "the first such click only; click again",
                ) from error
        if not point[2] > 0.0:
            raise ClickRefusedError("behind", "it lies behind the camera")
        seen: np.ndarray = project(point[None, :3], newest.camera)[0]
        return seen

    def _listening(self) -> Transforms:
        """A listener to /tf from the first click on that needs one, since hearing every transform costs time."""
        if self._transforms is None:
            self._transforms = Transforms(self._node, "a click in another frame")
        return self._transforms

    def _answer(self, future: Future[Measured]) -> None:
        """Publish, in the worker's thread; once closed, whatever it still finishes counts for nothing."""
        if self._closed or future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._refuse(getattr(error, "reason", "engine"), str(error))
            return
        pair, sparse = future.result().pair, future.result().sparse
        status = AnswerStatus(int(sparse.status[0]))
        if status is not AnswerStatus.OK:
            self._refuse(status.name.lower(), f"pixel {_pixel(sparse)} got no depth {sparse.error}".rstrip())
            return
        self._health.clicked("ok")
        x, y, z = sparse.points()[0].tolist()
        self._answers.publish(PointStamped(header=pair.header, point=Point(x=x, y=y, z=z)))
        self._node.get_logger().info(
            f"clicked pixel {_pixel(sparse)}: {z:.2f} m along the optical axis (sigma {sparse.sigma[0]:.2f} m, "
            f"confidence {sparse.confidence[0]:.2f}), {np.linalg.norm((x, y, z)):.2f} m away"
        )

    def _refuse(self, reason: str, explanation: str) -> None:
        self._health.clicked(reason)
        self._node.get_logger().warning(f"the click is not answered ({reason}): {explanation}")


def _of_source(click: Point, camera: PinholeCamera) -> np.ndarray:
    """The source pixel of one clicked in a picture of ours, which has the source image's pixels."""
    return _whole(click, camera)


def _whole(click: Point, camera: PinholeCamera) -> np.ndarray:
    """A clicked pixel, which rqt_image_view rounds up to the image's size at its right and lower border."""
    return np.minimum((click.x, click.y), (camera.width - 1.0, camera.height - 1.0))


def _pixel(sparse: SparseDepth) -> tuple[int, int]:
    u, v = sparse.pixels[0].tolist()
    return u, v
