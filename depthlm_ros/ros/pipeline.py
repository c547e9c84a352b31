"""From a pair of messages to sparse depth: decode, calibrate, estimate, and refuse with a counted reason."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cv_bridge import CvBridge
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import CameraError, PinholeCamera
from depthlm_ros.camera_info import camera_from_info
from depthlm_ros.canonical import CanonicalError
from depthlm_ros.config import CameraConfig, SamplingConfig, StreamConfig
from depthlm_ros.estimator import DepthEstimator, PreparedFrame
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.ros.messages import BadMessageError, rgb_from_compressed, rgb_from_image
from depthlm_ros.sampling import Pixels
from depthlm_ros.spatial.asking import ask_model, ask_spatial
from depthlm_ros.spatial.request import SpatialAnswer, SpatialRequest
from depthlm_ros.spatial.tasks import SpatialTask
from depthlm_ros.turns import Budget, ask_in_turns

PREPARED = 4
"""Frames whose image work is kept: the stream's, the one of callers, and the two of a camera motion."""

_JUMPED = "the node's clock went backwards after the frame had come"


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
        self,
        estimator: DepthEstimator,
        config: CameraConfig,
        age_s: Callable[[Header], float],
        rate: Callable[[], float] = lambda: 1.0,
        step_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Join an estimator with what the node knows of its camera.

        Args:
            estimator: Does the work.
            config: How images are understood.
            age_s: Seconds since a header's stamp on the node's clock.
            rate: Seconds on that clock per second on the steady one.
            step_s: By how much that clock goes on at a time.
        """
        self._estimator = estimator
        self._config = config
        self._age_s, self._rate, self._step_s = age_s, rate, step_s
        self._since = -math.inf
        self._bridge = CvBridge()
        self._camera: tuple[CameraInfo, PinholeCamera] | None = None
        self._prepared: deque[tuple[Pair, PreparedFrame]] = deque(maxlen=PREPARED)

    def estimate(
        self, pair: Pair, sampling: SamplingConfig, stream: StreamConfig
    ) -> Generator[None, None, tuple[SparseDepth, PreparedFrame]]:
        """Ask a frame at the pixels that the sampler chooses, chunk by chunk, as far as its budget reaches.

        Args:
            pair: The frame.
            sampling: Which pixels, in which order.
            stream: The budget, and the age beyond which a frame is refused, before it is asked and after.

        Yields:
            Nothing, between two chunks.

        Returns:
            The answers, at least one of them with a depth, and the frame they are about.

        Raises:
            FrameRefusedError: The frame gives no output; it says why.
            EngineError: The engine as a whole failed.
        """
        end = time.monotonic() + stream.budget_s if stream.budget_s else math.inf
        frame = self.prepare(pair, stream)
        pixels = self._estimator.sample(frame, sampling)
        if not len(pixels):
            raise FrameRefusedError("no_pixels", "the sampler found no pixel that can be asked in this image")
        budget = Budget(
            stream.chunk_points,
            stream.budget_points,
            lambda: self.useful_until(pair, stream, end) - time.monotonic(),
        )
        sparse = yield from ask_in_turns(self._estimator, frame, pixels, budget)
        if not sparse.answered.any() and not self._is_of_another_time(pair):
            why = f"no pixel was answered: {sparse.reasons()} {sparse.error}".rstrip()
            raise FrameRefusedError("no_answer", why, sparse)
        self.refuse_late(pair, stream, sparse)
        return sparse, frame

    def refuse_late(self, pair: Pair, stream: StreamConfig, answers: SparseDepth | None = None) -> None:
        """Refuse what was answered of a frame that grew too old, or lost its time, while it was asked.

        Args:
            pair: The frame.
            stream: How old it may be.
            answers: What became of its pixels.

        Raises:
            FrameRefusedError: It says why, and carries the answers.
        """
        if self._is_of_another_time(pair):
            raise FrameRefusedError("clock_jump", _JUMPED, answers)
        if self._age_s(pair.header) > stream.max_age_s:
            raise FrameRefusedError(
                "late",
                f"answered only when the frame was older than stream.max_age_s ({stream.max_age_s:g} s): ask fewer "
                "pixels at a time (stream.chunk_points, stream.budget_s), raise it, or use a faster engine",
                answers,
            )

    def useful_until(self, pair: Pair, stream: StreamConfig, deadline: float) -> float:
        """When the use of a frame's answers ends (``time.monotonic()``): at the deadline, or when it is too old."""
        now = time.monotonic()
        if self._is_of_another_time(pair):
            return now
        # A stamp slightly ahead of this clock, or a clock slower than real time, must not lengthen the time.
        left_s = (stream.max_age_s - max(self._age_s(pair.header), 0.0)) / max(self._rate(), 1.0)
        return min(deadline, now + left_s)

    def measure(self, frame: PreparedFrame, pixels: Pixels, *, deadline: float) -> SparseDepth:
        """Ask a prepared frame at given pixels.

        Raises:
            EngineError: The engine as a whole failed.
        """
        return self._estimator.ask(frame, pixels, deadline=deadline)

    def unasked(self, frame: PreparedFrame, pixels: Pixels, status: AnswerStatus) -> SparseDepth:
        """Entries of pixels that are not asked, with the reason."""
        return self._estimator.unasked(frame, pixels, status)

    def derives(self, task: SpatialTask) -> bool:
        """Whether the answer to a question of this task is computed from depths, not said by the model."""
        return task.value not in self._estimator.profile.spatial_tasks

    def ask_all(
        self, frame: PreparedFrame, requests: Sequence[SpatialRequest], *, deadline: float
    ) -> list[SpatialAnswer]:
        """Ask the model itself questions of one task about a prepared frame.

        Raises:
            EngineError: The engine as a whole failed.
        """
        return ask_model(self._estimator, [frame], requests, deadline=deadline)

    def ask(
        self, pairs: Sequence[Pair], request: SpatialRequest, stream: StreamConfig, *, deadline: float
    ) -> SpatialAnswer:
        """Ask a spatial question about one frame, or about two, the earlier one first.

        Raises:
            FrameRefusedError: A frame gives no output, or the last one grew too old meanwhile; it says why.
            EngineError: The engine as a whole failed.
        """
        frames = [self.prepare(pair, stream) for pair in pairs]
        self.refuse_outside(frames[0], np.asarray(request.pixels, dtype=np.int64).reshape(-1, 2))
        deadline = self.useful_until(pairs[-1], stream, deadline)
        answer = ask_spatial(self._estimator, frames, request, deadline=deadline)
        self.refuse_late(pairs[-1], stream)
        return answer

    @staticmethod
    def refuse_outside(frame: PreparedFrame, pixels: Pixels) -> None:
        """Refuse pixels that are none of the image's.

        Raises:
            FrameRefusedError: One is outside.
        """
        size = (frame.camera.width, frame.camera.height)
        outside = pixels[((pixels < 0) | (pixels >= size)).any(axis=1)]
        if len(outside):
            raise FrameRefusedError(
                "outside", f"pixel {tuple(outside[0].tolist())} is outside the image of {size[0]}x{size[1]}"
            )

    def cancel(self) -> None:
        """End a question that is under way in another thread as soon as may be."""
        self._estimator.engine.cancel()

    def forget(self) -> None:
        """Forget the frames so far, whose stamps mean nothing now, and end what is asked of one; in any thread."""
        self._since = time.monotonic()
        self._prepared = deque(maxlen=PREPARED)
        self.cancel()

    def _is_of_another_time(self, pair: Pair) -> bool:
        return pair.arrived < self._since

    def prepare(self, pair: Pair, stream: StreamConfig) -> PreparedFrame:
        """Decode, rectify and resize a frame, or return what was prepared of it before.

        Args:
            pair: The frame.
            stream: How old it may be, and how far ahead its stamp.

        Raises:
            FrameRefusedError: The frame cannot be asked; it says why.
        """
        if self._is_of_another_time(pair):
            raise FrameRefusedError("clock_jump", _JUMPED)
        age, max_age_s, max_ahead_s = self._age_s(pair.header), stream.max_age_s, stream.max_ahead_s
        if age > max_age_s:
            raise FrameRefusedError(
                "stale",
                f"the frame is {age:.3f} s old, more than stream.max_age_s ({max_age_s:g} s): check the clocks, "
                "set use_sim_time with a simulator or a bag, ask fewer pixels, or use a faster engine",
            )
        if age < -max_ahead_s - self._step_s():
            raise FrameRefusedError(
                "future",
                f"the frame's stamp lies {-age:.3f} s ahead of this node's clock, more than stream.max_ahead_s "
                f"({max_ahead_s:g} s): check the clocks; with use_sim_time, is /clock published?",
            )
        for known, prepared in self._prepared:
            if known is pair:
                return prepared
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
        self._prepared.append((pair, frame))
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


def _same_calibration(a: CameraInfo, b: CameraInfo) -> bool:
    names = ("width", "height", "distortion_model", "binning_x", "binning_y", "roi")
    return all(getattr(a, n) == getattr(b, n) for n in names) and all(
        np.array_equal(getattr(a, n), getattr(b, n)) for n in ("k", "d", "r", "p")
    )
