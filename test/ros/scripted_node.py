"""The node as it is started by ``ros2 run``, with a scripted engine in place of a model.

What becomes of every frame is written to the named pipe ``DEPTHLM_TEST_VERDICTS``, a word a line, as the node counts
it: ``answered``, or the reason for which it was dropped; ``bad_stamp`` for every message of which there is no frame.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from test_fuzz import SAYINGS

from depthlm_ros.engines.base import Prompt
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.ros import loading, node
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.main import main

VERDICTS = os.open(os.environ["DEPTHLM_TEST_VERDICTS"], os.O_WRONLY)


class Told(Health):
    def answered_frame(self, *told: Any) -> None:
        super().answered_frame(*told)
        os.write(VERDICTS, b"answered\n")

    def dropped_frame(self, reason: str, explanation: str = "") -> None:
        super().dropped_frame(reason, explanation)
        os.write(VERDICTS, f"{reason}\n".encode())

    def bad_stamp(self, explanation: str) -> None:
        super().bad_stamp(explanation)
        os.write(VERDICTS, b"bad_stamp\n")


@contextmanager
def opened(_: Any, **__: Any) -> Iterator[DepthEstimator]:
    said = itertools.cycle(SAYINGS)

    def say(_: Prompt) -> Any:
        engine.prompts.clear()  # it keeps them all, which would count as the node's memory
        return next(said)

    with FakeEngine(say) as engine:
        yield DepthEstimator(engine, CheckpointProfile("test", canonical_focal_px=30.0, max_new_tokens=20))


if __name__ == "__main__":
    node.Health, loading.open_estimator = Told, opened
    main()
