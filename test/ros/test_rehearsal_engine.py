"""Rehearsed at the running node: the engine is missing, fails, answers nonsense, and comes back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from graph import Bench, NodeProcess, alone
from lifecycle_msgs.msg import Transition
from rehearsal import dropped, forget, nothing_was_published, settled, wait_for_verdict
from servers.kinds import Vllm
from servers.scripted import ScriptedModel
from servers.standin import CHAT, Handler, StandIn
from toy_node import inside

from depthlm_ros.engines.base import Answer, Finish, Prompt, Token
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.srv import QueryDepth

GOOD = " 2.50 meters"


class Sayings(ScriptedModel):
    """FOR TESTS ONLY: says the next of its texts to every question; tokens are characters."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = [GOOD]
        self.asked = 0

    def decode(
        self,
        messages: Sequence[dict[str, Any]],
        rendered: str,
        *,
        max_tokens: int,
        stop: Sequence[str],
        **_: Any,
    ) -> Answer:
        text = self.texts[self.asked % len(self.texts)]
        self.asked += 1
        ends = [text.index(s) + len(s) for s in stop if s in text]
        said = text[: min(ends)] if ends else text
        return Answer(said, tuple(Token(letter, -0.1) for letter in said), Finish.STOP)


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with Vllm(Sayings()) as server:  # type: ignore[arg-type]
        yield server


@pytest.fixture(scope="module")
def graph(server: StandIn) -> Iterator[tuple[NodeProcess, Bench]]:
    with alone(
        "engine.name:=openai", "engine.model:=embedded", f"engine.base_urls:={server.url}",
        "engine.recovery_s:=0.3", "engine.retries:=0", "engine.read_timeout_s:=2.0", "stream.max_age_s:=3.0",
    ) as graph:  # fmt: skip
        yield graph


@pytest.fixture
def bench(graph: tuple[NodeProcess, Bench], server: StandIn) -> Bench:
    server.fault, server.model.texts = None, [GOOD]  # type: ignore[attr-defined]
    return graph[1]


def test_an_engine_that_is_missing_at_first_is_said_and_found_later(
    bench: Bench, graph: tuple[NodeProcess, Bench], server: StandIn
) -> None:
    server.kill()
    assert not bench.transition(Transition.TRANSITION_CONFIGURE)
    assert bench.state() == "unconfigured"
    sentence = wait_for_verdict(bench, "engine", "ERROR", server.url)
    assert sentence in "\n".join(graph[0].logged("cannot configure"))
    server.start()
    assert bench.transition(Transition.TRANSITION_CONFIGURE), "\n".join(graph[0].log)
    assert bench.transition(Transition.TRANSITION_ACTIVATE)
    assert set(bench.send_until_answered().depth) == {2.5}
    wait_for_verdict(bench, "engine", "OK", "ready")
    wait_for_verdict(bench, "depth", "OK", "answering")


def test_an_engine_that_dies_drops_frames_and_the_next_good_one_is_answered(
    bench: Bench, server: StandIn
) -> None:
    forget(bench)
    server.kill()
    lost = [bench.send()]
    bench.wait(lambda: dropped(bench, "engine") >= 1)
    sentence = wait_for_verdict(bench, "engine", "ERROR")
    assert server.url.removeprefix("http://") in sentence
    lost.append(bench.send())
    bench.wait(lambda: dropped(bench, "engine") >= 2)
    nothing_was_published(bench, lost)
    server.start()
    assert set(bench.send_until_answered().depth) == {2.5}
    wait_for_verdict(bench, "engine", "OK", "ready")


def test_an_engine_that_breaks_its_protocol_drops_frames_and_invents_nothing(
    bench: Bench, server: StandIn
) -> None:
    forget(bench)
    before = dropped(bench, "engine") + dropped(bench, "no_answer")

    def broken(handler: Handler) -> bool:
        if handler.path == CHAT:
            handler.send_json(200, b'{"choices": [{"message": {"content": " 9.99 met')
        return handler.path == CHAT

    server.fault = broken
    lost = bench.send()
    bench.wait(lambda: dropped(bench, "engine") + dropped(bench, "no_answer") == before + 1)
    nothing_was_published(bench, [lost])
    server.fault = None
    assert set(bench.send_until_answered().depth) == {2.5}


