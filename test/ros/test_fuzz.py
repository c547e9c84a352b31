"""10,000 fuzzed frames through the node's message path: refused with a known reason, or answered soundly."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from builtin_interfaces.msg import Time
from fuzz_messages import spoiled_pairs
from hypothesis import HealthCheck, Phase, given, settings
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header
from toy_node import whole

from depthlm_ros.config import CameraConfig, SamplingConfig, StreamConfig
from depthlm_ros.engines.base import Answer, Finish, Prompt
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator, PreparedFrame
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.ros import messages
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair

NOW = Time(sec=1_000_000_000)
MAX_AGE_S = 5.0
REASONS = {
    "bad_image", "bad_camera_info", "size_mismatch", "bad_size", "no_pixels", "no_answer", "stale", "future", "late",
}  # fmt: skip
SAYINGS = (
    " 2.00 meters", " 3.5 meters", " far away", " 0.00 meters", " 2 or 3 meters", " 1e99 meters", "", " nan meters",
    ValueError("the logits are not finite"), Answer("", finish=Finish.DEADLINE),
)  # fmt: skip
"""What the fake engine says, one after the other: half of it is no depth."""


def sayings() -> Callable[[Prompt], Any]:
    said = itertools.cycle(SAYINGS)
    return lambda _: next(said)


def age_s(header: Header) -> float:
    return NOW.sec - messages.stamp_seconds(header)


def check_published(pair: Pair, sparse: SparseDepth, frame: PreparedFrame) -> None:
    """What the node would publish of an answered frame is sound: nothing stale, empty, re-stamped or made up."""
    assert abs(age_s(pair.header)) <= MAX_AGE_S
    assert frame.source.shape == (pair.image.height, pair.image.width, 3)
    sent = messages.sparse_depth(sparse, pair.header, latency_s=0.1, counters={})
    assert sent.header == pair.header
    ok = np.asarray(sent.status) == sent.STATUS_OK
    depth = np.asarray(sent.depth)
    assert ok.any()
    assert set(depth[ok].tolist()) <= {2.0, 3.5}, "a depth that the engine never said"
    assert np.isnan(depth[~ok]).all()
    assert max(sent.u) < pair.image.width
    assert max(sent.v) < pair.image.height
    image = messages.depth_image(sparse, pair.header)
    pixels = np.frombuffer(image.data, "<f4").reshape(image.height, image.width)
    assert np.isfinite(pixels).sum() == ok.sum()
    info = messages.rectified_info(sparse.camera, pair.header)
    assert (info.width, info.height) == (image.width, image.height) == (pair.image.width, pair.image.height)
    assert np.isfinite(info.p).all()
    assert info.p[0] > 0.0
    cloud = messages.point_cloud(sparse, pair.header)
    points = np.array([tuple(p) for p in point_cloud2.read_points(cloud, ("x", "y", "z"))])
    assert points.shape == (ok.sum(), 3)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("image_kind", ["raw", "rectified"])
def test_fuzzed_frames_are_refused_with_a_reason_or_answered_soundly(image_kind: str) -> None:
    became: Counter[str] = Counter()
    profile = CheckpointProfile("test", canonical_focal_px=30.0, max_new_tokens=20)
    sampling = SamplingConfig(columns=3, rows=2)
    with FakeEngine(sayings()) as engine:
        config = CameraConfig(image_kind=image_kind, max_megapixels=1.0)
        pipeline = FramePipeline(DepthEstimator(engine, profile), config, age_s)

        # Derandomised: the same messages in every run, and none is tried again from a database.
        @settings(
            max_examples=5000, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(spoiled_pairs(NOW))
        def feed(messages_: tuple[Image, CameraInfo]) -> None:
            pair = Pair(*messages_, time.monotonic())
            engine.prompts.clear()
            try:
                sparse, frame = whole(pipeline.estimate(pair, sampling, StreamConfig(max_age_s=MAX_AGE_S)))
            except FrameRefusedError as error:
                became[error.reason if str(error) else "nothing was said"] += 1
            else:
                check_published(pair, sparse, frame)
                became["answered"] += 1

        feed()
    assert became.total() == 5000
    assert set(became) <= {"answered", *REASONS}
    # The fuzz reaches every part of the path, not only the first check.
    assert became["answered"] > 500, became
    assert (
        min(became[reason] for reason in ("bad_image", "bad_camera_info", "size_mismatch", "stale")) > 50
    ), became
