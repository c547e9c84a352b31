"""Asking a server again which model it has: never in the way of a server that is busy with what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from servers.fixtures import engine_of, prompts_of
from servers.kinds import Vllm
from servers.scripted import ScriptedModel
from servers.standin import CHAT, Handler

from depthlm_ros.engines import http_pool
from depthlm_ros.engines.base import Answer, Finish
from depthlm_ros.engines.openai import OpenAIEngine

MODELS = "/v1/models"
PROMPTS = prompts_of(12)
CHAT_S, PATIENCE_S = 0.25, 1.6


@pytest.fixture
def server() -> Iterator[Vllm]:
    with Vllm(ScriptedModel()) as server:
        yield server


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_pool, "CONFIRM_AFTER_S", CHAT_S)


def ask(engine: OpenAIEngine, count: int = len(PROMPTS)) -> list[Answer]:
    return engine.generate(PROMPTS[:count], max_new_tokens=9, stop=(" meters",))


def answered(answers: list[Answer]) -> int:
    return [answer.finish for answer in answers].count(Finish.STOP)


class OneAtATime:
    """A fault: requests are answered one by one, and which models there are only when no chat waits any more.

    Attributes:
        kept_waiting: Questions for the models that came while chats were still to come.
    """

    def __init__(self, server: Vllm, chats: int) -> None:
        self._server, self._left = server, chats
        self._turn = threading.Lock()
        self._idle = threading.Event()
        self.kept_waiting = 0

    def __call__(self, handler: Handler) -> bool:
        if handler.path == MODELS and self._left:
            self.kept_waiting += 1
            self._idle.wait(20.0)
        if handler.path == CHAT:
            with self._turn:
                self._idle.wait(CHAT_S)  # the time that it takes
                handler.send_json(*self._server.respond(handler.path, handler.body))
                self._left -= 1
            if not self._left:
                self._idle.set()
            return True
        return False


def test_a_lone_server_that_does_one_thing_at_a_time_is_not_kept_waiting(server: Vllm) -> None:
    with engine_of(server, max_in_flight=2, read_timeout_s=5.0) as engine:
        server.fault = one_at_a_time = OneAtATime(server, len(PROMPTS))
        assert answered(ask(engine)) == len(PROMPTS)
        assert one_at_a_time.kept_waiting
        assert "answering" in engine.details()["server/0"]


def test_one_that_answers_but_is_too_busy_to_say_its_models_is_not_left_alone(server: Vllm) -> None:
    with engine_of(server, max_in_flight=2, read_timeout_s=PATIENCE_S, retries=0) as engine:
        server.fault = one_at_a_time = OneAtATime(server, len(PROMPTS))
        assert answered(ask(engine)) == len(PROMPTS)
        assert one_at_a_time.kept_waiting > 1
        server.fault = None
        assert answered(ask(engine)) == len(PROMPTS)


def test_a_busy_server_that_says_another_model_is_left_alone(
    server: Vllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine_of(server, max_in_flight=2, retries=0, recovery_s=60.0) as engine:
        server.model.delay_s = CHAT_S
        monkeypatch.setattr(server, "card", lambda: {"id": "another", "object": "model", "owned_by": "vllm"})
        answers = ask(engine)
        failed = [answer for answer in answers if answer.finish is Finish.ERROR]
        assert failed
        assert all(
            "does not have the model 'embedded'; it has 'another'" in answer.error for answer in failed
        )


def test_a_server_that_hangs_is_left_alone_though_it_was_trusted(server: Vllm) -> None:
    hung = threading.Event()
    with engine_of(server, max_in_flight=2, read_timeout_s=PATIENCE_S, retries=0, recovery_s=60.0) as engine:
        count, let_through = iter(range(3)), []

        def hang(handler: Handler) -> bool:
            if handler.path == CHAT and (number := next(count, None)) is not None:
                let_through.append(number)
                return False
            hung.wait(20.0)
            return True

        server.model.delay_s, server.fault = CHAT_S, hang
        answers = ask(engine)
        hung.set()
        # The third comes only where it is sent before the two are through; else the models are asked for first.
        assert answered(answers) == len(let_through) >= 2
        assert "left alone" in engine.details()["server/0"]
