"""Starts the engine in a thread of its own, so that a shutdown need not wait for a model to load."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

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
        """Load and start the engine.

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
        while True:
            try:
                self.estimator = loaded.result(0.1)
                return
            except FutureTimeoutError:
                if closing.is_set():
                    raise EngineError("the node was stopped while the engine was loading") from None

    def _load(self, config: DepthLMConfig, loaded: Future[DepthEstimator]) -> None:
        try:
            loaded.set_result(self._stack.enter_context(open_estimator(config)))
        except BaseException as error:
            loaded.set_exception(error)

    def close(self, *, wait: bool) -> None:
        """Stop the engine and free its memory.

        Args:
            wait: Whether to wait; else a thread does it once the engine's last batch has ended.
        """
        if wait:
            self._stack.close()
        else:
            threading.Thread(target=self._stack.close, daemon=True, name="depthlm_free").start()
