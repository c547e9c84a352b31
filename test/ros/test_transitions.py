"""A lifecycle transition that fails says why: in the log with its traceback, and in the diagnostics."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

import rclpy
from builtin_interfaces.msg import Time
from rclpy.lifecycle import TransitionCallbackReturn
from toy_node import PROFILE

from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.ros import loading
from depthlm_ros.ros.diagnostics import diagnostics
from depthlm_ros.ros.inputs import Inputs
from depthlm_ros.ros.node import DepthLMNode

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)
NAMES = (f"/transitions_{n}" for n in itertools.count())
MISSING = OSError("libcudnn.so.9: cannot open shared object file")


class Engine(FakeEngine):
    """Knows whether it was ended."""

    ended = False

    def __exit__(self, *raised: Any) -> None:
        self.ended = True


class Seen:
    """A node without an executor, its engine, and what it logs as errors."""

    def __init__(self, node: DepthLMNode, engine: Engine) -> None:
        self.node, self.engine, self.errors = node, engine, list[str]()
        logger = node.get_logger()

        class Recorder:
            error = self.errors.append
            info, warning = logger.info, logger.warning

        node.get_logger = Recorder  # type: ignore[method-assign]

    @property
    def state(self) -> str:
        """What the diagnostics call it."""
        return self.node._watched().state

    def engine_aspect(self) -> tuple[bytes, str]:
        array = diagnostics(self.node._watched(), Time())
        (status,) = (status for status in array.status if status.name.endswith(": engine"))
        return status.level, status.message


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    engine, context = Engine(lambda _: " 2.00 meters"), rclpy.Context()
    open_as(monkeypatch, engine)
    rclpy.init(context=context)
    node = DepthLMNode(context=context, namespace=next(NAMES))
    try:
        yield Seen(node, engine)
    finally:
        monkeypatch.undo()
        node.close()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def open_as(monkeypatch: pytest.MonkeyPatch, engine: Engine, raises: BaseException | None = None) -> None:
    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[DepthEstimator]:
        if raises is not None:
            raise raises
        with engine:
            yield DepthEstimator(engine, PROFILE)

    monkeypatch.setattr(loading, "open_estimator", opened)


def raising(error: Exception) -> Callable[..., Any]:
    def raise_it(*_: Any, **__: Any) -> Any:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MISSING, "OSError: libcudnn.so.9: cannot open shared object file"),
        (TimeoutError("a mirror said nothing"), "TimeoutError: a mirror said nothing"),
        (SystemExit(3), "loading was ended by SystemExit: 3"),
        (EngineError("there is no such model: name another"), "there is no such model: name another"),
    ],
)
def test_whatever_keeps_an_engine_from_starting_fails_configure_and_is_told(
    error: BaseException, says: str, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_as(monkeypatch, seen.engine, error)
    assert seen.node.trigger_configure() == FAILURE
    assert seen.state == "unconfigured"
    assert seen.engine_aspect()[1] == says
    (told,) = seen.errors
    assert told.splitlines()[0] == f"cannot configure: {says}"
    # A sentence for people needs no traceback; what nobody foresaw does, down to the line that raised it.
    assert ("Traceback" in told and "raise raises" in told) is not isinstance(error, EngineError | SystemExit)
    open_as(monkeypatch, seen.engine)
    assert seen.node.trigger_configure() == SUCCESS


def test_an_engine_that_runs_is_ended_when_configure_fails_after_it(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("depthlm_ros.ros.node.FramePipeline", raising(ValueError("bad")))
    assert seen.node.trigger_configure() == FAILURE
    assert seen.engine.ended
    assert seen.engine_aspect()[1] == "ValueError: bad"


@pytest.mark.parametrize("transition", ["activate", "deactivate", "cleanup", "shutdown"])
def test_an_exception_in_another_transition_is_told_and_leaves_nothing_running(
    transition: str, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, bad = seen.node, RuntimeError("no more memory")
    assert node.trigger_configure() == SUCCESS
    if transition == "activate":
        monkeypatch.setattr("depthlm_ros.ros.node.Inputs", raising(bad))
    elif transition == "deactivate":
        assert node.trigger_activate() == SUCCESS
        monkeypatch.setattr(Inputs, "close", raising(bad))
    elif transition == "cleanup":
        monkeypatch.setattr("depthlm_ros.ros.node.Outputs.destroy", raising(bad))
    else:
        monkeypatch.setattr("depthlm_ros.ros.clock.NodeClock.close", raising(bad))
    assert getattr(node, f"trigger_{transition}")() == ERROR
    assert seen.state == ("finalized" if transition == "shutdown" else "unconfigured")
    (told,) = seen.errors
    assert told.splitlines()[0] == f"{transition} failed: RuntimeError: no more memory"
    assert "raise_it" in told
    assert seen.engine_aspect()[1] == told.splitlines()[0]
    assert seen.engine.ended
    assert "depthlm_worker" not in [thread.name for thread in threading.enumerate()]
    assert node.failure is None, "it would keep what the traceback's frames hold"


def test_a_node_that_cannot_even_be_tidied_up_is_finalized(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("depthlm_ros.ros.node.Inputs", raising(RuntimeError("first")))
    assert seen.node.trigger_configure() == SUCCESS
    monkeypatch.setattr("depthlm_ros.ros.node.Outputs.destroy", raising(RuntimeError("second")))
    assert seen.node.trigger_activate() == ERROR
    assert seen.state == "finalized"
    assert [told.splitlines()[0] for told in seen.errors] == [
        "activate failed: RuntimeError: first",
        "RuntimeError: second, and this after activate failed: RuntimeError: first: restart this process",
    ]
    assert seen.engine.ended


def test_the_diagnostics_tell_the_state_of_the_lifecycle_also_within_a_transition(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, told = seen.node, [seen.state]

    def telling(name: str) -> None:
        inner = getattr(DepthLMNode, name)

        def tell(self: DepthLMNode, *args: Any) -> Any:
            result = inner(self, *args)
            told.append(seen.state)
            return result

        monkeypatch.setattr(DepthLMNode, name, tell)

    for name in ("_configure", "_halt", "_release", "close"):
        telling(name)
    node.trigger_configure()
    told.append(seen.state)
    formed = node._clicks
    assert formed is not None
    monkeypatch.setattr(formed, "open", lambda: told.append(seen.state))
    node.trigger_activate()
    told.append(seen.state)
    node.trigger_deactivate()
    node.trigger_cleanup()
    node.trigger_shutdown()
    told.append(seen.state)
    assert list(dict.fromkeys(told)) == [
        "unconfigured", "configuring", "inactive", "activating", "active", "deactivating", "cleaningup",
        "shuttingdown", "finalized",
    ]  # fmt: skip
