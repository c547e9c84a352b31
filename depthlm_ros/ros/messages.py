"""Messages to arrays and back: what the node reads and publishes, with no state of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Duration, Time
from cv_bridge import CvBridge, CvBridgeError
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.engines.base import RgbImage
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.images import ImageError, decode_image
from depthlm_ros.msg import SparseDepth as SparseDepthMsg

BYTES_PER_PIXEL = {
    "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "mono16": 2,
    "yuv422": 2, "yuv422_yuy2": 2, "uyvy": 2, "yuyv": 2,
    "bayer_rggb8": 1, "bayer_bggr8": 1, "bayer_gbrg8": 1, "bayer_grbg8": 1,
    "bayer_rggb16": 2, "bayer_bggr16": 2, "bayer_gbrg16": 2, "bayer_grbg16": 2,
}  # fmt: skip
"""Encodings that hold a colour or grey picture, which is what a model can be asked about."""

_ALIASES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}
"""Newer names that drivers publish, and what every released cv_bridge calls the same bytes."""


class BadMessageError(ValueError):
    """A message cannot be used; the message of the error says what is wrong with it and what to do."""


def rgb_from_image(msg: Image, bridge: CvBridge, *, max_megapixels: float) -> RgbImage:
    """Decode a raw image message.

    Args:
        msg: The message. ``step`` may exceed the row's bytes.
        bridge: Converts encodings.
        max_megapixels: Larger images are refused before they are touched.

    Returns:
        RGB of shape (height, width, 3), uint8; 16-bit grey and Bayer data are scaled to 8 bits.

    Raises:
        BadMessageError: Size 0, unknown encoding, wrong step or short data.
    """
    name = msg.encoding.lower()
    if name not in BYTES_PER_PIXEL:
        raise BadMessageError(
            f"encoding {msg.encoding!r} is not a picture; expected one of {sorted(BYTES_PER_PIXEL)}"
        )
    if not msg.width or not msg.height:
        raise BadMessageError(f"an image of {msg.width}x{msg.height} pixels is empty")
    if msg.width * msg.height > max_megapixels * 1e6:
        raise BadMessageError(
            f"{msg.width}x{msg.height} pixels exceed camera.max_megapixels ({max_megapixels:g})"
        )
    if msg.step < msg.width * BYTES_PER_PIXEL[name]:
        raise BadMessageError(
            f"step {msg.step} is too short for {msg.width} pixels of {name}: expected at least "
            f"{msg.width * BYTES_PER_PIXEL[name]}"
        )
    if len(msg.data) != msg.step * msg.height:
        raise BadMessageError(f"expected step x height = {msg.step * msg.height} bytes, got {len(msg.data)}")
    try:
        msg = _packed(msg, name)
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(msg, desired_encoding="rgb8"), dtype=np.uint8)
    except (CvBridgeError, ValueError, TypeError) as error:
        raise BadMessageError(
            f"{name} image of {msg.width}x{msg.height} cannot be decoded: {error}"
        ) from error


def _packed(msg: Image, name: str) -> Image:
    """The same picture with the encoding's common name and without padding.

    cv_bridge computes a row's pixels as step / bytes per pixel, which is wrong for padding of other lengths.
    """
    row = msg.width * BYTES_PER_PIXEL[name]
    if name not in _ALIASES and msg.step == row:
        return msg
    packed = Image(
        header=msg.header, height=msg.height, width=msg.width, encoding=_ALIASES.get(name, name),
        is_bigendian=msg.is_bigendian, step=row,
    )  # fmt: skip
    rows = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)
    _fill(packed, rows[:, :row])
    return packed


def rgb_from_compressed(msg: CompressedImage, *, max_megapixels: float) -> RgbImage:
    """Decode a compressed image message (JPEG, PNG and what else the imaging library reads).

    Returns:
        RGB of shape (height, width, 3), uint8.

    Raises:
        BadMessageError: The bytes are not a whole picture, or it is too large.
    """
    try:
        return decode_image(bytes(msg.data), max_megapixels=max_megapixels)
    except ImageError as error:
        raise BadMessageError(f"compressed image ({msg.format or 'no format'}): {error}") from error


def depth_image(sparse: SparseDepth, header: Header) -> Image:
    """The 32FC1 depth image: metres along z, NaN where nothing was asked or answered (REP 118)."""
    return float_image(sparse.depth_image(), header)


def float_image(array: npt.NDArray[np.float32], header: Header) -> Image:
    """A 32FC1 image message from an array of shape (H, W)."""
    height, width = array.shape
    msg = Image(header=header, height=height, width=width, encoding="32FC1", is_bigendian=0, step=width * 4)
    _fill(msg, array.astype("<f4", copy=False))
    return msg


def rgb_image(image: RgbImage, header: Header) -> Image:
    """An rgb8 image message from an array of shape (H, W, 3), uint8."""
    height, width = image.shape[:2]
    msg = Image(header=header, height=height, width=width, encoding="rgb8", is_bigendian=0, step=width * 3)
    _fill(msg, image)
    return msg


def rectified_info(camera: PinholeCamera, header: Header) -> CameraInfo:
    """The CameraInfo of the (rectified) source image: no distortion, no rotation, no binning, no ROI."""
    return CameraInfo(
        header=header, width=camera.width, height=camera.height, distortion_model="plumb_bob",
        d=[0.0] * 5, k=camera.p[:, :3].ravel().tolist(), r=np.eye(3).ravel().tolist(),
        p=camera.p.ravel().tolist(),
    )  # fmt: skip


_FLOAT = PointField.FLOAT32
_POINT_FIELDS = ("x", "y", "z", "rgb", "confidence", "sigma")


def point_cloud(sparse: SparseDepth, header: Header) -> PointCloud2:
    """The answered points in the optical frame: x y z (m), packed rgb, confidence, sigma (m); unorganised."""
    keep = sparse.answered
    rgb = sparse.rgb[keep].astype(np.uint32)
    packed = (rgb[:, 0] << 16 | rgb[:, 1] << 8 | rgb[:, 2]).view(np.float32)
    columns = [*sparse.points()[keep].T, packed, sparse.confidence[keep], sparse.sigma[keep]]
    return _cloud(header, _POINT_FIELDS, columns)


def obstacle_cloud(sparse: SparseDepth, keep: npt.NDArray[np.bool_], header: Header) -> PointCloud2:
    """The points that Nav2 marks: x y z (m) of the kept entries, in the optical frame."""
    return _cloud(header, ("x", "y", "z"), list(sparse.points()[keep].T))


def sparse_depth(
    sparse: SparseDepth, header: Header, *, latency_s: float, counters: dict[str, int]
) -> SparseDepthMsg:
    """Every asked pixel with what became of it.

    Args:
        sparse: The pixels and answers.
        header: Stamp and frame of the source image.
        latency_s: Seconds from the arrival of the frame to this message.
        counters: The message's counter fields since activation.
    """
    return SparseDepthMsg(
        header=header,
        model=sparse.model,
        width=sparse.camera.width,
        height=sparse.camera.height,
        u=sparse.pixels[:, 0].astype(np.uint32),
        v=sparse.pixels[:, 1].astype(np.uint32),
        depth=sparse.depth,
        sigma=sparse.sigma,
        confidence=sparse.confidence,
        status=sparse.status,
        latency=Duration(sec=int(latency_s), nanosec=int((latency_s % 1.0) * 1e9)),
        **counters,
    )


def stamp_seconds(header: Header) -> float:
    """The stamp in seconds."""
    return float(header.stamp.sec) + float(header.stamp.nanosec) * 1e-9


def stamp_ns(header: Header) -> int:
    """The stamp in nanoseconds."""
    return time_ns(header.stamp)


def time_ns(stamp: Time) -> int:
    """A time in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _cloud(header: Header, names: tuple[str, ...], columns: list[npt.NDArray[np.float32]]) -> PointCloud2:
    fields = [PointField(name=name, offset=4 * i, datatype=_FLOAT, count=1) for i, name in enumerate(names)]
    points = np.empty(len(columns[0]), dtype=[(name, np.float32) for name in names])
    for name, column in zip(names, columns, strict=True):
        points[name] = column
    if not len(points):  # which create_cloud refuses
        step = 4 * len(names)
        return PointCloud2(header=header, height=1, width=0, fields=fields, point_step=step, is_dense=True)
    cloud = point_cloud2.create_cloud(header, fields, points)
    cloud.is_dense = True
    return cloud


def _fill(msg: Image, array: npt.NDArray[np.generic]) -> None:
    """Copy an array into ``msg.data`` as one block; assigning a flat array would check every byte."""
    msg.data.frombytes(np.ascontiguousarray(array).data.cast("B"))
