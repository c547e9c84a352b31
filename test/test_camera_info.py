"""CameraInfo records and calibration files, in every spelling that ROS has."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from depthlm_ros.camera import CameraError
from depthlm_ros.camera_info import camera_from_info, camera_from_yaml

K = [1000.0, 0.0, 960.0, 0.0, 1100.0, 540.0, 0.0, 0.0, 1.0]
P = [900.0, 0.0, 950.0, 0.0, 0.0, 920.0, 530.0, 0.0, 0.0, 0.0, 1.0, 0.0]
D = [-0.1, 0.01, 0.0, 0.0, 0.0]
EYE = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def roi(u, v, width, height):
    return SimpleNamespace(x_offset=u, y_offset=v, width=width, height=height, do_rectify=False)


def info(**changes):
    """A record as ROS 2 has it."""
    values = {
        "width": 1920, "height": 1080, "distortion_model": "plumb_bob", "k": K, "d": D, "r": EYE, "p": P,
        "binning_x": 0, "binning_y": 0, "roi": roi(0, 0, 0, 0),
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def intrinsics(camera):
    return (camera.fx, camera.fy, camera.cx, camera.cy)


def test_a_ros_2_record():
    camera = camera_from_info(info())
    assert intrinsics(camera) == (900.0, 920.0, 950.0, 530.0)
    np.testing.assert_array_equal(camera.k.ravel(), K)
    np.testing.assert_array_equal(camera.d, D)
    assert (camera.width, camera.height, camera.rectified) == (1920, 1080, False)


def test_a_ros_1_record_with_its_capital_letters():
    record = SimpleNamespace(width=1920, height=1080, distortion_model="plumb_bob", K=K, D=D, R=EYE, P=P)
    assert intrinsics(camera_from_info(record)) == (900.0, 920.0, 950.0, 530.0)


def test_numpy_arrays_and_the_record_is_left_alone():
    record = info(k=np.array(K), p=np.array(P), d=np.array(D), r=np.array(EYE), binning_x=2, binning_y=2)
    camera_from_info(record)
    np.testing.assert_array_equal(record.k, K)
    np.testing.assert_array_equal(record.p, P)


def test_where_p_is_zero_k_counts():
    assert intrinsics(camera_from_info(info(p=[0.0] * 12))) == (1000.0, 1100.0, 960.0, 540.0)
    assert intrinsics(camera_from_info(info(p=[0.0] * 12), rectified=True)) == (1000.0, 1100.0, 960.0, 540.0)


def test_binning_and_region_of_interest_by_hand():
    # CameraInfo.msg: K and P describe the full resolution, the region is in unbinned pixels.
    record = info(binning_x=2, binning_y=4, roi=roi(400, 200, 800, 600))
    camera = camera_from_info(record)
    assert (camera.width, camera.height) == (400, 150)
    assert intrinsics(camera) == (450.0, 230.0, (950 - 400) / 2, (530 - 200) / 4)
    assert (camera.k[0, 0], camera.k[1, 1]) == (500.0, 275.0)
    assert (camera.k[0, 2], camera.k[1, 2]) == ((960 - 400) / 2, (540 - 200) / 4)
    assert camera.k[2].tolist() == [0.0, 0.0, 1.0]


def test_the_region_and_the_whole_image_show_the_same_world():
    whole = camera_from_info(info())
    part = camera_from_info(info(roi=roi(300, 100, 640, 480)))
    image = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    image = np.repeat(np.repeat(image[::40, ::40], 40, axis=0), 40, axis=1)
    cut = image[100:580, 300:940]
    full_view, part_view = whole.rectify(image)[100:580, 300:940], part.rectify(cut)
    v, u = np.mgrid[0:480, 0:640]
    seen = part.visible(np.stack([u, v], axis=-1))
    assert seen.mean() > 0.7
    difference = np.abs(full_view.astype(int) - part_view.astype(int)).max(axis=-1)
    assert (difference[seen] > 3).mean() < 0.001  # maps are float32


def test_zero_binning_means_none_and_an_empty_region_the_whole_image():
    camera = camera_from_info(info(binning_x=0, binning_y=1, roi=roi(0, 0, 0, 0)))
    assert (camera.width, camera.height, camera.fx) == (1920, 1080, 900.0)


def test_a_region_far_from_the_principal_point_is_fine():
    camera = camera_from_info(info(roi=roi(1800, 900, 100, 80)))
    assert (camera.cx, camera.cy) == (950.0 - 1800.0, 530.0 - 900.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"k": [0.0] * 9}, "K is all zero.*calibrate"),
        ({"k": [0.0] * 9, "p": [0.0] * 12}, "K is all zero"),
        ({"k": K[:8]}, "K: expected 9 numbers, got 8"),
        ({"p": P[:9]}, "P: expected 12"),
        ({"k": [math.nan, *K[1:]]}, "K: expected finite"),
        ({"roi": roi(1800, 0, 200, 100)}, "ROI 200x100 at"),
        ({"roi": roi(-1, 0, 200, 100)}, "ROI"),
        ({"roi": roi(0, 0, 200, 0)}, "ROI"),
        ({"binning_x": 100}, "binning"),
        ({"binning_y": -1}, "binning"),
        ({"width": 0, "height": 0}, "width"),
        ({"width": 2**32 - 1}, "width: expected 1 to 32767"),
        ({"distortion_model": "omnidirectional"}, "omnidirectional"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, reason):
    with pytest.raises(CameraError, match=reason):
        camera_from_info(info(**changes))


CALIBRATION = """
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [438.78, 0., 305.59, 0., 437.34, 243.73, 0., 0., 1.]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.3614, 0.1091, 0.0010, -0.0006, 0.]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1., 0., 0., 0., 1., 0., 0., 0., 1.]
projection_matrix:
  rows: 3
  cols: 4
  data: [393.65, 0., 322.79, 0., 0., 393.65, 241.09, 0., 0., 0., 1., 0.]
