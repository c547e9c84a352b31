"""Stand-in for ROS's ``cv_bridge``: image messages to arrays and back, the calls this project makes."""

from cv_bridge.bridge import CvBridge, CvBridgeError

__all__ = ["CvBridge", "CvBridgeError"]
