"""Several servers behind one engine: work is shared, and the death of one loses nothing but time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from servers.fixtures import PROFILE, engine_of, prompts_of
from servers.kinds import TrtLlmServe, Vllm
from servers.scripted import ScriptedModel
from servers.standin import CHAT, Handler, StandIn

from depthlm_ros.answers import AnswerStatus, parse_answer
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.config import DepthLMConfig, from_flat
from depthlm_ros.engines import http_health, http_pool
from depthlm_ros.engines.base import Answer, EngineError, Finish
from depthlm_ros.engines.openai import OpenAIEngine
from depthlm_ros.session import open_estimator

PROMPTS = prompts_of(24)


@pytest.fixture
def two() -> Iterator[tuple[StandIn, StandIn]]:
    with TrtLlmServe(ScriptedModel()) as first, TrtLlmServe(ScriptedModel()) as second:
        yield first, second


def ask(engine: OpenAIEngine, prompts=PROMPTS) -> list[Answer]:
    return engine.generate(prompts, max_new_tokens=9, stop=(" meters",))


def all_right(answers: list[Answer]) -> bool:
    parsed = [parse_answer(answer, PROFILE) for answer in answers]
    return all(p.status is AnswerStatus.OK and p.metres == 2.5 for p in parsed)


def chats_since(servers: tuple[StandIn, ...], before: list[int]) -> list[int]:
    return [len(server.chats) - count for server, count in zip(servers, before, strict=True)]


def counts(servers: tuple[StandIn, ...]) -> list[int]:
    return [len(server.chats) for server in servers]


def test_equal_servers_get_equal_shares(two):
    for server in two:
        server.model.delay_s = 0.05
    with engine_of(*two, max_in_flight=4) as engine:
        before = counts(two)
        assert all_right(ask(engine))
    shares = chats_since(two, before)
    assert sum(shares) == len(PROMPTS)
    assert min(shares) >= len(PROMPTS) // 4


@pytest.mark.parametrize("in_flight", [1, 8])
def test_one_that_is_killed_in_mid_frame_loses_no_point(two, in_flight):
    """Also with one request at a time, where the dead server is always the least busy one."""
    dies, lives = two
    answered = iter(range(3))

    def die(handler: Handler) -> bool:
        if handler.path == CHAT and next(answered, None) is None:
            threading.Thread(target=dies.kill).start()
            handler.close_connection = True
            return True
        return False

    with engine_of(*two, max_in_flight=in_flight, retries=1) as engine:
        dies.fault = die
        assert all_right(ask(engine))
        before = len(lives.chats)
        assert all_right(ask(engine))
        assert len(lives.chats) - before == len(PROMPTS)
        dies.fault = None
        dies.start()
        wait_until_back(engine, dies)


def wait_until_back(engine: OpenAIEngine, server: StandIn) -> None:
    before = len(server.chats)
    for _ in range(200):
        assert all_right(ask(engine))
        (state,) = [text for text in engine.details().values() if text.startswith(server.url)]
        if "answering" in state and len(server.chats) > before:
            return
        threading.Event().wait(0.05)
    pytest.fail(f"it came back but was not asked again: {state}")


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_one_refuses_the_other_answers_at_once(two, status):
    """A Retry-After of one server is no reason to wait for another."""
    sick = two[0]

    def refuse(handler: Handler) -> bool:
        if handler.path != CHAT:
            return False
        handler.send_json(status, {"error": "not now"}, {"Retry-After": "3600"})
        return True

    with engine_of(*two, retries=1, max_in_flight=4) as engine:
        sick.fault = refuse
        before = counts(two)
        assert all_right(ask(engine))
        shares = chats_since(two, before)
    assert shares[1] == len(PROMPTS)
    assert 1 <= shares[0] <= 8


def bad_request(handler: Handler) -> bool:
    """What trtllm-serve answers to a bad request, and where it failed itself."""
    if handler.path != CHAT:
        return False
    handler.send_json(400, {"object": "error", "message": "out of memory", "type": "BadRequestError"})
    return True


@pytest.mark.parametrize("in_flight", [1, 8])
def test_a_400_that_the_other_server_does_not_give_is_held_against_the_first(two, in_flight, monkeypatch):
    """It fails at once, so that it would always be the least busy one; also where nothing is to be sent again."""
    monkeypatch.setattr(http_health, "FIRST_WAIT_S", 60.0)  # no trial, which would be counted as well
    sick = two[0]
    with engine_of(*two, retries=0, recovery_s=60.0, max_in_flight=in_flight) as engine:
        sick.fault = bad_request
        before = counts(two)
        assert all_right(ask(engine))
        shares = chats_since(two, before)
        states = engine.details()
    assert shares[1] == len(PROMPTS)
    assert 3 <= shares[0] <= 3 + 2 * in_flight
    assert f"{sick.url} left alone: {sick.url}: HTTP 400" in states["server/0"]
    assert "out of memory" in states["server/0"]
    assert "answering" in states["server/1"]


def test_a_400_that_both_servers_give_is_the_requests_fault(two):
    with engine_of(*two, retries=2, max_in_flight=4) as engine:
        for server in two:
            server.fault = bad_request
        before = counts(two)
        answers = ask(engine)
        assert sum(chats_since(two, before)) == 2 * len(PROMPTS)
        assert all("answering" in state for name, state in engine.details().items() if "server" in name)
        assert {answer.finish for answer in answers} == {Finish.ERROR}
        assert all("HTTP 400" in answer.error and "out of memory" in answer.error for answer in answers)
        for server in two:
            server.fault = None
        assert all_right(ask(engine))


def test_a_400_after_which_the_other_server_fails_too_is_told_as_that_failure(two):
    def broken(handler: Handler) -> bool:
        if handler.path != CHAT:
            return False
        handler.send_json(500, {"error": "broken"})
        return True

    with engine_of(*two, retries=0, max_in_flight=1) as engine:
        two[0].fault, two[1].fault = bad_request, broken
        with pytest.raises(EngineError, match=r"no server answered any of 1 requests: .*HTTP 500"):
            ask(engine, PROMPTS[:1])
        assert "answering" in engine.details()["server/0"]


def test_one_that_says_garbage_costs_no_point(two):
    def garbage(handler: Handler) -> bool:
        handler.send_json(200, b"[" * 100_000)
        return handler.path == CHAT

    with engine_of(*two, retries=1, max_in_flight=2) as engine:
        two[0].fault = garbage
        assert all_right(ask(engine))


def test_garbage_that_exhausts_the_parser_is_an_engine_error():
    with Vllm(ScriptedModel()) as server:
        server.fault = lambda handler: handler.send_json(200, b"[" * 100_000) or True
        with pytest.raises(EngineError, match="the answer is not JSON"):
            engine_of(server).__enter__()


def test_a_mistake_in_trying_a_server_is_that_servers_failure(two, monkeypatch):
    real = http_pool.get_to_know

    async def broken(client, base, settings):
        if base == two[0].url:
            raise OverflowError("a number without end")
        return await real(client, base, settings)

    monkeypatch.setattr(http_pool, "get_to_know", broken)
    with engine_of(*two) as engine:
        assert "OverflowError" in engine.details()["server/0"]
        assert all_right(ask(engine))


def restarted_with(server: StandIn, name: str) -> None:
    """Between two frames, so that no request fails."""
    server.kill()
    server.name = name
    server.start()


def test_a_server_that_came_back_with_another_model_between_two_frames_is_not_believed(monkeypatch):
    """trtllm-serve answers whatever model the request names; nothing fails that would open the breaker."""
    monkeypatch.setattr(http_pool, "CONFIRM_AFTER_S", 0.0)
    with TrtLlmServe(ScriptedModel()) as server, engine_of(server, retries=0) as engine:
        assert all_right(ask(engine))
        restarted_with(server, "another")
        with pytest.raises(EngineError, match="does not have the model 'embedded'; it has 'another'"):
            ask(engine)


def test_an_answer_that_names_another_model_is_not_believed(monkeypatch):
    monkeypatch.setattr(http_pool, "CONFIRM_AFTER_S", 1e9)
    with TrtLlmServe(ScriptedModel()) as server, engine_of(server, retries=0) as engine:
        server.name = "another"
        with pytest.raises(EngineError, match="the model 'another' answered, expected 'embedded'"):
            ask(engine)


def test_another_kind_of_server_at_the_same_address_is_got_to_know_anew(monkeypatch):
    monkeypatch.setattr(http_pool, "CONFIRM_AFTER_S", 0.0)
    with Vllm(ScriptedModel()) as lenient, engine_of(lenient, retries=4) as engine:
        assert all_right(ask(engine))
        lenient.kill()
        strict = TrtLlmServe(ScriptedModel())
        strict.port = lenient.port
        with strict:
            assert all_right(ask(engine))
            assert "(tensorrt_llm) answering" in engine.details()["server/0"]


def test_a_camera_frame_is_answered_by_two_servers_through_the_configuration(two, monkeypatch):
    # Loading the tokenizer for one server may take longer than the other is trusted without being asked again.
    monkeypatch.setattr(http_pool, "CONFIRM_AFTER_S", 1e9)
    urls = ", ".join(server.url + "/v1" for server in two)
    values = {"engine.name": "openai", "engine.model": "embedded", "engine.base_urls": urls}
    camera = PinholeCamera.from_intrinsics(112.0, 112.0, 80.0, 60.0, 160, 120)
    pixels = [(20 + 4 * i, 30) for i in range(12)]
    with open_estimator(from_flat(values, DepthLMConfig())) as estimator:
        frame = estimator.prepare(np.full((120, 160, 3), 90, np.uint8), camera)
        before = counts(two)
        np.testing.assert_allclose(estimator.ask(frame, pixels).depth, 2.5)
        assert min(chats_since(two, before)) >= 1
        two[0].kill()
        np.testing.assert_allclose(estimator.ask(frame, pixels).depth, 2.5)
