"""What publishing a frame costs, for ``depthlm bench``: every message built and serialised, without a network."""

from __future__ import annotations

from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from depthlm_ros.geometry import SparseDepth
from depthlm_ros.ros import messages


def build_messages(sparse: SparseDepth) -> int:
    """Build and serialise what the node publishes of an answered frame, all but the overlay.

    Args:
        sparse: The answers.

    Returns:
        Bytes of the serialised messages.
    """
    header = Header(frame_id="camera_optical_frame")
    built = (
        messages.depth_image(sparse, header),
        messages.rectified_info(sparse.camera, header),
        messages.point_cloud(sparse, header),
        messages.obstacle_cloud(sparse, sparse.answered, header),
        messages.sparse_depth(sparse, header, latency_s=0.0, counters={}),
    )
    return sum(len(serialize_message(message)) for message in built)
