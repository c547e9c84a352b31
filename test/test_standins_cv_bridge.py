"""cv_bridge as this project calls it: the real package or the stand-in."""

import array
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 or its wheels: make setup")

import cv2
from cv_bridge import CvBridge, CvBridgeError
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

BRIDGE = CvBridge()
RNG = np.random.default_rng(7)


def is_standin(module):
    return "stand-in" in (sys.modules[module].__doc__ or "").lower()


def image_message(pixels, encoding, padding=0, big_endian=False):
    """An Image with `padding` bytes of rubbish after every row."""
    pixels = np.ascontiguousarray(pixels)
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = np.frombuffer(stored.tobytes(), np.uint8).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1])
    message.is_bigendian = int(big_endian)
    message.data = array.array("B", rows.tobytes())
    return message


def random_pixels(channels, dtype=np.uint8, size=(6, 8)):
    shape = size if channels == 1 else (*size, channels)
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


ORDERS = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "rgba8": [0, 1, 2], "bgra8": [2, 1, 0]}


@pytest.mark.parametrize("encoding", list(ORDERS))
@pytest.mark.parametrize("padding", [0, 24])
def test_colours_come_out_as_rgb_and_bgr(encoding, padding):
    pixels = random_pixels(4 if "a" in encoding else 3)
    message = image_message(pixels, encoding, padding)
    rgb = pixels[:, :, ORDERS[encoding]]
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message, "rgb8"), rgb)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message, "bgr8"), rgb[:, :, ::-1])
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), pixels)


def test_the_array_does_not_share_the_message_and_is_contiguous():
    message = image_message(random_pixels(3), "rgb8", padding=3)
    image = BRIDGE.imgmsg_to_cv2(message, "rgb8")
    before = image.copy()
    message.data[:] = array.array("B", bytes(len(message.data)))
    np.testing.assert_array_equal(image, before)
    assert image.flags.c_contiguous


def test_grey_of_8_bits():
    pixels = random_pixels(1)
    rgb = BRIDGE.imgmsg_to_cv2(image_message(pixels, "mono8", padding=8), "rgb8")
    np.testing.assert_array_equal(rgb, np.repeat(pixels[:, :, None], 3, axis=2))


def test_grey_of_16_bits_is_scaled_by_its_full_range():
    pixels = np.array([[0, 128, 129, 257, 385, 386, 65406, 65535]], dtype=np.uint16)
    grey = [0, 0, 1, 1, 1, 2, 254, 255]  # round(x / 257)
    message = image_message(pixels, "mono16")
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message, "mono8"), [grey])
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message, "bgr8")[0, :, 0], grey)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(image_message(pixels, "16UC1"), "8UC1"), [grey])
    up = BRIDGE.imgmsg_to_cv2(image_message(np.array([[0, 1, 255]], np.uint8), "mono8"), "mono16")
    np.testing.assert_array_equal(up, [[0, 257, 65535]])


def test_rgb16_becomes_bgr8():
    pixels = random_pixels(3, np.uint16)
    expected = np.rint(pixels[:, :, ::-1] / 257.0).astype(np.uint8)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(image_message(pixels, "rgb16"), "bgr8"), expected)


def test_depth_passes_unscaled_with_its_nan():
    metres = np.array([[0.5, np.nan], [np.inf, 80.25]], dtype=np.float32)
    message = image_message(metres, "32FC1", padding=4)
    for wanted in ("passthrough", "32FC1"):
        np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message, wanted), metres)
    millimetres = np.array([[0, 1500], [65535, 7]], dtype=np.uint16)
    as_float = BRIDGE.imgmsg_to_cv2(image_message(millimetres, "16UC1"), "32FC1")
    np.testing.assert_array_equal(as_float, millimetres.astype(np.float32))
    assert as_float.dtype == np.float32


@pytest.mark.skipif(
    not is_standin("cv_bridge") and np.lib.NumpyVersion(np.__version__) >= "2.0.0",
    reason="the real package calls an array method that numpy 2 removed",
)
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_big_endian_16_bits(encoding):
    pixels = random_pixels(1, np.uint16)
    image = BRIDGE.imgmsg_to_cv2(image_message(pixels, encoding, padding=2, big_endian=True))
    np.testing.assert_array_equal(image, pixels)
    assert image.dtype.isnative


MOSAICS = {"rggb": "RGGB", "bggr": "BGGR", "gbrg": "GBRG", "grbg": "GRBG"}


