"""In a node's place: publishers that keep what the node's outputs give them."""

from __future__ import annotations

from typing import Any


class Heard:
    """A publisher that keeps what it is given.

    Attributes:
        messages: What it was given.
        listeners: How many subscribe to it.
    """

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.listeners = 0

    def publish(self, message: Any) -> None:
        self.messages.append(message)

    def get_subscription_count(self) -> int:
        return self.listeners


class Publishers:
    """The part of a node that Outputs needs."""

    def __init__(self) -> None:
        self.topics: dict[str, Heard] = {}

    def create_lifecycle_publisher(self, kind: Any, topic: str, depth: int) -> Heard:
        return self.topics.setdefault(topic, Heard())

    def destroy_lifecycle_publisher(self, publisher: Any) -> None: ...
