"""A fake engine with a gate, for tests of whose turn it is, a node that runs it, and clients that the node knows."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from graph import Bench
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from toy_node import PROFILE, inside

from depthlm_ros.engines.base import Answer, Prompt
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.ros.node import DepthLMNode
from depthlm_ros.srv import QueryDepth

_NAMES = (f"/gated_{n}" for n in itertools.count())


class Gated(FakeEngine):
    """Answers 1 m and a centimetre per canonical column; waits while the gate is shut.

    Attributes:
        calls: How many prompts each call brought, from the moment it began.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(self.say, **kwargs)
        self.gate, self.calls = threading.Event(), list[int]()
        self.gate.set()

    @staticmethod
    def say(prompt: Prompt) -> str:
        return f" {1.0 + target(prompt)[0] / 100:.2f} meters"

    def generate(self, prompts: Sequence[Prompt], **kwargs: Any) -> list[Answer]:
        self.calls.append(len(prompts))
        assert self.gate.wait(60.0)
        return super().generate(prompts, **kwargs)


def target(prompt: Prompt) -> tuple[int, int]:
    """The canonical pixel that a prompt points at: one to the right of the arrow's tip."""
    paint = prompt.images[0].paint
    assert paint is not None
    return (max(x for x, _ in paint.xy) + 1, paint.xy[0][1])


def depth_at(u: int) -> float:
    """What the engine says of a column of the source image, which is twice as wide as the canonical view."""
    return 1.0 + (u // 2) / 100


@contextmanager
def gated_node(
    engine: Gated, monkeypatch: pytest.MonkeyPatch, profile: Any = PROFILE, **parameters: Any
) -> Iterator[tuple[DepthLMNode, Bench]]:
    """An active node that has answered a frame and is at rest, and a bench; a frame is two pixels, unless told.

    Args:
        engine: Answers; its calls are those from now on.
        monkeypatch: Puts it in place of the configured one.
        profile: How the fake checkpoint was trained.
        **parameters: The node's, with two underscores for a dot.
    """
    usual = {"sampling__columns": 2, "sampling__rows": 1, "stream__query_timeout_s": 60.0}
    with inside(engine, monkeypatch, next(_NAMES), profile, **{**usual, **parameters}) as (node, bench):
        bench.send_until_answered()
        rest(engine, node, bench)
        yield node, bench


def rest(engine: Gated, node: DepthLMNode, bench: Bench) -> None:
    """Wait until nothing is under way, and forget the calls so far."""
    bench.wait(lambda: node.worker is not None and not node.worker._has_work())
    engine.calls.clear()


def hold(engine: Gated, bench: Bench, image: Image | None = None) -> Header:
    """Shut the gate and send a frame; returns its header once its first chunk waits at the gate."""
    engine.gate.clear()
    before, header = len(engine.calls), bench.send(image)
    bench.wait(lambda: len(engine.calls) == before + 1)
    return header


def clients(bench: Bench, count: int, kind: Any = QueryDepth, name: str = "query_depth") -> list[Any]:
    """Clients that the node knows: its first response is lost where it has not discovered its reader yet."""
    made = [
        bench.create_client(kind, f"depthlm/{name}", qos_profile=QoSProfile(depth=100)) for _ in range(count)
    ]
    for client in made:
        bench.wait(client.service_is_ready)
        futures = []

        def refused(client: Any = client, futures: list[Any] = futures) -> bool:
            futures.append(client.call_async(kind.Request(timeout_s=-1.0)))
            bench.spin(0.1)
            return any(future.done() for future in futures)

        bench.wait(refused)
    return made
