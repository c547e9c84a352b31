"""Messages to arrays and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from cv_bridge import CvBridge
from sensor_msgs.msg import CompressedImage, Image
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.msg import SparseDepth as SparseDepthMsg
from depthlm_ros.ros import messages
from depthlm_ros.ros.messages import BadMessageError

RGB = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def message(encoding: str, rows: np.ndarray, width: int = 8, padding: int = 0) -> Image:
    flat = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    flat = np.pad(flat, ((0, 0), (0, padding)), constant_values=99)
    msg = Image(encoding=encoding, height=len(rows), width=width, step=flat.shape[1])
    msg.data.frombytes(flat.tobytes())
    return msg


def decode(msg: Image) -> np.ndarray:
    return messages.rgb_from_image(msg, CvBridge(), max_megapixels=1.0)


ALPHA = np.full((6, 8, 1), 7, np.uint8)
PACKED = np.random.default_rng(4).integers(0, 256, (6, 8, 2), dtype=np.uint8)
CASES = {
    "rgb8": (RGB, RGB),
    "bgr8": (RGB[..., ::-1], RGB),
    "rgba8": (np.dstack([RGB, ALPHA]), RGB),
    "bgra8": (np.dstack([RGB[..., ::-1], ALPHA]), RGB),
    "mono8": (GREY, np.repeat(GREY[..., None], 3, 2)),
    "mono16": ((GREY.astype("<u2") * 257), np.repeat(GREY[..., None], 3, 2)),
    "yuv422": (PACKED, cv2.cvtColor(PACKED, cv2.COLOR_YUV2RGB_UYVY)),
    "uyvy": (PACKED, cv2.cvtColor(PACKED, cv2.COLOR_YUV2RGB_UYVY)),
    "yuv422_yuy2": (PACKED, cv2.cvtColor(PACKED, cv2.COLOR_YUV2RGB_YUYV)),
    "yuyv": (PACKED, cv2.cvtColor(PACKED, cv2.COLOR_YUV2RGB_YUYV)),
    # ROS names the pattern by its first row, OpenCV by the second row's second and third pixel.
    "bayer_rggb8": (GREY, cv2.cvtColor(GREY, cv2.COLOR_BayerBG2RGB)),
    "bayer_bggr8": (GREY, cv2.cvtColor(GREY, cv2.COLOR_BayerRG2RGB)),
    "bayer_gbrg8": (GREY, cv2.cvtColor(GREY, cv2.COLOR_BayerGR2RGB)),
    "bayer_grbg8": (GREY, cv2.cvtColor(GREY, cv2.COLOR_BayerGB2RGB)),
}


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", CASES)
def test_every_encoding_becomes_rgb(encoding: str, padding: int) -> None:
    rows, expected = CASES[encoding]
    np.testing.assert_array_equal(decode(message(encoding, rows, padding=padding)), expected)


def test_a_red_bayer_pixel_is_red() -> None:
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[::2, ::2] = 200
    rgb = decode(message("bayer_rggb8", mosaic))
    assert rgb[4, 4].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encoding": "32FC1"}, "not a picture"),
        ({"encoding": ""}, "not a picture"),
        ({"width": 0}, "empty"),
        ({"step": 8}, "step 8 is too short"),
        ({"height": 7}, "168 bytes, got 144"),
        ({"width": 100000, "height": 100000, "step": 300000}, "max_megapixels"),
    ],
)
def test_a_broken_image_is_refused_with_the_reason(changes: dict[str, object], says: str) -> None:
    msg = message("rgb8", RGB)
    for name, value in changes.items():
        setattr(msg, name, value)
    with pytest.raises(BadMessageError, match=says):
        decode(msg)


def test_compressed_images_are_decoded_and_broken_ones_refused() -> None:
    ok, png = cv2.imencode(".png", RGB[..., ::-1])
    assert ok
    msg = CompressedImage(format="rgb8; png compressed", data=png.tobytes())
    np.testing.assert_array_equal(messages.rgb_from_compressed(msg, max_megapixels=1.0), RGB)
    for data in (b"", b"\xff\xd8\xff", png.tobytes()[:40]):
        with pytest.raises(BadMessageError):
            messages.rgb_from_compressed(CompressedImage(data=data), max_megapixels=1.0)
    with pytest.raises(BadMessageError, match="max_megapixels"):
        messages.rgb_from_compressed(msg, max_megapixels=1e-6)


def sparse() -> SparseDepth:
    status = np.array([AnswerStatus.OK, AnswerStatus.NO_NUMBER, AnswerStatus.OK], np.uint8)
    return SparseDepth(
        pixels=np.array([[1, 2], [3, 4], [7, 5]]),
        depth=np.array([2.0, np.nan, 4.0], np.float32),
        sigma=np.array([0.1, np.nan, 0.4], np.float32),
        confidence=np.array([0.9, np.nan, 0.2], np.float32),
        status=status,
        rgb=np.array([[255, 0, 0], [0, 255, 0], [1, 2, 3]], np.uint8),
        camera=PinholeCamera.from_intrinsics(10.0, 10.0, 3.5, 2.5, 8, 6),
        model="test",
    )


def test_the_cloud_holds_the_answered_points_only() -> None:
    cloud = messages.point_cloud(sparse(), Header(frame_id="optical"))
    rows = [tuple(p) for p in point_cloud2.read_points(cloud)]
    assert [r[:3] for r in rows] == [
        pytest.approx((2.0 * (1 - 3.5) / 10, 2.0 * (2 - 2.5) / 10, 2.0)),
        pytest.approx((4.0 * (7 - 3.5) / 10, 4.0 * (5 - 2.5) / 10, 4.0)),
    ]
    packed = np.array([rows[0][3], rows[1][3]], np.float32).view(np.uint32)
    assert packed.tolist() == [0xFF0000, 0x010203]
    assert (cloud.width, cloud.height, cloud.is_dense, cloud.header.frame_id) == (2, 1, True, "optical")


def test_the_obstacle_cloud_holds_what_is_kept() -> None:
    cloud = messages.obstacle_cloud(sparse(), np.array([False, False, True]), Header())
    assert [f.name for f in cloud.fields] == ["x", "y", "z"]
    assert [p[2] for p in point_cloud2.read_points(cloud)] == [4.0]


def test_an_empty_obstacle_cloud_is_a_whole_message() -> None:
    cloud = messages.obstacle_cloud(sparse(), np.zeros(3, bool), Header(frame_id="optical"))
    assert (cloud.width, cloud.height, cloud.point_step, len(cloud.data)) == (0, 1, 12, 0)
    assert [f.name for f in cloud.fields] == ["x", "y", "z"]


def test_sparse_depth_keeps_every_asked_pixel() -> None:
    counters = dict.fromkeys(
        ("frames_in", "frames_answered", "frames_dropped", "points_asked", "points_answered"), 5
    )
    msg = messages.sparse_depth(sparse(), Header(), latency_s=1.25, counters=counters)
    assert (list(msg.u), list(msg.v)) == ([1, 3, 7], [2, 4, 5])
    assert list(msg.status) == [msg.STATUS_OK, msg.STATUS_NO_NUMBER, msg.STATUS_OK]
    assert np.isnan(msg.depth[1])
    assert (msg.latency.sec, msg.latency.nanosec) == (1, 250_000_000)
    assert (msg.width, msg.height, msg.model, msg.points_asked) == (8, 6, "test", 5)


@pytest.mark.parametrize("status", AnswerStatus)
def test_the_message_names_every_status_by_the_same_number(status: AnswerStatus) -> None:
    assert getattr(SparseDepthMsg, f"STATUS_{status.name}") == status
