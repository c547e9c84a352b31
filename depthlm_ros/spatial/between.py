"""How the camera moved between two frames, computed from the depths of points that both show."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.estimator import PreparedFrame
from depthlm_ros.geometry import SparseDepth, rays
from depthlm_ros.spatial.derive import normal_confidence
from depthlm_ros.spatial.matching import LEAST_MATCHES, Matches, match_images, spread
from depthlm_ros.spatial.pose import Points, estimate_motion
from depthlm_ros.spatial.request import SpatialAnswer, SpatialRequest, SpatialStatus, without_value
from depthlm_ros.spatial.tasks import TASKS

MOST_POINTS = 24
"""Depth queries per image for a camera motion."""


@dataclass(frozen=True, eq=False)
class SharedPoints:
    """Points that two frames show, and that can be asked in both.

    Attributes:
        frames: The frames, the earlier one first.
        matches: Where the points are in each.
    """

    frames: tuple[PreparedFrame, PreparedFrame]
    matches: Matches

    @classmethod
    def of(cls, first: PreparedFrame, second: PreparedFrame) -> SharedPoints:
        """Match two frames; asks nothing.

        Args:
            first: The earlier frame.
            second: The later one.
        """
        matches = match_images(first.source, second.source, first.camera, second.camera)
        matches = matches.take(
            first.askable(_whole(matches.first, first)) & second.askable(_whole(matches.second, second))
        )
        return cls((first, second), spread(matches, first.camera.width, MOST_POINTS))

    @property
    def enough(self) -> bool:
        """Whether they are worth asking."""
        return len(self.matches) >= LEAST_MATCHES

    @property
    def pixels(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The source pixels to ask in each frame, shape (N, 2); the same one may come twice."""
        first, second = self.frames
        return _whole(self.matches.first, first), _whole(self.matches.second, second)

    def motion(
        self, request: SpatialRequest, before: SparseDepth | None = None, after: SparseDepth | None = None
    ) -> SpatialAnswer:
        """The camera's motion, or why there is none.

        Args:
            request: Of a camera motion.
            before: Holds the pixels of the earlier frame; None where the points are not enough to be asked.
            after: Holds those of the later one; likewise.
        """
        count = len(self.matches)
        if before is None or after is None:
            why = (
                f"expected {LEAST_MATCHES} or more points that both images show, found {count}: take images with "
                "more texture and more overlap"
            )
            return replace(without_value(request, True, SpatialStatus.FEW_MATCHES, why), matches=count)
        before, after = (
            depths.at(pixels) for depths, pixels in zip((before, after), self.pixels, strict=True)
        )
        found = estimate_motion(
            _points(self.frames[0], self.matches.first, before),
            _points(self.frames[1], self.matches.second, after),
        )
        if not (before.answered.any() or after.answered.any()):
            failed = AnswerStatus(int(before.status[0]))
            why = f"no depth at any of {count} matched points: {failed.name.lower()} {before.error}".rstrip()
            answer = without_value(request, True, failed, why)
        elif found.status is not SpatialStatus.OK:
            answer = without_value(request, True, found.status, found.message)
        else:
            distance = found.motion.distance
            answer = SpatialAnswer(
                request,
                distance,
                TASKS[request.task].unit,
                True,
                SpatialStatus.OK,
                confidence=normal_confidence(distance, found.sigma),
                sigma=found.sigma,
                motion=found.motion,
            )
        return replace(
            answer, depths=(before, after), matches=count, inliers=found.inliers, model=before.model
        )


def _whole(points: npt.NDArray[np.float64], frame: PreparedFrame) -> npt.NDArray[np.int64]:
    last = (frame.camera.width - 1, frame.camera.height - 1)
    return np.asarray(np.clip(np.rint(points), 0, last), dtype=np.int64)


def _points(frame: PreparedFrame, positions: npt.NDArray[np.float64], depths: SparseDepth) -> Points:
    """The depths belong to whole pixels; the rays are those of the exact positions."""
    return Points(
        rays(positions, frame.camera), depths.depth.astype(np.float64), depths.sigma.astype(np.float64)
    )
