"""A clock that the test turns, and answers with given statuses."""

from __future__ import annotations

import numpy as np

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.geometry import SparseDepth

OK, UNDRAWABLE, NO_NUMBER = AnswerStatus.OK, AnswerStatus.UNDRAWABLE, AnswerStatus.NO_NUMBER


class Clock:
    """Stands for the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def sparse(*status: AnswerStatus) -> SparseDepth:
    count = len(status)
    numbers = np.where(np.array(status) == OK, 2.0, np.nan).astype(np.float32)
    return SparseDepth(
        pixels=np.stack([np.arange(count), np.arange(count)], axis=1),
        depth=numbers,
        sigma=numbers,
        confidence=numbers,
        status=np.array(status, np.uint8),
        rgb=np.zeros((count, 3), np.uint8),
        camera=PinholeCamera.from_intrinsics(10.0, 10.0, 3.5, 2.5, 8, 6),
        model="test",
    )
