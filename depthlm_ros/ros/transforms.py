"""Where one frame lies in another, through tf2; an optional part, since tf2_ros is no Python wheel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from depthlm_ros.config import ConfigError


class NoTransformError(LookupError):
    """tf2 does not know where a frame was at a time; the message is tf2's."""


class Transforms:
    """Listens to ``/tf`` and ``/tf_static``."""

    def __init__(self, node: Node, needed_for: str) -> None:
        """Begin to listen.

        Args:
            node: Who listens.
            needed_for: The option that asks for it.

        Raises:
            ConfigError: tf2_ros is not installed.
        """
        try:
            import tf2_ros
        except ImportError as error:
            raise ConfigError(
                f"{needed_for} is set, which needs tf2_ros ({error}): install ros-$ROS_DISTRO-tf2-ros-py, or leave "
                "it empty"
            ) from error
        self._missing = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def matrix(self, target: str, header: Header) -> npt.NDArray[np.float64]:
        """The pose of a header's frame in another frame, at the header's time.

        Args:
            target: The other frame.
            header: Frame and time.

        Returns:
            Homogeneous, shape (4, 4): takes points of the header's frame, in metres, to ``target``.

        Raises:
            NoTransformError: It is not known, or not yet.
        """
        try:
            found = self._buffer.lookup_transform(target, header.frame_id, Time.from_msg(header.stamp))
        except self._missing as error:
            raise NoTransformError(str(error)) from error
        return pose_matrix(found.transform)

    def clear(self) -> None:
        """Forget what was heard, since the clock went back: tf2 would keep the old time and refuse the new one."""
        self._buffer.clear()

    def close(self) -> None:
        """Stop listening."""
        self._listener.unregister()


def pose_matrix(transform: Any) -> npt.NDArray[np.float64]:
    """A ``geometry_msgs/Transform`` as a homogeneous matrix of shape (4, 4)."""
    move, turn = transform.translation, transform.rotation
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    matrix[:3, 3] = (move.x, move.y, move.z)
    return matrix