"""

ECHO = """
header:
  stamp:
    sec: 1700000000
    nanosec: 5
  frame_id: camera_optical
height: 480
width: 640
distortion_model: rational_polynomial
d:
- 0.1
- 0.2
- 0.0
- 0.0
- 0.01
- 0.3
- 0.1
- 0.02
k: [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]
r: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
p: [480.0, 0.0, 320.0, 0.0, 0.0, 480.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
binning_x: 2
binning_y: 2
roi:
  x_offset: 0
  y_offset: 0
  height: 0
  width: 0
  do_rectify: false
---
header:
"""


@pytest.fixture
def write(tmp_path):
    def to(text):
        path = tmp_path / "camera.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to


def test_a_calibration_file(write):
    camera = camera_from_yaml(write(CALIBRATION))
    assert intrinsics(camera) == (393.65, 393.65, 322.79, 241.09)
    assert camera.k[1, 1] == 437.34
    assert camera.d.tolist() == [-0.3614, 0.1091, 0.0010, -0.0006, 0.0]
    assert (camera.width, camera.height, camera.model) == (640, 480, "plumb_bob")


def test_a_calibration_file_of_old_has_no_model_and_means_plumb_bob(write):
    # As camera_calibration_parsers does, with a warning.
    camera = camera_from_yaml(write(CALIBRATION.replace("distortion_model: plumb_bob\n", "")))
    assert camera.model == "plumb_bob"


def test_what_ros2_topic_echo_prints(write):
    camera = camera_from_yaml(write(ECHO))
    assert intrinsics(camera) == (240.0, 240.0, 160.0, 120.0)
    assert (camera.width, camera.height, len(camera.d)) == (320, 240, 8)


def test_what_rostopic_echo_printed(write):
    old = ECHO
    for letter in "dkrp":
        old = old.replace(f"\n{letter}:", f"\n{letter.upper()}:")
    assert intrinsics(camera_from_yaml(write(old))) == (240.0, 240.0, 160.0, 120.0)


def test_rectified_is_passed_on(write):
    assert camera_from_yaml(write(CALIBRATION), rectified=True).rectified


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a camera calibration"),
        ("- 1\n- 2\n", "expected a camera calibration, got list"),
        ("k: [1, 2\n", "expected a camera calibration as YAML, but"),
        (b"\xff\xfe\x00\x80", "expected a camera calibration as YAML, but"),
        ("width: 640\nheight: 480\n", "lacks 'k'"),
        (CALIBRATION.replace("image_width: 640", ""), "lacks 'image_width'"),
        (CALIBRATION.replace("437.34", "oops"), "camera.yaml"),
        (CALIBRATION.replace("437.34", "0.0"), "fy must be above 0"),
        (CALIBRATION.replace("640", "many"), "camera.yaml"),
        (
            CALIBRATION.replace("  data: [438.78, 0., 305.59, 0., 437.34, 243.73, 0., 0., 1.]\n", ""),
            "lacks 'data'",
        ),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_with_its_name(write, text, reason):
    with pytest.raises(CameraError, match=reason) as caught:
        camera_from_yaml(write(text))
    assert "camera.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CameraError, match=r"nowhere\.yaml"):
        camera_from_yaml(tmp_path / "nowhere.yaml")


def test_the_message_of_ros_itself():
    messages = pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed")
    message = messages.CameraInfo()
    with pytest.raises(CameraError, match="K is all zero"):  # what an uncalibrated driver publishes
        camera_from_info(message)
    message.width, message.height, message.distortion_model = 1920, 1080, "plumb_bob"
    message.k, message.d, message.r, message.p = K, D, EYE, P
    message.binning_x = message.binning_y = 2
    message.roi.x_offset, message.roi.width, message.roi.height = 100, 1000, 1080
    camera = camera_from_info(message)
    assert intrinsics(camera) == (450.0, 460.0, 425.0, 265.0)
    assert (camera.width, camera.height) == (500, 540)
