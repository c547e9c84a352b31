"""What the services have in common: a place to wait, the worker between frames, and refusals in words."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy

from depthlm_ros.config import StreamConfig
from depthlm_ros.engines.base import EngineError
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.messages import time_ns
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair
from depthlm_ros.ros.recent import HISTORY, KEPT, RecentFrames
from depthlm_ros.ros.shared_queries import Measured, Query, SharedQueries
from depthlm_ros.ros.shared_questions import Answered, Question, SharedQuestions
from depthlm_ros.ros.worker import NewestFirstWorker
from depthlm_ros.spatial.request import SpatialRequest

MAX_WAITING = 64
"""Each waiting request occupies a thread of the executor; further ones are refused, so the stream goes on."""

_QOS = QoSProfile(depth=2 * MAX_WAITING, reliability=QoSReliabilityPolicy.RELIABLE)
"""The default of ten would lose requests that come at once, and their callers would wait for ever."""

DEACTIVATED = "the node was deactivated before it answered"
"""What whoever waits is told then."""

_GRACE_S = 2.0
"""What a caller waits beyond the deadline for the chunk that is being asked; then it gets what is answered."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Serving:
    """What a request is answered with, as it stands when the request comes.

    Attributes:
        worker: Runs the question; None while the node is not active.
        pipeline: Answers it; None while the node is not configured.
        frames: The frames that were seen last.
        stream: Age limit and time that a question may take.
        queries: Measures pixels for several callers at once; None while the node is not active.
        questions: Has the model answer several callers at once; None while the node is not active.
    """

    worker: NewestFirstWorker[Pair] | None
    pipeline: FramePipeline | None
    frames: RecentFrames
    stream: StreamConfig
    queries: SharedQueries | None
    questions: SharedQuestions | None


class ServiceDesk:
    """Lets the requests of all services wait for the node's worker; none of them can end the node."""

    def __init__(self, health: Health, serving: Callable[[], Serving]) -> None:
        """Open the desk.

        Args:
            health: Logs what went wrong inside.
            serving: What to answer with now.
        """
        self._health, self._serving = health, serving
        self._places = threading.Semaphore(MAX_WAITING)

    def serve(self, name: str, response: Any, work: Callable[[Serving], None]) -> Any:
        """Answer one request.

        Args:
            name: The service, for the log.
            response: Gets ``success`` and, where the request is refused, ``message``.
            work: Fills the response, or raises with a sentence that says what is wrong.

        Returns:
            The response.
        """
        if not self._places.acquire(blocking=False):
            response.success = False
            response.message = f"{MAX_WAITING} queries wait already: ask again, or ask several pixels at once"
            return response
        try:
            work(self._serving())
            response.success = True
        except (FrameRefusedError, EngineError, ValueError) as error:
            response.success, response.message = False, str(error)
        except Exception as error:
            # An exception that leaves a service callback ends the process; none may.
            self._health.say("query", f"{name} failed: {type(error).__name__}: {error}")
            response.success, response.message = False, f"internal error: {type(error).__name__}: {error}"
        finally:
            self._places.release()
        return response


class Service(ABC):
    """A service of the node whose requests wait at the desk.

    Attributes:
        kind: The service type.
        name: Its name, relative or private.
    """

    kind: ClassVar[Any]
    name: ClassVar[str]

    def __init__(self, node: Node, group: CallbackGroup, health: Health, desk: ServiceDesk) -> None:
        """Offer the service.

        Args:
            node: Offers it.
            group: A reentrant group: a request waits for its answer.
            health: Counts what became of the requests.
            desk: Where requests wait.
        """
        self._health, self._desk = health, desk
        node.create_service(self.kind, self.name, self._on_request, callback_group=group, qos_profile=_QOS)

    def _on_request(self, request: Any, response: Any) -> Any:
        return self._desk.serve(self.name, response, lambda serving: self._answer(request, response, serving))

    @abstractmethod
    def _answer(self, request: Any, response: Any, serving: Serving) -> None:
        """Fill the response through the worker, between frames, or raise with a sentence that says what is wrong."""


def timeout_of(timeout_s: float, serving: Serving) -> float:
    """The seconds that a request may take; 0 means the node's own.

    Raises:
        ValueError: The time makes no sense.
    """
    timeout = timeout_s or serving.stream.query_timeout_s
    if not (np.isfinite(timeout) and 0.0 < timeout <= 3600.0):
        raise ValueError(f"timeout_s: expected 0 (the node's own) to 3600 s, got {timeout}")
    return timeout


def require_newest(serving: Serving) -> Pair:
    """The newest frame.

    Raises:
        ValueError: The node is not active, or has seen none.
    """
    if serving.worker is None or serving.pipeline is None:
        raise ValueError("the node is not active: activate it (ros2 lifecycle set, or lifecycle.autostart)")
    newest = serving.frames.newest
    if newest is None:
        raise ValueError("no frame has arrived yet: check the image and camera_info topics")
    return newest