NONSENSE = {
    "no number": ("As a language model I cannot see", "no_number"),
    "negative": (" -3.00 meters", "not_positive"),
    "zero": (" 0.00 meters", "not_positive"),
    "infinite": (" inf meters", "not_finite"),
    "beyond all": (" 1e99 meters", "out_of_range"),
    "two numbers": (" 2.00 or 3.00 m", "several_numbers"),
    "no language": ("\ufffd\u202e\x07 \U0001f4cf", "no_number"),
}


def test_text_that_is_no_depth_is_counted_by_its_kind_and_not_published(
    bench: Bench, server: StandIn
) -> None:
    before = settled(bench)
    lost, model = [], server.model
    for text, _ in NONSENSE.values():
        model.texts, asked = [text], model.asked  # type: ignore[attr-defined]
        lost.append(bench.send())
        bench.wait(lambda until=asked + 6: model.asked >= until)  # type: ignore[attr-defined]
    frames = int(before.get("dropped/no_answer", 0)) + len(NONSENSE)
    told = bench.wait(lambda: (t := bench.counters()).get("dropped/no_answer") == str(frames) and t)
    for reason, kinds in Counter(reason for _, reason in NONSENSE.values()).items():
        points = int(before.get(f"failed_points/{reason}", 0)) + 6 * kinds
        assert told[f"failed_points/{reason}"] == str(points), reason
    nothing_was_published(bench, lost)


def test_among_nonsense_only_the_depths_are_published(bench: Bench, server: StandIn) -> None:
    server.model.texts = [GOOD, "who knows", " 0.00 meters"]  # type: ignore[attr-defined]
    forget(bench)
    header = bench.send()
    sparse = bench.wait_for("sparse_depth", header)
    status = np.asarray(sparse.status)
    assert sorted(status.tolist()) == 2 * [sparse.STATUS_OK] + 2 * [sparse.STATUS_NO_NUMBER] + 2 * [
        sparse.STATUS_NOT_POSITIVE
    ]
    depth = np.asarray(sparse.depth)
    assert set(depth[status == sparse.STATUS_OK].tolist()) == {2.5}
    assert np.isnan(depth[status != sparse.STATUS_OK]).all()
    assert bench.wait_for("points", header).width == 2
    image = bench.wait_for("depth/image", header)
    assert np.isfinite(np.frombuffer(image.data, "<f4")).sum() == 2


def test_the_log_says_each_failure_once_and_has_no_traceback(
    graph: tuple[NodeProcess, Bench], bench: Bench
) -> None:
    node, _ = graph
    bench.send_until_answered()
    assert not node.logged("Traceback"), "\n".join(node.log)
    assert len(node.logged("frame dropped (engine)")) == 1
    assert len(node.logged("frame dropped (no_answer)")) == 1


def test_an_engine_that_raises_what_it_should_not_ends_neither_the_worker_nor_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = threading.Event()

    def script(_: Prompt) -> str:
        if broken.is_set():
            raise KeyError("a defect of the engine")
        return GOOD

    with inside(FakeEngine(script), monkeypatch, "/raising", sampling__columns=3) as (_, bench):
        bench.send_until_answered()
        forget(bench)
        broken.set()
        lost = bench.send()
        bench.wait(lambda: dropped(bench, "internal") == 1)
        refused = bench.call(bench.query, QueryDepth.Request(u=[80], v=[60], timeout_s=10.0))
        assert not refused.success
        assert "a defect of the engine" in refused.message
        nothing_was_published(bench, [lost])
        broken.clear()
        assert set(bench.send_until_answered().depth) == {2.5}
        assert bench.call(bench.query, QueryDepth.Request(u=[80], v=[60], timeout_s=10.0)).success
