"""Stand-in for ROS's ``message_filters``: subscribers and time synchronizers, the calls this project makes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import ROSClock
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.time import Time

__all__ = ["ApproximateTimeSynchronizer", "SimpleFilter", "Subscriber", "TimeSynchronizer"]


class SimpleFilter:
    """Something with an output that callbacks can be connected to."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:  # noqa: N802
        """Connects a callback.

        Args:
            cb: Called with the filter's output, then `args`.
            *args: Passed along with every call.

        Returns:
            The connection's number.
        """
        number = len(self.callbacks)
        self.callbacks[number] = (cb, args)
        return number

    def signalMessage(self, *msg: Any) -> None:  # noqa: N802
        """Hands an output to all callbacks."""
        for callback, args in list(self.callbacks.values()):
            callback(*msg, *args)


class Subscriber(SimpleFilter):
    """A subscription as a filter.

    Args:
        node: Owns the subscription.
        msg_type: Of the topic.
        topic: Its name.
        **kwargs: For `Node.create_subscription`; `qos_profile` is 10 unless given.
    """

    def __init__(self, node: Node, msg_type: type, topic: str, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        kwargs.setdefault("qos_profile", 10)
        self.sub = node.create_subscription(msg_type, topic, self.callback, *args, **kwargs)

    def callback(self, msg: Any) -> None:
        """Takes a message of the topic."""
        self.signalMessage(msg)

    def getTopic(self) -> str:  # noqa: N802
        """The topic's name as given."""
        return self.topic

    def __getattr__(self, key: str) -> Any:
        """What is not here is the subscription's."""
        if key == "sub":
            raise AttributeError(key)
        return getattr(self.sub, key)


class TimeSynchronizer(SimpleFilter):
    """Outputs sets of messages, one of each input, that have exactly the same stamp.

    Args:
        fs: The inputs.
        queue_size: How many messages of each input wait for the others; the oldest go first.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.lock = threading.Lock()
        # Messages by stamp, in nanoseconds.
        self.queues: list[dict[int, Any]] = [{} for _ in fs]
        self.input_connections = [
            source.registerCallback(self.add, queue, index)
            for index, (source, queue) in enumerate(zip(fs, self.queues, strict=True))
        ]

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int | None = None) -> None:
        """Takes a message of one input.

        Args:
            msg: The message, with a header.
            my_queue: That input's queue.
            my_queue_index: That input's number.
        """
        with self.lock:
            self._store(my_queue, Time.from_msg(msg.header.stamp).nanoseconds, msg)
            for stamp in sorted(set.intersection(*(set(queue) for queue in self.queues))):
                self._output([stamp] * len(self.queues))

    def _store(self, queue: dict[int, Any], stamp: int, msg: Any) -> None:
        queue[stamp] = msg
        while len(queue) > self.queue_size:
            del queue[min(queue)]

    def _output(self, stamps: Sequence[int]) -> None:
        self.signalMessage(*(queue.pop(stamp) for queue, stamp in zip(self.queues, stamps, strict=True)))


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Outputs sets of messages, one of each input, whose stamps differ by less than `slop`.

    Args:
        fs: The inputs.
        queue_size: How many messages of each input wait for the others; the oldest go first.
        slop: The difference that is too large, in seconds.
        allow_headerless: Give messages without a header the current ROS time, instead of dropping them.
    """

    def __init__(
        self, fs: Sequence[SimpleFilter], queue_size: int, slop: float, allow_headerless: bool = False
    ) -> None:
        super().__init__(fs, queue_size)
        self.slop_ns = round(slop * 1e9)
        self.allow_headerless = allow_headerless

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int | None = None) -> None:
        """Takes a message of one input; see the base class."""
        if hasattr(msg, "header") and hasattr(msg.header, "stamp"):
            new = Time.from_msg(msg.header.stamp).nanoseconds
        elif self.allow_headerless:
            new = ROSClock().now().nanoseconds
        else:
            get_logger("message_filters_approx").warning(
                f"a {type(msg).__name__} without a header was dropped: set allow_headerless to accept it"
            )
            return
        with self.lock:
            self._store(my_queue, new, msg)
            # Older than all that wait in a full queue: already gone again.
            if new not in my_queue:
                return
            nearest = [
                [new]
                if queue is my_queue
                else sorted(
                    (stamp for stamp in queue if abs(stamp - new) < self.slop_ns),
                    key=lambda stamp: abs(stamp - new),
                )
                for queue in self.queues
            ]
            for stamps in itertools.product(*nearest):
                if max(stamps) - min(stamps) < self.slop_ns:
                    self._output(stamps)
                    break
