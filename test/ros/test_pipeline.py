"""The pipeline from messages to sparse depth: image work once per frame, refusals with their reason."""

from __future__ import annotations

import math
import time
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import FOCAL, HEIGHT, WIDTH, image_message, info_message
from PIL import Image as PilImage
from std_msgs.msg import Header
from toy_node import whole

from depthlm_ros.config import CameraConfig, SamplingConfig, StreamConfig
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.ros import pipeline as pipeline_module
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair

PROFILE = CheckpointProfile("test", canonical_focal_px=FOCAL / 2, max_new_tokens=20)


class Counted:
    """Calls through, and counts."""

    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)


def pipeline(engine: FakeEngine, age_s: float = 0.0, **camera: Any) -> FramePipeline:
    return FramePipeline(DepthEstimator(engine, PROFILE), CameraConfig(**camera), lambda _: age_s)


def pair(image: dict[str, Any] | None = None, info: dict[str, Any] | None = None) -> Pair:
    header = Header(frame_id="optical")
    return Pair(
        image_message(header, **(image or {})), info_message(header, **(info or {})), time.monotonic()
    )


def test_a_frame_is_decoded_rectified_and_resized_once_however_many_pixels_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decode = Counted(pipeline_module.rgb_from_image)
    remap, maps = Counted(cv2.remap), Counted(cv2.initUndistortRectifyMap)
    resize = Counted(PilImage.Image.resize)
    monkeypatch.setattr(pipeline_module, "rgb_from_image", decode)
    monkeypatch.setattr(cv2, "remap", remap)
    monkeypatch.setattr(cv2, "initUndistortRectifyMap", maps)
    monkeypatch.setattr(PilImage.Image, "resize", lambda self, *a, **k: resize(self, *a, **k))
    distorted = {"d": [-0.1, 0.02, 0.0, 0.0, 0.0]}
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        tested = pipeline(engine)
        frame = pair(info=distorted)
        sampling = SamplingConfig(columns=16, rows=12)
        sparse, _ = whole(tested.estimate(frame, sampling, StreamConfig()))
        for u in range(20, 60, 10):
            tested.measure(tested.prepare(frame, StreamConfig()), np.array([[u, 50]]), deadline=math.inf)
        assert len(engine.prompts) == 16 * 12 + 4
        assert (decode.calls, remap.calls, resize.calls, maps.calls) == (1, 1, 1, 1)
        assert sparse.answered.all()
        # The next frame of the same camera uses the same undistortion maps.
        whole(tested.estimate(pair(info=distorted), sampling, StreamConfig()))
        assert (decode.calls, remap.calls, resize.calls, maps.calls) == (2, 2, 2, 1)


@pytest.mark.parametrize(
    ("image", "info", "reason"),
    [
        ({"step": 3}, {}, "bad_image"),
        ({"encoding": "16UC1"}, {}, "bad_image"),
        ({}, {"k": [0.0] * 9, "p": [0.0] * 12}, "bad_camera_info"),
        ({}, {"distortion_model": "mystery", "d": [1.0]}, "bad_camera_info"),
        ({}, {"height": 2 * HEIGHT}, "size_mismatch"),
    ],
)
def test_a_bad_pair_is_refused_with_a_reason(
    image: dict[str, Any], info: dict[str, Any], reason: str
) -> None:
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        with pytest.raises(FrameRefusedError) as refused:
            pipeline(engine).prepare(pair(image, info), StreamConfig())
        assert refused.value.reason == reason
        assert str(refused.value)
        assert engine.prompts == []


def test_a_frame_that_is_too_old_is_refused() -> None:
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        with pytest.raises(FrameRefusedError, match=r"5\.100 s old") as refused:
            pipeline(engine, age_s=5.1).prepare(pair(), StreamConfig())
        assert refused.value.reason == "stale"


def test_a_frame_from_the_future_is_refused_and_one_slightly_ahead_is_not() -> None:
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        with pytest.raises(FrameRefusedError, match="ahead of this node's clock") as refused:
            pipeline(engine, age_s=-7200.0).prepare(pair(), StreamConfig())
        assert refused.value.reason == "future"
        assert pipeline(engine, age_s=-0.2).prepare(pair(), StreamConfig())


def test_a_frame_without_any_answer_is_refused_with_the_engines_own_words() -> None:
    sampling = SamplingConfig(columns=2, rows=1)
    broken = FakeEngine(lambda _: ValueError("the logits are not finite"))
    with broken as engine, pytest.raises(FrameRefusedError, match="the logits are not finite") as refused:
        whole(pipeline(engine).estimate(pair(), sampling, StreamConfig()))
    assert refused.value.reason == "no_answer"
    assert refused.value.answers is not None
    assert refused.value.answers.reasons() == {"engine_error": 2}


def test_an_answer_that_comes_too_late_is_refused() -> None:
    ages = iter([0.0, 0.0, 5.1])
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        tested = FramePipeline(DepthEstimator(engine, PROFILE), CameraConfig(), lambda _: next(ages))
        with pytest.raises(FrameRefusedError) as refused:
            whole(tested.estimate(pair(), SamplingConfig(columns=2, rows=1), StreamConfig()))
    assert refused.value.reason == "late"


def test_a_pixel_outside_the_image_is_refused() -> None:
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        frame = pipeline(engine).prepare(pair(), StreamConfig())
        with pytest.raises(FrameRefusedError, match=r"\(5000, 3\) is outside the image of 160x120"):
            FramePipeline.refuse_outside(frame, np.array([[3, 3], [5000, 3]]))
        assert engine.prompts == []


def test_a_sampler_that_finds_nothing_refuses_the_frame() -> None:
    sampling = SamplingConfig(method="roi", roi=(WIDTH + 5, 0, 10, 10))
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        with pytest.raises(FrameRefusedError) as refused:
            whole(pipeline(engine).estimate(pair(), sampling, StreamConfig()))
        assert refused.value.reason == "no_pixels"


def test_a_rectified_image_is_that_of_p_and_a_raw_one_of_k_and_d() -> None:
    info = {"d": [-0.1, 0.02, 0.0, 0.0, 0.0], "p": [150.0, 0, 79.5, 0, 0, 150.0, 59.5, 0, 0, 0, 1.0, 0]}
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        raw = pipeline(engine).prepare(pair(info=info), StreamConfig())
        rectified = pipeline(engine, image_kind="rectified").prepare(pair(info=info), StreamConfig())
    assert (raw.camera.fx, rectified.camera.fx) == (150.0, 150.0)
    sent = np.frombuffer(pair().image.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(rectified.source, sent)
    assert (raw.source != sent).any()