@pytest.mark.parametrize("pattern", list(MOSAICS))
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_of_one_colour_is_that_colour(pattern, bits):
    # Constant colour: whatever the interpolation does, the inside must come out as it is.
    full = 255 if bits == 8 else 65535
    colour = {"R": full, "G": full // 2, "B": full // 5}
    tile = np.array([colour[c] for c in MOSAICS[pattern]]).reshape(2, 2)
    mosaic = np.tile(tile, (5, 6)).astype(f"u{bits // 8}")
    rgb = BRIDGE.imgmsg_to_cv2(image_message(mosaic, f"bayer_{pattern}{bits}", padding=2), "rgb8")
    inside = rgb[2:-2, 2:-2].reshape(-1, 3)
    expected = np.rint(np.array([colour["R"], colour["G"], colour["B"]]) * 255.0 / full)
    np.testing.assert_allclose(inside, np.broadcast_to(expected, inside.shape), atol=1)
    bgr = BRIDGE.imgmsg_to_cv2(image_message(mosaic, f"bayer_{pattern}{bits}"), "bgr8")
    np.testing.assert_array_equal(bgr, rgb[:, :, ::-1])


@pytest.mark.parametrize(
    ("encoding", "order", "code"),
    [("yuv422", "UYVY", cv2.COLOR_YUV2RGB_UYVY), ("yuv422_yuy2", "YUYV", cv2.COLOR_YUV2RGB_YUY2)],
)
def test_yuv422(encoding, order, code):
    if encoding == "yuv422_yuy2" and not is_standin("cv_bridge"):
        pytest.skip("the oldest real packages do not know it")
    # Red in BT.601, limited range: Y 81, U 90, V 240.
    red = {"Y": 81, "U": 90, "V": 240}
    pixels = np.tile(np.array([red[c] for c in order], np.uint8), (4, 4)).reshape(4, 8, 2)
    rgb = BRIDGE.imgmsg_to_cv2(image_message(pixels, encoding, padding=6), "rgb8")
    np.testing.assert_array_equal(rgb, cv2.cvtColor(pixels, code))
    np.testing.assert_allclose(rgb.reshape(-1, 3).mean(axis=0), [254, 0, 0], atol=3)


@pytest.mark.parametrize(
    ("encoding", "wanted"),
    [
        ("32FC1", "rgb8"),
        ("8UC1", "mono8"),
        ("8UC3", "bgr8"),
        ("rgb8", "8UC1"),
        ("16UC1", "32FC3"),
        ("bayer_rggb16", "bayer_rggb8"),
        ("rgb8", "yuv422"),
        ("mono8", "purple"),
    ],
)
def test_conversions_that_make_no_sense_are_refused(encoding, wanted):
    kinds = {"32FC1": (1, np.float32), "16UC1": (1, np.uint16), "bayer_rggb16": (1, np.uint16)}
    channels, dtype = kinds.get(encoding, (1 if "1" in encoding or "mono" in encoding else 3, np.uint8))
    pixels = np.zeros((4, 4) if channels == 1 else (4, 4, channels), dtype)
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(image_message(pixels, encoding), wanted)


@pytest.mark.parametrize("encoding", ["", "rgb", "RGB8", "8UC", "h264", "nv21", "bayer_rgbg8"])
def test_unknown_encodings_are_refused(encoding):
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(image_message(random_pixels(3), encoding), "rgb8")


def test_short_data_is_refused():
    message = image_message(random_pixels(3), "rgb8")
    message.data = message.data[:-1]
    # The real package raises numpy's TypeError, of which CvBridgeError is a kind.
    with pytest.raises(TypeError):
        BRIDGE.imgmsg_to_cv2(message, "rgb8")


@pytest.mark.skipif(not is_standin("cv_bridge"), reason="the real package lets these through")
@pytest.mark.parametrize("change", [{"step": 23}, {"width": 0}, {"height": 0}, {"width": 2**31}])
def test_malformed_sizes_are_refused(change):
    message = image_message(random_pixels(3), "rgb8")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(message, "rgb8")


@pytest.mark.parametrize(
    ("encoding", "channels", "dtype"),
    [("rgb8", 3, np.uint8), ("bgra8", 4, np.uint8), ("mono8", 1, np.uint8), ("mono16", 1, np.uint16)],
)
def test_messages_made_here_read_back(encoding, channels, dtype):
    pixels = random_pixels(channels, dtype)
    message = BRIDGE.cv2_to_imgmsg(pixels[:, ::2], encoding, header=Header(frame_id="camera"))
    assert (message.height, message.width, message.encoding) == (6, 4, encoding)
    assert message.step == 4 * channels * np.dtype(dtype).itemsize
    assert message.header.frame_id == "camera"
    assert not message.is_bigendian
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), pixels[:, ::2])


def test_passthrough_names_the_layout():
    assert BRIDGE.cv2_to_imgmsg(np.zeros((2, 3), np.float32)).encoding == "32FC1"
    assert BRIDGE.cv2_to_imgmsg(np.zeros((2, 3, 3), np.uint8)).encoding == "8UC3"


def test_an_encoding_that_does_not_fit_the_array_is_refused():
    with pytest.raises(CvBridgeError):
        BRIDGE.cv2_to_imgmsg(np.zeros((2, 3), np.uint8), "rgb8")
    with pytest.raises(CvBridgeError):
        BRIDGE.cv2_to_imgmsg(np.zeros((2, 3), np.uint8), "mono16")
    with pytest.raises(TypeError):
        BRIDGE.cv2_to_imgmsg([[1, 2]], "mono8")


def test_compressed_images():
    bgr = random_pixels(3)
    png = CompressedImage(format="png", data=array.array("B", cv2.imencode(".png", bgr)[1].tobytes()))
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(png), bgr)
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(png, "rgb8"), bgr[:, :, ::-1])
    grey = random_pixels(1)
    png.data = array.array("B", cv2.imencode(".png", grey)[1].tobytes())
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(png), grey)


@pytest.mark.skipif(not is_standin("cv_bridge"), reason="the real package returns None or OpenCV's error")
@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0"])
def test_bytes_that_are_no_image_are_refused(data):
    with pytest.raises(CvBridgeError):
        BRIDGE.compressed_imgmsg_to_cv2(CompressedImage(format="jpeg", data=array.array("B", data)))
