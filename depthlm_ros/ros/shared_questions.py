"""Spatial questions that the model answers itself: those of one task about one frame go to the engine together."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from depthlm_ros.ros.pipeline import FrameRefusedError, Pair
from depthlm_ros.ros.shared import Shared, Wish
from depthlm_ros.spatial.request import SpatialAnswer, SpatialRequest


@dataclass(frozen=True, eq=False)
class Answered:
    """What a caller gets.

    Attributes:
        pair: The frame that was asked.
        answer: The answer.
    """

    pair: Pair
    answer: SpatialAnswer


@dataclass(eq=False)
class Question(Wish[Answered]):
    """A spatial question about one frame.

    Attributes:
        request: What is asked.
    """

    request: SpatialRequest

    @property
    def kind(self) -> Hashable:
        """The tasks differ in the words that end an answer, which a call has in common."""
        return self.request.task


class SharedQuestions(Shared[Question]):
    """Has the worker ask waiting questions, those of one task about one frame in one turn."""

    def _do(self, pair: Pair, group: list[Question]) -> None:
        stream = group[0].stream
        frame = self._pipeline.prepare(pair, stream)
        asking = []
        for question in group:
            pixels = np.asarray(question.request.pixels, dtype=np.int64).reshape(-1, 2)
            try:
                self._pipeline.refuse_outside(frame, pixels)
            except FrameRefusedError as error:
                question.fail(error)
            else:
                asking.append(question)
        asking = asking[: stream.chunk_points]
        if not asking:
            return
        last = max(question.deadline for question in asking)
        deadline = self._pipeline.useful_until(pair, stream, last)
        requests = [question.request for question in asking]
        answers = self._pipeline.ask_all(frame, requests, deadline=deadline)
        if self._worker.stopping:
            return
        self._pipeline.refuse_late(pair, stream)
        for question, answer in zip(asking, answers, strict=True):
            question.tell(Answered(pair, answer))
