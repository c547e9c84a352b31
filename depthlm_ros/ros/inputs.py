"""The subscriptions of an active node: images and their CameraInfo, paired by stamp."""

from __future__ import annotations

import time
from collections.abc import Callable

from message_filters import ApproximateTimeSynchronizer, Subscriber
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from depthlm_ros.config import StreamConfig
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.messages import stamp_ns
from depthlm_ros.ros.pipeline import Pair
from depthlm_ros.ros.stamps import BACK_NS, NewStamps, TrueStamps


class Inputs:
    """Subscribes, pairs, and hands each pair on.

    Attributes:
        image_topic: Where the images are expected, resolved.
        info_topic: Where their CameraInfo is expected, resolved.
    """

    def __init__(
        self,
        node: Node,
        group: CallbackGroup,
        config: StreamConfig,
        health: Health,
        take: Callable[[Pair], None],
    ) -> None:
        """Subscribe.

        Args:
            node: Whose subscriptions they are.
            group: A mutually exclusive group: pairs come one after the other.
            config: Transport, quality of service, and what belongs together.
            health: Counts the images.
            take: Gets every pair; must return at once, so that the executor stays free.
        """
        self._node, self._take = node, take
        qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy[config.reliability.upper()])
        compressed = config.transport == "compressed"
        kind, topic = (CompressedImage, "image/compressed") if compressed else (Image, "image")
        self.image_topic, self.info_topic = map(node.resolve_topic_name, (topic, "camera_info"))
        self._health = health
        images = Subscriber(node, kind, topic, qos_profile=qos, callback_group=group)
        infos = Subscriber(node, CameraInfo, "camera_info", qos_profile=qos, callback_group=group)
        images.registerCallback(lambda _: health.image_arrived())
        self._sources = [images, infos]
        # A stamp that is no time must not be looked at any further: zero would look like a jump back.
        timed, timed_infos = (TrueStamps(source, health.bad_stamp) for source in self._sources)
        self._new = NewStamps(timed, health.frame_repeated, self._go_back)
        self._pairs = ApproximateTimeSynchronizer(
            [self._new, timed_infos], config.sync_queue, config.sync_slop_s
        )
        self._pairs.registerCallback(self._pair)

    def forget(self) -> None:
        """Forget the stamps so far, and the messages that wait for their counterpart.

        The synchronizer keeps those with the latest stamps: after a jump back, those of the time before, while each
        new one would be the first to go.
        """
        self._new.forget()
        self._drop_since(0)

    def close(self) -> None:
        """Unsubscribe."""
        for source in self._sources:
            self._node.destroy_subscription(source.sub)

    def _go_back(self, back: int, stamp: int) -> None:
        self._health.say(
            "stamps_back",
            f"the images' stamps went back by {back * 1e-9:.3f} s: has the camera's clock been set, or do two "
            "cameras publish on one topic?",
        )
        self._drop_since(stamp + BACK_NS)

    def _drop_since(self, since: int) -> None:
        with self._pairs.lock:
            for queue in self._pairs.queues:
                for stamp in [stamp for stamp in queue if stamp >= since]:
                    del queue[stamp]

    def _pair(self, image: Image | CompressedImage, info: CameraInfo) -> None:
        self._new.accept(stamp_ns(image.header))
        self._take(Pair(image, info, time.monotonic()))
