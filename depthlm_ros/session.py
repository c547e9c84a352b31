"""From a configuration to a running estimator, alike for the command line, the evaluation and the node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from depthlm_ros.config import DepthLMConfig
from depthlm_ros.engines.factory import create_engine, resolve_checkpoint
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import load_profile


@contextmanager
def open_estimator(config: DepthLMConfig) -> Iterator[DepthEstimator]:
    """Start the configured engine and give an estimator that uses it until the ``with`` block ends.

    Args:
        config: The whole configuration; ``engine`` and ``camera.max_megapixels`` are used.

    Yields:
        An estimator whose engine runs.

    Raises:
        EngineError: The engine cannot start; the message says what to do.
        ProfileError: The checkpoint has no profile, or one that is not supported.
    """
    # The profile is read first: a mistake in it shows before minutes are spent on loading a model.
    profile = load_profile(resolve_checkpoint(config.engine), config.engine.profile)
    with create_engine(config.engine) as engine:
        yield DepthEstimator(engine, profile, max_megapixels=config.camera.max_megapixels)