def answer_between_frames(
    serving: Serving, timeout: float, question: Callable[[FramePipeline, float], Result]
) -> Result:
    """Run a question in the worker and wait for its result.

    Args:
        serving: Of an active node.
        timeout: Seconds that it may take.
        question: Asked with the pipeline and the deadline (``time.monotonic()`` seconds).

    Raises:
        ValueError: The node was deactivated, or the time is up.
    """
    worker, pipeline = serving.worker, serving.pipeline
    if worker is None or pipeline is None:
        raise ValueError(DEACTIVATED)
    deadline = time.monotonic() + timeout
    return _wait(worker.ask(lambda: question(pipeline, deadline)), timeout, deadline)


def measure(serving: Serving, pixels: np.ndarray, pair: Pair | None, timeout: float) -> Measured:
    """Have pixels measured together with those of other callers, and wait for it.

    Args:
        serving: Of an active node.
        pixels: Source pixels, shape (N, 2).
        pair: The frame; None means the newest.
        timeout: Seconds that it may take.

    Raises:
        FrameRefusedError: The frame cannot be asked, or not there.
        EngineError: The engine as a whole failed.
        ValueError: The node was deactivated, or the time is up and nothing was answered.
    """
    (measured,) = measure_all(serving, [(pixels, pair)], timeout, time.monotonic() + timeout)
    return measured


def measure_all(
    serving: Serving, wanted: Sequence[tuple[np.ndarray, Pair | None]], timeout: float, deadline: float
) -> list[Measured]:
    """Have pixels of several frames measured, in turns with those of other callers, and wait for all.

    Args:
        serving: Of an active node.
        wanted: Source pixels, shape (N, 2), with their frame; None means the newest.
        timeout: Seconds that the request may take.
        deadline: When they are over (``time.monotonic()`` seconds).

    Raises:
        As for ``measure``, where one of the frames fails.
    """
    queries = serving.queries
    if queries is None:
        raise ValueError(DEACTIVATED)
    asked = [Query(pair, deadline, serving.stream, pixels) for pixels, pair in wanted]
    for query in asked:
        queries.ask(query)
    try:
        return [_wait(query.result, timeout, deadline, partial(queries.hand_over, query)) for query in asked]
    finally:
        for query in asked:
            query.result.cancel()  # of no use alone, where another one failed


def answer_by_model(serving: Serving, request: SpatialRequest, pair: Pair | None, timeout: float) -> Answered:
    """Have the model answer a question about one frame together with those of other callers, and wait for it.

    Args:
        serving: Of an active node.
        request: A question of a task that the model was trained for.
        pair: The frame; None means the newest.
        timeout: Seconds that it may take.

    Raises:
        FrameRefusedError: The frame cannot be asked, or not there.
        EngineError: The engine as a whole failed.
        ValueError: The node was deactivated, or the time is up.
    """
    if serving.questions is None:
        raise ValueError(DEACTIVATED)
    question = Question(pair, time.monotonic() + timeout, serving.stream, request)
    serving.questions.ask(question)
    return _wait(question.result, timeout, question.deadline)


def named_frame(field: str, stamp: Time, frames: RecentFrames) -> Pair | None:
    """The kept frame of a stamp; None for stamp zero.

    Raises:
        ValueError: No such frame is kept.
    """
    wanted = time_ns(stamp)
    pair = frames.find(wanted) if wanted else None
    if wanted and pair is None:
        raise ValueError(
            f"{field}: no frame of {stamp.sec}.{stamp.nanosec:09d} is kept: name the newest, or one of the last "
            f"{KEPT} that ~/sparse_depth answered within {HISTORY:.0%} of stream.max_age_s, or leave it zero"
        )
    return pair


def _wait(
    future: Future[Result], timeout: float, deadline: float, over: Callable[[], None] = lambda: None
) -> Result:
    """Wait for a result; when the time is over, ``over`` may still make one of what there is."""
    try:
        return future.result(max(deadline - time.monotonic(), 0.0) + _GRACE_S)
    except CancelledError:
        raise ValueError(DEACTIVATED) from None
    except FutureTimeoutError as error:
        over()
        if future.done() and not future.cancelled():
            return future.result()
        future.cancel()
        raise no_answer_within(timeout) from error


def no_answer_within(timeout: float) -> ValueError:
    """What a caller is told of whom nothing was answered in its time."""
    return ValueError(f"no answer within {timeout:g} s: allow more time or ask fewer pixels")


def pixels_of(u: Any, v: Any) -> np.ndarray:
    """The pixels of a request, shape (N, 2), int64.

    Raises:
        ValueError: Their coordinates are not of one length.
    """
    columns, rows = np.asarray(u, np.int64), np.asarray(v, np.int64)
    if len(columns) != len(rows):
        raise ValueError(f"u and v must have one length, got {len(columns)} and {len(rows)}")
    return np.stack([columns, rows], axis=1)
