"""Starts the engine in a thread of its own, so that a shutdown need not wait for a model to load."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future, wait

from depthlm_ros.config import DepthLMConfig
from depthlm_ros.engines.base import EngineError
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.session import open_estimator


class LoadedEngine:
    """An estimator with its running engine, from configure to cleanup.

    Attributes:
        estimator: The estimator.
    """

    def __init__(self, config: DepthLMConfig, closing: threading.Event) -> None:
        """Load, start and warm the engine.

        Args:
            config: Which engine.
            closing: Set by another thread when the node is to end; loading is then given up.

        Raises:
            EngineError: The engine cannot start, or the node is closing.
            ProfileError: The checkpoint's profile is wrong.
        """
        self._stack = contextlib.ExitStack()
        loaded: Future[DepthEstimator] = Future()
        threading.Thread(target=self._load, args=(config, loaded), daemon=True, name="depthlm_load").start()
        # Not by the time-out of result(): its exception is the one of a socket that timed out while loading.
        while not wait((loaded,), 0.1).done:
            if closing.is_set():
                raise EngineError("the node was stopped while the engine was loading")
        self.estimator = loaded.result()

    def _load(self, config: DepthLMConfig, loaded: Future[DepthEstimator]) -> None:
        try:
            loaded.set_result(self._stack.enter_context(open_estimator(config, warm=True)))
        except Exception as error:
            loaded.set_exception(error)
        except BaseException as error:  # SystemExit would leave the transition without an end
            loaded.set_exception(EngineError(f"loading was ended by {type(error).__name__}: {error}"))

    def close(self, within_s: float | None = None) -> bool:
        """Stop the engine and free its memory.

        Args:
            within_s: How long to wait, in seconds; what is not done by then goes on in a thread of its own. None
                waits for the end.

        Returns:
            Whether it has ended.
        """
        if within_s is None:
            self._stack.close()
            return True
        freeing = threading.Thread(target=self._stack.close, daemon=True, name="depthlm_free")
        freeing.start()
        freeing.join(within_s)
        return not freeing.is_alive()
