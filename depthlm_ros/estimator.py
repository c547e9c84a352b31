"""DepthLM in one page: rectify, resize to the canonical focal length, point, ask, read the metres."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depthlm_ros.answers import AnswerStatus, ParsedAnswer, number_probability, parse_answer
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.canonical import CanonicalError, CanonicalView
from depthlm_ros.certainty import calibrated, relative_certainty
from depthlm_ros.config import SamplingConfig
from depthlm_ros.engines.base import Answer, EngineError, Finish, RgbImage, VlmEngine
from depthlm_ros.geometry import SparseDepth, z_per_metre_of_range
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.prompting import askable, prompt_for
from depthlm_ros.sampling import Pixels, sample_pixels, unique_pixels


@dataclass(frozen=True, eq=False)
class PreparedFrame:
    """A frame whose image work is done, ready for any number of queries.

    Attributes:
        camera: The camera of ``source``.
        source: The rectified source image, shape (H, W, 3), uint8, RGB.
        view: The canonical view of it.
        profile: What the checkpoint that it was made for was trained with.
        seconds: Time spent per stage so far.
    """

    camera: PinholeCamera
    source: RgbImage
    view: CanonicalView
    profile: CheckpointProfile
    seconds: dict[str, float]

    def targets(self, uv: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The canonical pixels that the model is asked about for source pixels (shape (..., 2))."""
        # The view's size is rounded down, so that the last source column or row can fall one pixel behind it.
        xy: npt.NDArray[np.int64] = np.minimum(self.view.to_canonical(uv), np.asarray(self.view.size) - 1)
        return xy

    def askable(self, uv: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which source pixels (shape (..., 2)) are visible and can be pointed at as the checkpoint wants it."""
        can = askable(self.targets(uv), self.view.size, self.profile)
        return np.asarray(can & self.camera.visible(uv), dtype=np.bool_)


class DepthEstimator:
    """Metric depth at sparse pixels of an image, from a vision-language model (DepthLM, Cai et al.)."""

    def __init__(
        self, engine: VlmEngine, profile: CheckpointProfile, *, max_megapixels: float = 50.0
    ) -> None:
        """Join an engine with the profile of its checkpoint.

        Args:
            engine: A started engine.
            profile: What the checkpoint was trained with.
            max_megapixels: Larger images, also after the resize, are refused.
        """
        self.engine = engine
        self.profile = profile
        self._max_pixels = max_megapixels * 1e6

    def prepare(self, image: RgbImage, camera: PinholeCamera) -> PreparedFrame:
        """Do a frame's image work: rectify, and resize to the canonical focal length.

        Args:
            image: The image as the camera gave it, shape (H, W, 3), uint8, RGB.
            camera: Its calibration.

        Raises:
            CameraError: The image's size is not the calibration's.
            CanonicalError: The image is too large, or becomes so.
        """
        if camera.width * camera.height > self._max_pixels:
            raise CanonicalError(
                f"a {camera.width}x{camera.height} image has more than {self._max_pixels:g} pixels: reduce it, or "
                "raise camera.max_megapixels"
            )
        started = time.monotonic()
        source = camera.rectify(image)
        rectified = time.monotonic()
        view = CanonicalView(
            source,
            camera.fx,
            camera.fy,
            self.profile.canonical_focal_px,
            patch_grid_px=self.profile.patch_grid_px,
            max_pixels=self._max_pixels,
        )
        seconds = {"rectify": rectified - started, "resize": time.monotonic() - rectified}
        return PreparedFrame(camera, source, view, self.profile, seconds)

    def sample(self, frame: PreparedFrame, config: SamplingConfig) -> Pixels:
        """Choose the pixels to ask, shape (N, 2)."""
        return sample_pixels(config, frame.source, frame.askable)

    def ask(
        self, frame: PreparedFrame, pixels: npt.ArrayLike, *, deadline: float | None = None
    ) -> SparseDepth:
        """Ask the model for the depth at pixels of a prepared frame.

        Args:
            frame: The frame.
            pixels: Source pixels as (u, v), shape (N, 2); repeated ones are asked once.
            deadline: ``time.monotonic()`` seconds after which no further batch is begun.

        Returns:
            One entry per distinct pixel, in the order in which they first came; ``.at(pixels)`` of it has one per
            pixel given. A pixel that could not be asked, or whose answer is not a number of metres, is NaN with
            its status.

        Raises:
            EngineError: The engine as a whole failed.
        """
        uv = unique_pixels(pixels)
        asked = frame.askable(uv) if len(uv) else np.zeros(0, dtype=np.bool_)
        started = time.monotonic()
        prompts = [
            prompt_for(frame.view.image, int(x), int(y), self.profile) for x, y in frame.targets(uv)[asked]
        ]
        answers: list[Answer] = []
        if prompts:
            answers = self.engine.generate(
                prompts,
                max_new_tokens=self.profile.max_new_tokens,
                stop=self.profile.stop if self.profile.prompt_prefix else (),
                deadline=deadline,
            )
        if len(answers) != len(prompts):
            raise EngineError(
                f"{self.engine.model_name} gave {len(answers)} answers to {len(prompts)} prompts"
            )
        seconds = {**frame.seconds, "engine": time.monotonic() - started}
        return self._collect(frame, uv, asked, answers, seconds)

    def unasked(self, frame: PreparedFrame, pixels: npt.ArrayLike, status: AnswerStatus) -> SparseDepth:
        """Entries of pixels that are not asked for a reason of the caller's: NaN, with that status.

        Args:
            frame: The frame.
            pixels: Source pixels as (u, v), shape (N, 2), none twice.
            status: Why; a pixel that could not have been asked is ``UNDRAWABLE`` all the same.
        """
        uv = unique_pixels(pixels)
        asked = frame.askable(uv) if len(uv) else np.zeros(0, dtype=np.bool_)
        nothing = self._collect(frame, uv, np.zeros(len(uv), dtype=np.bool_), [], dict(frame.seconds))
        nothing.status[asked] = status
        return nothing

    def _collect(
        self,
        frame: PreparedFrame,
        uv: Pixels,
        asked: npt.NDArray[np.bool_],
        answers: list[Answer],
        seconds: dict[str, float],
    ) -> SparseDepth:
        depth, sigma, confidence, certainty = (np.full(len(uv), np.nan, dtype=np.float32) for _ in range(4))
        status = np.full(len(uv), AnswerStatus.UNDRAWABLE, dtype=np.uint8)
        for index, answer in zip(np.flatnonzero(asked), answers, strict=True):
            parsed: ParsedAnswer = parse_answer(answer, self.profile)
            status[index], depth[index] = parsed.status, parsed.metres
            scored = number_probability(answer, parsed), parsed.metres, parsed.step_m
            certainty[index] = relative_certainty(*scored)
            confidence[index], sigma[index] = calibrated(*scored, self.profile.calibration)
        if self.profile.depth_convention == "range":
            cosine = z_per_metre_of_range(uv, frame.camera).astype(np.float32)
            depth *= cosine
            sigma *= cosine
        columns = np.clip(uv[:, 0], 0, frame.camera.width - 1)
        rows = np.clip(uv[:, 1], 0, frame.camera.height - 1)
        return SparseDepth(
            pixels=uv,
            depth=depth,
            sigma=sigma,
            confidence=confidence,
            certainty=certainty,
            status=status,
            rgb=frame.source[rows, columns],
            camera=frame.camera,
            model=self.engine.model_name,
            seconds=seconds,
            error=next((answer.error for answer in answers if answer.finish is Finish.ERROR), ""),
        )
