"""The service ``~/query_depth``: depth at the pixels that the caller names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from depthlm_ros.config import StreamConfig
from depthlm_ros.engines.base import EngineError
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.ros import messages
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair, matches
from depthlm_ros.ros.worker import NewestFirstWorker
from depthlm_ros.srv import QueryDepth

MAX_PIXELS = 4096
"""More pixels in one request are refused, so that one caller cannot keep the stream waiting for long."""


MAX_WAITING = 4
"""Each waiting request occupies a thread of the executor; further ones are refused, so the stream goes on."""

_GRACE_S = 2.0
"""What a caller waits beyond the deadline, in which the engine returns what it has."""


@dataclass(frozen=True, eq=False)
class Serving:
    """What a request is answered with, as it stands when the request comes.

    Attributes:
        worker: Runs the question; None while the node is not active.
        pipeline: Answers it; None while the node is not configured.
        newest: The newest frame; None before the first.
        stream: Age limit and time that a question may take.
    """

    worker: NewestFirstWorker[Pair] | None
    pipeline: FramePipeline | None
    newest: Pair | None
    stream: StreamConfig


class QueryService:
    """Answers requests through the node's worker, between frames."""

    def __init__(
        self, node: Node, group: CallbackGroup, health: Health, serving: Callable[[], Serving]
    ) -> None:
        """Offer the service.

        Args:
            node: Offers it.
            group: A reentrant group: a request waits for its answer.
            health: Counts the points.
            serving: What to answer with now.
        """
        self._health, self._serving = health, serving
        self._places = threading.Semaphore(MAX_WAITING)
        node.create_service(QueryDepth, "~/query_depth", self._on_request, callback_group=group)

    def _on_request(self, request: QueryDepth.Request, response: QueryDepth.Response) -> QueryDepth.Response:
        if not self._places.acquire(blocking=False):
            response.success = False
            response.message = f"{MAX_WAITING} queries wait already: ask again, or ask several pixels at once"
            return response
        try:
            pair, sparse = self._answer(request)
        except (FrameRefusedError, EngineError, ValueError) as error:
            response.success, response.message = False, str(error)
            return response
        except Exception as error:
            # An exception that leaves a service callback ends the process; none may.
            self._health.say("query", f"~/query_depth failed: {type(error).__name__}: {error}")
            response.success, response.message = False, f"internal error: {type(error).__name__}: {error}"
            return response
        finally:
            self._places.release()
        response.success, response.message = True, ", ".join(f"{n} {k}" for k, n in sparse.reasons().items())
        latency = time.monotonic() - pair.arrived
        response.result = messages.sparse_depth(
            sparse, pair.header, latency_s=latency, counters=self._health.counters()
        )
        response.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in sparse.points()]
        return response

    def _answer(self, request: QueryDepth.Request) -> tuple[Pair, SparseDepth]:
        now = self._serving()
        worker, pipeline, pair, stream = now.worker, now.pipeline, now.newest, now.stream
        pixels = np.stack([np.asarray(request.u, np.int64), _as_long(request.v, len(request.u))], axis=1)
        timeout = request.timeout_s or stream.query_timeout_s
        if not len(pixels) or len(pixels) > MAX_PIXELS:
            raise ValueError(f"expected 1 to {MAX_PIXELS} pixels, got {len(pixels)}")
        if not (np.isfinite(timeout) and 0.0 < timeout <= 3600.0):
            raise ValueError(f"timeout_s: expected 0 (the node's own) to 3600 s, got {timeout}")
        if worker is None or pipeline is None:
            raise ValueError(
                "the node is not active: activate it (ros2 lifecycle set, or lifecycle.autostart)"
            )
        if pair is None:
            raise ValueError("no frame has arrived yet: check the image and camera_info topics")
        stamp = request.stamp.sec * 1_000_000_000 + request.stamp.nanosec
        if not matches(pair, stamp):
            raise ValueError("only the newest frame is kept; leave the stamp zero to ask it")
        deadline = time.monotonic() + timeout
        future = worker.ask(
            lambda: pipeline.query(pair, pixels, max_age_s=stream.max_age_s, deadline=deadline)
        )
        try:
            sparse = future.result(timeout + _GRACE_S)
        except CancelledError:
            raise ValueError("the node was deactivated before it answered") from None
        except FutureTimeoutError as error:
            future.cancel()
            raise ValueError(
                f"no answer within {timeout:g} s: allow more time or ask fewer pixels"
            ) from error
        self._health.asked_points(sparse)
        return pair, sparse.at(pixels)


def _as_long(values: object, length: int) -> np.ndarray:
    array = np.asarray(values, np.int64)
    if len(array) != length:
        raise ValueError(f"u and v must have one length, got {length} and {len(array)}")
    return array
