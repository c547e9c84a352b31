"""The demo's recorder: listens to the graph like any other node, writes the bag, and measures."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from depthlm_ros.camera_info import camera_from_info
from depthlm_ros.engines.base import RgbImage
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.msg import SparseDepth as SparseDepthMsg
from depthlm_ros.ros.bag import McapBag
from depthlm_ros.ros.messages import stamp_ns
from depthlm_ros.ros.report import RecordedFrame, write_report

_TOPICS: dict[str, Any] = {
    "image": Image,
    "camera_info": CameraInfo,
    "depth_truth": Image,
    "depth/image": Image,
    "depth/camera_info": CameraInfo,
    "points": PointCloud2,
    "obstacles": PointCloud2,
    "sparse_depth": SparseDepthMsg,
}
_KEPT = 200
"""Images and truths that wait for their answer."""


class Recorder(Node):  # type: ignore[misc]
    """Collects frames until there are enough, then writes the report."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self._out = Path(self.declare_parameter("out", "demo_out").value)
        self._wanted = self.declare_parameter("frames", 24).value
        self._out.mkdir(parents=True, exist_ok=True)
        self._bag = McapBag(self._out / "demo.mcap")
        self._bag.__enter__()
        self._waiting: dict[str, dict[int, Any]] = {name: {} for name in _TOPICS}
        self._arrival: dict[int, float] = {}
        self.frames: list[RecordedFrame] = []
        qos = QoSProfile(depth=20, reliability=QoSReliabilityPolicy.RELIABLE)
        self._subscriptions_by_name = {
            name: self.create_subscription(
                kind, name, lambda data, name=name: self._on_bytes(name, data), qos, raw=True
            )
            for name, kind in _TOPICS.items()
        }

    @property
    def done(self) -> bool:
        """Whether enough frames were collected."""
        return bool(len(self.frames) >= self._wanted)

    def _on_bytes(self, name: str, data: bytes) -> None:
        if self.done:
            return
        now = self.get_clock().now().nanoseconds
        kind = _TOPICS[name]
        self._bag.write(self._subscriptions_by_name[name].topic_name, kind, data, now)
        if name in ("depth/image", "depth/camera_info"):
            return
        msg = deserialize_message(data, kind)
        stamp = stamp_ns(msg.header)
        if name == "points":
            self._arrival[stamp] = now * 1e-9 - stamp * 1e-9
        self._waiting[name][stamp] = msg
        while len(self._waiting[name]) > _KEPT:
            del self._waiting[name][next(iter(self._waiting[name]))]
        self._collect(stamp)

    def _collect(self, stamp: int) -> None:
        """Take a frame as soon as everything of its stamp is here."""
        needed = ("image", "camera_info", "depth_truth", "points", "sparse_depth")
        if not all(stamp in self._waiting[name] for name in needed):
            return
        image, info, truth, _, sparse = (self._waiting[name].pop(stamp) for name in needed)
        # The node leaves the obstacles out where no point is sure; it publishes them before sparse_depth.
        obstacles = self._waiting["obstacles"].pop(stamp, None)
        rgb = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
        answers = _from_message(sparse, rgb, info)
        frame = RecordedFrame(
            rgb=rgb,
            truth=np.frombuffer(truth.data, "<f4").reshape(truth.height, truth.width),
            sparse=answers,
            obstacles=_among(obstacles, answers),
            latency_s=self._arrival.pop(stamp),
            received=time.monotonic(),
            counters={
                name: int(getattr(sparse, name))
                for name in ("frames_in", "frames_answered", "frames_dropped")
            },
        )
        self.frames.append(frame)
        done = {"frame": len(self.frames), "of": self._wanted, **frame.line()}
        print(json.dumps(done), flush=True)

    def finish(self) -> None:
        """Close the bag and write the report.

        Raises:
            ValueError: Not one frame was recorded.
        """
        self._bag.__exit__(None, None, None)
        write_report(self.frames, self._out)


def _among(cloud: PointCloud2 | None, answers: SparseDepth) -> npt.NDArray[np.bool_]:
    """Which asked pixels a cloud of x, y, z holds; both come from the same numbers."""
    if cloud is None or not cloud.width:
        return np.zeros(len(answers.pixels), dtype=np.bool_)
    points = np.frombuffer(cloud.data, "<f4").reshape(cloud.width, -1)[:, :3]
    held = {tuple(point) for point in points.tolist()}
    return np.array([tuple(point) in held for point in answers.points().tolist()], dtype=np.bool_)


def _from_message(msg: SparseDepthMsg, rgb: RgbImage, info: CameraInfo) -> SparseDepth:
    pixels = np.stack([np.asarray(msg.u, np.int64), np.asarray(msg.v, np.int64)], axis=1)
    return SparseDepth(
        pixels=pixels,
        depth=np.asarray(msg.depth, np.float32),
        sigma=np.asarray(msg.sigma, np.float32),
        confidence=np.asarray(msg.confidence, np.float32),
        status=np.asarray(msg.status, np.uint8),
        rgb=rgb[pixels[:, 1], pixels[:, 0]],
        camera=camera_from_info(info),
        model=msg.model,
    )


def main(args: list[str] | None = None) -> None:
    """Record until there are enough frames; exit code 1 when it was stopped before the first."""
    rclpy.init(args=args)
    node = Recorder()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        while rclpy.ok() and not node.done:
            rclpy.spin_once(node, timeout_sec=0.2)
    failed = not node.frames
    if failed:
        print("the recorder was stopped before it saw a single answered frame", file=sys.stderr)
    else:
        node.finish()
    node.destroy_node()
    rclpy.try_shutdown()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
