"""The node inside of the test's process, so that its engine can be a fake one; everything else of it is real."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
import rclpy
from builtin_interfaces.msg import Time
from graph import FOCAL, OUTPUTS, Bench, image_message, info_message
from rclpy.executors import MultiThreadedExecutor
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.ros import loading
from depthlm_ros.ros.desk import MAX_WAITING
from depthlm_ros.ros.main import end_spin, spin
from depthlm_ros.ros.node import DepthLMNode
from depthlm_ros.ros.pipeline import Pair

PROFILE = CheckpointProfile("fake", canonical_focal_px=FOCAL / 2, max_new_tokens=20)

Result = TypeVar("Result")


def whole(turns: Generator[None, None, Result]) -> Result:
    """Run work that is done in turns to its end."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def pair_at(seconds: float, arrived: float) -> Pair:
    """A good pair of a stamp in seconds."""
    header = Header(stamp=Time(sec=int(seconds), nanosec=int(seconds % 1 * 1e9)), frame_id="optical")
    return Pair(image_message(header), info_message(header), arrived)


def met(node: DepthLMNode, bench: Bench) -> bool:
    """Whether an active node and a bench have discovered each other: what is published before that is lost."""
    wanted = {bench.resolve_topic_name(f"depthlm/{name}") for name in OUTPUTS}
    heard = {out.topic_name for out in node.publishers if out.get_subscription_count()}
    sent = bench.infos.get_subscription_count() and (
        bench.images.get_subscription_count() or bench.compressed.get_subscription_count()
    )
    return bool(sent) and wanted <= heard


@contextmanager
def inside(
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    namespace: str,
    profile: Any = PROFILE,
    **parameters: Any,
) -> Iterator[tuple[DepthLMNode, Bench]]:
    """An active node whose engine is the fake one, and a bench beside it.

    Args:
        engine: Answers.
        monkeypatch: Puts it in place of the configured one.
        namespace: Of the node and the bench.
        profile: How the fake checkpoint was trained.
        **parameters: The node's, with two underscores for a dot.
    """

    @contextmanager
    def opened(_: Any, **__: Any) -> Iterator[DepthEstimator]:
        with engine:
            yield DepthEstimator(engine, profile)

    monkeypatch.setattr(loading, "open_estimator", opened)
    context = rclpy.Context()
    rclpy.init(context=context)
    overrides = [Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()]
    node = DepthLMNode(context=context, namespace=namespace, parameter_overrides=overrides)
    executor = MultiThreadedExecutor(num_threads=4 + MAX_WAITING, context=context)
    executor.add_node(node)
    enough = threading.Event()
    spinning = threading.Thread(target=spin, args=(executor, enough), daemon=True)
    spinning.start()
    bench = Bench(namespace)
    try:
        node.trigger_configure()
        node.trigger_activate()
        bench.wait(lambda: met(node, bench))
        yield node, bench
    finally:
        bench.close()
        node.close()
        end_spin(executor, enough)
        spinning.join(5.0)
        executor.shutdown(timeout_sec=5.0)
        node.destroy_node()
        rclpy.try_shutdown(context=context)
