"""From a configuration to a running estimator, alike for the command line, the evaluation and the node."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.config import DepthLMConfig
from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.factory import create_engine, resolve_checkpoint
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import load_profile
from depthlm_ros.profile_fit import foreign_profile

_LOG = logging.getLogger(__name__)


@contextmanager
def open_estimator(config: DepthLMConfig, *, warm: bool = False) -> Iterator[DepthEstimator]:
    """Start the configured engine and give an estimator that uses it until the ``with`` block ends.

    Args:
        config: The whole configuration; ``engine`` and ``camera.max_megapixels`` are used.
        warm: Ask one question before the ``with`` block begins, so that the first real one is not the slow one.

    Yields:
        An estimator whose engine runs.

    Raises:
        EngineError: The engine cannot start, or fails on the first question; the message says what to do.
        ProfileError: The checkpoint has no profile, or one that is not supported.
    """
    # The profile is read first: a mistake in it shows before minutes are spent on loading a model.
    checkpoint = resolve_checkpoint(config.engine)
    profile = load_profile(checkpoint, config.engine.profile)
    # A server's model is not the one in this directory.
    if config.engine.name != "openai" and (warning := foreign_profile(checkpoint, config.engine.profile)):
        _LOG.warning("%s", warning)
    with create_engine(config.engine) as engine:
        estimator = DepthEstimator(engine, profile, max_megapixels=config.camera.max_megapixels)
        if warm:
            warm_up(estimator)
        yield estimator


def warm_up(estimator: DepthEstimator) -> None:
    """Ask about a grey image, the whole way from the pixels to the answer; what the answer says does not matter.

    Raises:
        EngineError: The engine fails on it.
    """
    width, height = 160, 120
    focal = estimator.profile.canonical_focal_px
    camera = PinholeCamera.from_intrinsics(focal, focal, width / 2, height / 2, width, height)
    frame = estimator.prepare(np.full((height, width, 3), 128, np.uint8), camera)
    sparse = estimator.ask(frame, [(width // 2, height // 2)])
    if sparse.status[0] == AnswerStatus.ENGINE_ERROR:
        raise EngineError(
            f"{estimator.engine.model_name} started, but failed on a first question: {sparse.error}"
        )
