"""`CvBridge` over plain numpy and OpenCV."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from cv_bridge.encodings import Encoding, EncodingError, convert, parse_encoding


class CvBridgeError(TypeError):
    """An image cannot be converted. A TypeError, as in the real package."""


class CvBridge:
    """Converts between image messages and arrays."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> npt.NDArray:
        """Converts an image message to an array.

        Args:
            img_msg: Row padding (`step`) and `is_bigendian` are honoured.
            desired_encoding: The encoding wanted, or "passthrough" for the message's own.

        Returns:
            Shape (H, W) for one channel, else (H, W, C); this machine's byte order, contiguous.

        Raises:
            CvBridgeError: The message is malformed, or the conversion does not exist.
        """
        try:
            image = _pixels(img_msg, parse_encoding(img_msg.encoding))
            if desired_encoding == "passthrough":
                return image
            return convert(image, img_msg.encoding, desired_encoding)
        except (EncodingError, cv2.error) as error:
            raise CvBridgeError(str(error)) from error

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> npt.NDArray:
        """Decodes a compressed image message (JPEG, PNG, ...).

        Args:
            cmprs_img_msg: The format is taken from the data, not from the message's `format`.
            desired_encoding: The encoding wanted, for which the data must hold three channels; or
                "passthrough" for what the data holds, colours in the order blue, green, red.

        Raises:
            CvBridgeError: The data is no image, or the conversion does not exist.
        """
        data = np.frombuffer(cmprs_img_msg.data, dtype=np.uint8)
        try:
            image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
            if image is None:
                raise CvBridgeError(f"{data.size} bytes of format '{cmprs_img_msg.format}' are not an image")
            return image if desired_encoding == "passthrough" else convert(image, "bgr8", desired_encoding)
        except (EncodingError, cv2.error) as error:
            raise CvBridgeError(str(error)) from error

    def cv2_to_imgmsg(
        self, cvim: npt.NDArray, encoding: str = "passthrough", header: Header | None = None
    ) -> Image:
        """Wraps an array in an image message.

        Args:
            cvim: Shape (H, W) or (H, W, C).
            encoding: What the array holds; nothing is converted. "passthrough" names its memory layout.
            header: Of the message.

        Raises:
            TypeError: `cvim` is not an array.
            CvBridgeError: `encoding` does not fit the array.
        """
        if not isinstance(cvim, np.ndarray):
            raise TypeError(f"expected a numpy array, got {type(cvim).__name__}")
        channels = 1 if cvim.ndim < 3 else cvim.shape[2]
        try:
            layout = Encoding("", cvim.dtype.newbyteorder("="), channels).opencv_type
            wanted = layout if encoding == "passthrough" else parse_encoding(encoding).opencv_type
        except (EncodingError, StopIteration) as error:
            raise CvBridgeError(
                f"no encoding for {cvim.dtype} arrays of shape {cvim.shape}: {error}"
            ) from error
        if wanted != layout:
            raise CvBridgeError(f"encoding {encoding} means {wanted}, but the image is {layout}")
        name = layout if encoding == "passthrough" else encoding
        message = Image(height=cvim.shape[0], width=cvim.shape[1], encoding=name)
        if header is not None:
            message.header = header
        message.is_bigendian = int(cvim.dtype.byteorder == ">")
        message.step = cvim.shape[1] * channels * cvim.itemsize
        if cvim.size:
            # By far the fastest way to fill a message: one copy, no conversion of single values.
            message.data.frombytes(memoryview(np.ascontiguousarray(cvim)).cast("B"))
        return message


def _pixels(message: Image, encoding: Encoding) -> npt.NDArray:
    """The message's pixels without padding, in this machine's byte order; a copy."""
    row = message.width * encoding.channels * encoding.dtype.itemsize
    if message.width == 0 or message.height == 0:
        raise CvBridgeError(f"the image is empty: {message.width} x {message.height}")
    if message.step < row:
        raise CvBridgeError(
            f"step is {message.step} bytes, but {message.width} pixels of {encoding.name} need {row}"
        )
    if len(message.data) < message.height * message.step:
        raise CvBridgeError(
            f"{message.height} rows of {message.step} bytes need {message.height * message.step} bytes, "
            f"but data holds {len(message.data)}"
        )
    data = np.frombuffer(
        bytes(message.data) if isinstance(message.data, list) else message.data, dtype=np.uint8
    )
    rows = data[: message.height * message.step].reshape(message.height, message.step)[:, :row]
    sent = encoding.dtype.newbyteorder(">" if message.is_bigendian else "<")
    image = np.ascontiguousarray(rows).view(sent)
    if encoding.channels > 1:
        image = image.reshape(message.height, message.width, encoding.channels)
    swapped = bool(message.is_bigendian) == (sys.byteorder == "little")
    return image.astype(encoding.dtype) if swapped else image.copy()
