"""Our procedure, timed: the ordinary estimator and engine, with a clock around what they call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from depthlm_ros.bench.clock import StageClock, Watch
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.config import CameraConfig
from depthlm_ros.engines.base import Answer, Prompt
from depthlm_ros.engines.transformers import TransformersEngine
from depthlm_ros.estimator import DepthEstimator, PreparedFrame
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.images import read_image
from depthlm_ros.profile import CheckpointProfile

_MAX_MEGAPIXELS = CameraConfig().max_megapixels


class WatchedEngine(TransformersEngine):
    """The ``transformers`` engine, whose model can be watched from outside and whose calls are timed."""

    clock: StageClock | None = None
    """Where the time goes to; None lets it pass."""
    tokens = 0
    """Tokens decoded since this was last set to 0."""

    def __enter__(self) -> WatchedEngine:
        """Start; see :class:`~depthlm_ros.engines.base.VlmEngine`."""
        super().__enter__()
        encoder: Any = self._encoder
        # On the object itself: whatever part of the engine holds it, its work is the stage ``process``.
        encoder.encode, encoder.batch = self._timed(encoder.encode), self._timed(encoder.batch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; see :class:`~depthlm_ros.engines.base.VlmEngine`."""
        super().__exit__(kind, error, trace)

    def _timed(self, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def timed(given: Any) -> Any:
            if self.clock is None:
                return work(given)
            with self.clock.stage("process"):
                return work(given)

        return timed

    @property
    def model(self) -> Any:
        """The running model."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        assert self._encoder is not None
        return self._encoder.tokenizer

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        deadline: float | None = None,
    ) -> list[Answer]:
        """See :class:`~depthlm_ros.engines.base.VlmEngine`; what comes before is ``mark``, what follows ``parse``."""
        if self.clock is None:
            return super().generate(prompts, max_new_tokens=max_new_tokens, stop=stop, deadline=deadline)
        self.clock.end()
        with self.clock.stage("engine"):
            answers = super().generate(prompts, max_new_tokens=max_new_tokens, stop=stop, deadline=deadline)
        self.clock.begin("parse")
        self.tokens += sum(len(answer.tokens) for answer in answers)
        return answers


class OurProcedure:
    """A checkpoint, asked as the node asks.

    Args:
        engine: A started engine.
        profile: How the checkpoint is asked: ``marker`` or ``text``.
        watch: The watch on the engine's model.
    """

    def __init__(self, engine: WatchedEngine, profile: CheckpointProfile, watch: Watch) -> None:
        self.engine, self.watch = engine, watch
        self.estimator = DepthEstimator(engine, profile)

    def ask(
        self, path: Path, camera: PinholeCamera, pixels: Sequence[tuple[int, int]], clock: StageClock
    ) -> tuple[SparseDepth, PreparedFrame]:
        """Answers of one frame.

        Args:
            path: The image file, as the camera gave it.
            camera: Its calibration.
            pixels: Source pixels (u, v) of the rectified image.
            clock: Where the time goes to.
        """
        with clock.stage("decode_image"):
            image = read_image(path, max_megapixels=_MAX_MEGAPIXELS)
        with clock.stage("resize"):
            frame = self.estimator.prepare(image, camera)
        # The estimator itself says how much of that was rectifying.
        rectify = min(frame.seconds["rectify"], clock.seconds["resize"])
        clock.seconds["resize"] -= rectify
        clock.seconds["rectify"] += rectify
        self.engine.clock = self.watch.clock = clock
        clock.begin("mark")
        try:
            sparse = self.estimator.ask(frame, pixels)
        finally:
            clock.end()
            self.engine.clock = self.watch.clock = None
        return sparse, frame
