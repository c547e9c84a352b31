"""From a pair of messages to sparse depth: decode, calibrate, estimate, and refuse with a counted reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cv_bridge import CvBridge
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from depthlm_ros.camera import CameraError, PinholeCamera
from depthlm_ros.camera_info import camera_from_info
from depthlm_ros.canonical import CanonicalError
from depthlm_ros.config import CameraConfig, SamplingConfig
from depthlm_ros.estimator import DepthEstimator, PreparedFrame
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.ros.messages import BadMessageError, rgb_from_compressed, rgb_from_image, stamp_ns
from depthlm_ros.spatial.asking import ask_spatial
from depthlm_ros.spatial.request import SpatialAnswer, SpatialRequest


class FrameRefusedError(ValueError):
    """A frame gives no output.

    Attributes:
        reason: A short word, counted in the diagnostics.
        answers: What became of the pixels that were asked all the same, or None.
    """

    def __init__(self, reason: str, explanation: str, answers: SparseDepth | None = None) -> None:
        super().__init__(explanation)
        self.reason, self.answers = reason, answers


@dataclass(frozen=True, eq=False)
class Pair:
    """One image with its CameraInfo, as they came.

    Attributes:
        image: The image message.
        info: The CameraInfo message.
        arrived: ``time.monotonic()`` when the pair was complete.
    """

    image: Image | CompressedImage
    info: CameraInfo
    arrived: float

    @property
    def header(self) -> Header:
        """Header of the image; what is published carries it unchanged."""
        return self.image.header


class FramePipeline:
    """Estimates depth for pairs of messages; used by the worker thread alone."""

    def __init__(
        self, estimator: DepthEstimator, config: CameraConfig, age_s: Callable[[Header], float]
    ) -> None:
        """Join an estimator with what the node knows of its camera.

        Args:
            estimator: Does the work.
            config: How images are understood.
            age_s: Seconds since a header's stamp on the node's clock.
        """
        self._estimator = estimator
        self._config = config
        self._age_s = age_s
        self._bridge = CvBridge()
        self._camera: tuple[CameraInfo, PinholeCamera] | None = None
        self._prepared: tuple[Pair, PreparedFrame] | None = None

    def estimate(
        self, pair: Pair, sampling: SamplingConfig, *, max_age_s: float
    ) -> tuple[SparseDepth, PreparedFrame]:
        """Ask a frame at the pixels that the sampler chooses.

        Args:
            pair: The frame.
            sampling: Which pixels.
            max_age_s: An older frame is refused, before it is asked and after.

        Returns:
            The answers, at least one of them with a depth, and the frame they are about.

        Raises:
            FrameRefusedError: The frame gives no output; it says why.
            EngineError: The engine as a whole failed.
        """
        frame = self.prepare(pair, max_age_s=max_age_s)
        pixels = self._estimator.sample(frame, sampling)
        if not len(pixels):
            raise FrameRefusedError("no_pixels", "the sampler found no pixel that can be asked in this image")
        # A stamp slightly ahead of this clock must not lengthen the time.
        deadline = time.monotonic() + max_age_s - max(self._age_s(pair.header), 0.0)
        sparse = self._estimator.ask(frame, pixels, deadline=deadline)
        if not sparse.answered.any():
            why = f"no pixel was answered: {sparse.reasons()} {sparse.error}".rstrip()
            raise FrameRefusedError("no_answer", why, sparse)
        if self._age_s(pair.header) > max_age_s:
            why = f"answered only when the frame was older than stream.max_age_s ({max_age_s:g} s)"
            raise FrameRefusedError("late", why, sparse)
        return sparse, frame

    def query(
        self, pair: Pair, pixels: npt.NDArray[np.int64], *, max_age_s: float, deadline: float
    ) -> SparseDepth:
        """Ask a frame at given pixels; its image work is done once, however often it is asked.

        Raises:
            FrameRefusedError: The frame gives no output; it says why.
            EngineError: The engine as a whole failed.
        """
        frame = self.prepare(pair, max_age_s=max_age_s)
        _refuse_outside(frame, pixels)
        return self._estimator.ask(frame, pixels, deadline=deadline)

    def ask(
        self, pairs: Sequence[Pair], request: SpatialRequest, *, max_age_s: float, deadline: float
    ) -> SpatialAnswer:
        """Ask a spatial question about one frame, or about two, the earlier one first.

        Raises:
            FrameRefusedError: A frame gives no output; it says why.
            EngineError: The engine as a whole failed.
        """
        frames = [self.prepare(pair, max_age_s=max_age_s) for pair in pairs]
        _refuse_outside(frames[0], np.asarray(request.pixels, dtype=np.int64).reshape(-1, 2))
        return ask_spatial(self._estimator, frames, request, deadline=deadline)

    def cancel(self) -> None:
        """End a question that is under way in another thread as soon as may be."""
        self._estimator.engine.cancel()

    def prepare(self, pair: Pair, *, max_age_s: float) -> PreparedFrame:
        """Decode, rectify and resize a frame, or return what was prepared of it before."""
        age = self._age_s(pair.header)
        if age > max_age_s:
            raise FrameRefusedError(
                "stale",
                f"the frame is {age:.3f} s old, more than stream.max_age_s ({max_age_s:g} s): check the clocks, "
                "set use_sim_time with a simulator or a bag, ask fewer pixels, or use a faster engine",
            )
        if age < -max_age_s:
            raise FrameRefusedError(
                "future",
                f"the frame's stamp lies {-age:.3f} s ahead of this node's clock: check the clocks; with "
                "use_sim_time, is /clock published?",
            )
        if self._prepared is not None and self._prepared[0] is pair:
            return self._prepared[1]
        try:
            camera = self._camera_of(pair.info)
        except CameraError as error:
            raise FrameRefusedError("bad_camera_info", str(error)) from error
        try:
            frame = self._estimator.prepare(self._decode(pair.image), camera)
        except BadMessageError as error:
            raise FrameRefusedError("bad_image", str(error)) from error
        except CameraError as error:
            raise FrameRefusedError("size_mismatch", str(error)) from error
        except CanonicalError as error:
            raise FrameRefusedError("bad_size", str(error)) from error
        self._prepared = (pair, frame)
        return frame

    def _decode(self, image: Image | CompressedImage) -> npt.NDArray[np.uint8]:
        limit = self._config.max_megapixels
        if isinstance(image, CompressedImage):
            return rgb_from_compressed(image, max_megapixels=limit)
        return rgb_from_image(image, self._bridge, max_megapixels=limit)

    def _camera_of(self, info: CameraInfo) -> PinholeCamera:
        """The camera of a CameraInfo, made anew only when the calibration changes (its maps are cached)."""
        if self._camera is not None and _same_calibration(self._camera[0], info):
            return self._camera[1]
        camera = camera_from_info(info, rectified=self._config.image_kind == "rectified")
        self._camera = (info, camera)
        return camera


def _refuse_outside(frame: PreparedFrame, pixels: npt.NDArray[np.int64]) -> None:
    size = (frame.camera.width, frame.camera.height)
    outside = pixels[((pixels < 0) | (pixels >= size)).any(axis=1)]
    if len(outside):
        raise FrameRefusedError(
            "outside", f"pixel {tuple(outside[0].tolist())} is outside the image of {size[0]}x{size[1]}"
        )


def matches(pair: Pair, stamp: int) -> bool:
    """Whether a pair is the one that a query's stamp (nanoseconds, 0 = newest) names."""
    return stamp in (0, stamp_ns(pair.header))


def _same_calibration(a: CameraInfo, b: CameraInfo) -> bool:
    names = ("width", "height", "distortion_model", "binning_x", "binning_y", "roi")
    return all(getattr(a, n) == getattr(b, n) for n in names) and all(
        np.array_equal(getattr(a, n), getattr(b, n)) for n in ("k", "d", "r", "p")
    )
