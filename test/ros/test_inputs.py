"""Which messages are paired: what no stamp, a repeated one, or one of another time does to those that are good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from builtin_interfaces.msg import Time
from gated import Gated, gated_node
from graph import image_message, info_message
from std_msgs.msg import Header

from depthlm_ros.config import StreamConfig
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.inputs import Inputs
from depthlm_ros.ros.pipeline import Pair
from depthlm_ros.ros.stamps import KEPT


class Fed:
    """In the node's place: the subscriptions of an active node, fed by hand.

    Attributes:
        pairs: Stamps of the pairs, in seconds.
        said: What was logged.
    """

    def __init__(self, **stream: Any) -> None:
        self.callbacks: dict[str, Callable[[Any], None]] = {}
        self.pairs: list[float] = []
        self.said: list[str] = []
        self.health = Health(self.said.append)
        self.inputs = Inputs(self, None, StreamConfig(**stream), self.health, self.take)  # type: ignore[arg-type]

    def resolve_topic_name(self, name: str) -> str:
        return name

    def create_subscription(self, kind: Any, topic: str, callback: Callable[[Any], None], **_: Any) -> object:
        self.callbacks[topic] = callback
        return object()

    def take(self, pair: Pair) -> None:
        self.health.frame_arrived()
        self.pairs.append(pair.header.stamp.sec + pair.header.stamp.nanosec * 1e-9)

    def image(self, *stamps: float) -> None:
        for stamp in stamps:
            self.callbacks["image"](image_message(header(stamp)))

    def info(self, *stamps: float) -> None:
        for stamp in stamps:
            self.callbacks["camera_info"](info_message(header(stamp)))

    def pair(self, *stamps: float) -> None:
        for stamp in stamps:
            self.info(stamp)
            self.image(stamp)


def header(stamp: float) -> Header:
    return Header(stamp=Time(sec=int(stamp), nanosec=round(stamp % 1 * 1e9)))


@pytest.mark.parametrize("bad", [Time(), Time(sec=-5), Time(sec=100, nanosec=2**32 - 1)])
def test_an_image_whose_stamp_is_no_time_takes_no_good_message_with_it(bad: Time) -> None:
    fed = Fed()
    fed.pair(99.0)
    fed.info(100.0)
    fed.callbacks["image"](image_message(Header(stamp=bad)))
    fed.image(100.0)
    assert fed.pairs == [99.0, 100.0]
    assert (fed.health.total.images_in, fed.health.total.bad_stamps) == (3, 1)
    assert len(fed.said) == 1
    assert "bad_stamp" in fed.said[0]


def test_a_camera_whose_stamps_go_back_is_paired_and_said() -> None:
    fed = Fed()
    fed.image(*(200.0 + k for k in range(10)))
    fed.info(100.0)
    fed.image(100.0)
    fed.pair(101.0)
    assert fed.pairs == [100.0, 101.0]
    assert "went back by 109.000 s" in fed.said[0]


def test_a_stamp_that_came_before_is_dropped_as_duplicate_whatever_the_order() -> None:
    fed = Fed()
    fed.pair(100.0, 100.1, 100.1, 100.0, 100.2)
    fed.image(100.3, 100.3)  # the same before it is paired: still one frame
    fed.info(100.3, 100.3)
    fed.image(100.3)
    assert fed.pairs == pytest.approx([100.0, 100.1, 100.2, 100.3])
    total = fed.health.total
    assert dict(total.dropped) == {"duplicate": 3}
    assert (total.images_in, total.frames_in) == (8, 4 + 3)
    assert len(fed.said) == 1
    assert "100.100000000 was taken already" in fed.said[0]
    assert "duplicate" in fed.said[0]


def test_a_repeated_image_does_not_take_the_camera_info_of_the_next_one() -> None:
    fed = Fed(sync_slop_s=0.2)
    for stamp in (100.0, 100.1, 100.2):
        fed.info(stamp)
        fed.image(stamp, stamp)
        assert fed.pairs[-1] == pytest.approx(stamp)
    assert len(fed.pairs) == 3


def test_after_a_jump_back_of_the_stamps_or_of_the_clock_the_same_stamps_are_new() -> None:
    fed = Fed()
    for _ in range(2):
        fed.pair(100.0, 101.0, 102.0)  # a bag in a loop, without /clock
    assert fed.pairs == [100.0, 101.0, 102.0] * 2
    fed.inputs.forget()  # the clock jumped back
    fed.pair(102.0)
    assert fed.pairs[-2:] == [102.0, 102.0]
    assert not fed.health.total.dropped


def test_only_so_many_stamps_are_remembered() -> None:
    fed = Fed()
    for k in range(KEPT + 100):
        fed.inputs._new.accept(k)
    assert list(fed.inputs._new._accepted) == list(range(100, KEPT + 100))


def test_a_repeated_frame_is_asked_once_until_the_node_is_activated_anew(
    engine: Gated,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with gated_node(engine, monkeypatch) as (node, bench):
        dropped = node.health.total.dropped
        sent = []
        for number in range(3):
            sent.append(bench.send())
            bench.wait_for("sparse_depth", sent[-1])
            bench.send(image_message(sent[-1]), info_message(sent[-1]))
            bench.wait(lambda number=number: dropped["duplicate"] == number + 1)
        assert engine.calls == [2, 2, 2]
        bench.spin(0.3)
        for name in ("sparse_depth", "points", "depth/image"):
            got = [m.header for m in bench.got[name]]
            assert [got.count(header) for header in sent] == [1, 1, 1], name
        assert bench.counters()["dropped/duplicate"] == "3"
        # Each activation begins anew.
        node.trigger_deactivate()
        node.trigger_activate()
        bench.wait(lambda: bench.infos.get_subscription_count() and bench.images.get_subscription_count())
        bench.wait(lambda: bench.send(image_message(sent[-1]), info_message(sent[-1])) and engine.calls[3:])
