"""Servers that fail in every way: no wrong number, no exception but EngineError, and back within one waiting time."""

from __future__ import annotations

import json
import logging
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from servers.fixtures import PROFILE, engine_of, prompts_of
from servers.kinds import TrtLlmServe, Vllm
from servers.scripted import ScriptedModel
from servers.standin import CHAT, Fault, Handler

from depthlm_ros.answers import AnswerStatus, parse_answer
from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt, PromptImage
from depthlm_ros.engines.openai import OpenAIEngine

PROMPTS = prompts_of(8)
RECOVERY_S = 0.5
RIGHT = 2.5


@pytest.fixture
def server() -> Iterator[Vllm]:
    with Vllm(ScriptedModel()) as server:
        yield server


def ask(engine: OpenAIEngine, prompts=PROMPTS, deadline_s: float | None = None) -> list[Answer]:
    deadline = None if deadline_s is None else time.monotonic() + deadline_s
    return engine.generate(prompts, max_new_tokens=9, stop=(" meters",), deadline=deadline)


def nothing_wrong(answers: list[Answer]) -> int:
    """Check that every answer is right or says why there is none; returns how many are right."""
    right = 0
    for answer in answers:
        parsed = parse_answer(answer, PROFILE)
        if parsed.status is AnswerStatus.OK:
            assert parsed.metres == RIGHT
            right += 1
        else:
            assert parsed.status in (AnswerStatus.ENGINE_ERROR, AnswerStatus.DEADLINE)
            assert np.isnan(parsed.metres)
            assert answer.error or answer.finish is Finish.DEADLINE
    return right


def on_chat(act: Callable[[Handler], None], *, first: int = 10**9) -> Fault:
    """Deal with the first chat requests; the others are answered."""
    count = iter(range(first))

    def fault(handler: Handler) -> bool:
        if handler.path != CHAT or next(count, None) is None:
            return False
        act(handler)
        return True

    return fault


def garbage(handler: Handler) -> None:
    handler.send_json(200, b'{"choices": [{"message": {"content": " 9.99 met')


def not_an_answer(handler: Handler) -> None:
    handler.send_json(200, {"choices": [], "surprise": 9.99})


def internal_error(handler: Handler) -> None:
    handler.send_json(500, {"error": "out of cheese"})


def close_half_way(handler: Handler) -> None:
    reply = json.dumps({"choices": [{"message": {"content": " 9.99"}, "finish_reason": "stop"}]}).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(reply) + 50))
    handler.end_headers()
    handler.wfile.write(reply)
    handler.close_connection = True


def drip(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(400):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def hang(handler: Handler) -> None:
    time.sleep(8.0)
    handler.close_connection = True


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (garbage, "not JSON"),
        (not_an_answer, "expected one entry in 'choices', got 0"),
        (internal_error, 'HTTP 500: {"error": "out of cheese"}'),
        (close_half_way, "connection was lost"),
        (drip, "no whole answer within 4 s"),
        (hang, "no whole answer within 4 s"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_server_that_fails_every_time_is_an_engine_error_and_comes_back(server, act, reason):
    limit_s = 4.0 if act in (drip, hang) else 60.0
    with engine_of(server, read_timeout_s=limit_s, retries=0) as engine:
        server.fault = on_chat(act)
        with pytest.raises(EngineError, match=r"no server answered any of 8 requests") as caught:
            ask(engine)
        assert reason in str(caught.value)
        assert server.url in str(caught.value)
        server.fault = None
        assert back_within(RECOVERY_S, engine) == len(PROMPTS)


def back_within(wait_s: float, engine: OpenAIEngine) -> int:
    """After one waiting time the next call is answered; returns how many answers were right."""
    time.sleep(wait_s)
    return nothing_wrong(ask(engine))


@pytest.mark.parametrize("act", [garbage, internal_error, not_an_answer], ids=lambda act: act.__name__)
def test_a_server_that_fails_twice_costs_two_points(server, act):
    with engine_of(server) as engine:
        server.fault = on_chat(act, first=2)
        answers = ask(engine)
        assert nothing_wrong(answers) == len(PROMPTS) - 2
        assert nothing_wrong(ask(engine)) == len(PROMPTS)
    assert sum(answer.finish is Finish.ERROR for answer in answers) == 2


def test_a_lost_connection_is_tried_again_and_costs_nothing(server):
    with engine_of(server) as engine:
        server.fault = on_chat(close_half_way, first=2)
        assert nothing_wrong(ask(engine)) == len(PROMPTS)


def test_killed_in_mid_batch_and_back(server):
    server.model.delay_s = 0.1
    with engine_of(server, max_in_flight=2, retries=1) as engine:
        killer = threading.Timer(0.25, server.kill)
        killer.start()
        try:
            assert nothing_wrong(ask(engine)) < len(PROMPTS)
        except EngineError as error:
            pytest.fail(f"what was answered before the server died was thrown away: {error}")
        killer.join()
        with pytest.raises(EngineError, match="no server answered"):
            ask(engine)
        assert "left alone" in engine.details()["server/0"]
        server.start()
        assert back_within(RECOVERY_S, engine) == len(PROMPTS)
        assert "answering" in engine.details()["server/0"]


def test_a_failure_is_said_rather_than_waiting_into_the_deadline(server):
    with engine_of(server, retries=10, recovery_s=60.0) as engine:
        server.kill()
        began = time.monotonic()
        with pytest.raises(EngineError, match="no connection; is the server running"):
            ask(engine, deadline_s=20.0)
        assert time.monotonic() - began < 20.0


def test_back_with_another_model_it_is_not_asked(server):
    with engine_of(server, retries=0) as engine:
        server.kill()
        with pytest.raises(EngineError):
            ask(engine)
        server.name = "another"
        server.start()
        time.sleep(RECOVERY_S)
        with pytest.raises(EngineError, match="does not have the model 'embedded'; it has 'another'"):
            ask(engine)
        server.name = "embedded"
        assert back_within(RECOVERY_S, engine) == len(PROMPTS)


def test_a_busy_server_is_asked_again_when_it_says_so(server):
    def busy(handler: Handler) -> None:
        handler.send_json(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"})

    with engine_of(server) as engine:
        server.fault = on_chat(busy, first=1)
        began = time.monotonic()
        assert nothing_wrong(ask(engine, PROMPTS[:1])) == 1
        assert time.monotonic() - began >= 1.0


def test_a_server_that_wants_to_be_left_alone_for_an_hour_is(server):
    def busy(handler: Handler) -> None:
        handler.send_json(503, {}, {"Retry-After": "3600"})

    with engine_of(server) as engine:
        server.fault = on_chat(busy, first=1)
        one, *others = ask(engine)
        before = len(server.chats)
    errors = [a.error for a in (one, *others) if a.finish is Finish.ERROR]
    assert len(errors) == 1
    assert "asks to wait 3600 s" in errors[0]
    assert before == len(server.chats)


def test_what_is_the_requests_fault_is_not_sent_again_and_not_held_against_the_server(server):
    def refuse(handler: Handler) -> None:
        uri = handler.body["messages"][0]["content"][0]["image_url"]["url"]
        handler.send_json(400, {"error": {"message": f"cannot look at {uri}"}})

    with engine_of(server) as engine:
        before = len(server.chats)
        server.fault = on_chat(refuse)
        answers = ask(engine)
        assert len(server.chats) - before == len(PROMPTS)
        assert "answering" in engine.details()["server/0"]
    assert {answer.finish for answer in answers} == {Finish.ERROR}
    assert all("cannot look at (image)" in a.error and "base64" not in a.error for a in answers)


def test_the_deadline_gives_up_what_is_under_way_and_keeps_what_was_answered(server):
    with engine_of(server, max_in_flight=4) as engine:
        answered = iter(range(4))
        server.fault = lambda handler: next(answered, None) is None and (hang(handler) or True)
        began = time.monotonic()
        answers = ask(engine, deadline_s=3.0)
        assert time.monotonic() - began < 4.5
        assert nothing_wrong(answers) == 4
        assert [a.finish for a in answers].count(Finish.DEADLINE) == 4
        assert all(a.finish is Finish.DEADLINE for a in ask(engine, deadline_s=-1.0))


def test_cancel_ends_the_call_under_way_and_no_other(server):
    with engine_of(server) as engine:
        server.fault = on_chat(hang)
        threading.Timer(0.3, engine.cancel).start()
        began = time.monotonic()
        assert {a.finish for a in ask(engine)} == {Finish.DEADLINE}
        assert time.monotonic() - began < 4.0
        engine.cancel()
        server.fault = None
        assert nothing_wrong(ask(engine)) == len(PROMPTS)


def test_an_answer_without_end_is_not_read_to_the_end(server, monkeypatch):
    from depthlm_ros.engines import http_client

    with engine_of(server) as engine:
        monkeypatch.setattr(http_client, "LARGEST_REPLY", 10_000)
        server.fault = on_chat(lambda handler: handler.send_json(200, b" " * 10_001), first=1)
        answers = ask(engine)
    assert nothing_wrong(answers) == len(PROMPTS) - 1
    assert any("larger than 10000 bytes" in answer.error for answer in answers)


def test_two_servers_share_the_work_and_one_carries_on_alone(server):
    with Vllm(ScriptedModel()) as other, engine_of(server, other, max_in_flight=4) as engine:
        server.model.delay_s = other.model.delay_s = 0.02
        before = [len(s.chats) for s in (server, other)]
        assert nothing_wrong(ask(engine)) == len(PROMPTS)
        shares = [len(s.chats) - b for s, b in zip((server, other), before, strict=True)]
        assert min(shares) >= 1
        other.kill()
        assert nothing_wrong(ask(engine)) == len(PROMPTS)
        assert nothing_wrong(ask(engine)) == len(PROMPTS)


def test_the_less_busy_server_gets_more(server):
    with Vllm(ScriptedModel()) as slow, engine_of(server, slow, max_in_flight=4) as engine:
        slow.model.delay_s = 0.5
        before = [len(s.chats) for s in (server, slow)]
        assert nothing_wrong(ask(engine)) == len(PROMPTS)
        fast_share, slow_share = (len(s.chats) - b for s, b in zip((server, slow), before, strict=True))
    assert fast_share > slow_share


def test_one_of_two_is_enough_to_start(server):
    with engine_of("http://127.0.0.1:9", server) as engine:
        assert "no connection" in engine.details()["server/0"]
        assert nothing_wrong(ask(engine)) == len(PROMPTS)


def test_a_strict_server_that_takes_the_place_of_a_lenient_one_is_got_to_know_anew(server):
    with engine_of(server, retries=0) as engine:
        server.kill()
        with pytest.raises(EngineError):
            ask(engine)
        strict = TrtLlmServe(ScriptedModel())
        strict.port = server.port
        with strict:
            assert back_within(RECOVERY_S, engine) == len(PROMPTS)
            assert "prefix chat_template_kwargs" in engine.details()["server/0"]


def test_no_server_at_start_says_what_to_do():
    with pytest.raises(EngineError, match=r"http://127\.0\.0\.1:9: no connection; is the server running\?"):
        engine_of("http://127.0.0.1:9").__enter__()


class TlsServer(Vllm):
    """A server with a certificate that its own authority (nobody knows it) signed."""

    certificate: Path

    @property
    def url(self) -> str:
        return super().url.replace("http://", "https://")

    def wrap(self, listener) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.certificate.with_suffix(".key"))
        listener.socket = context.wrap_socket(
            listener.socket, server_side=True, do_handshake_on_connect=False
        )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    try:
        subprocess.run(
            [*command, *names, "-out", str(path), "-keyout", str(path.with_suffix(".key"))],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl cannot make a certificate: {error}")
    return path


def test_tls_is_checked_unless_told_otherwise(certificate):
    server = TlsServer(ScriptedModel())
    server.certificate = certificate
    with server:
        with pytest.raises(EngineError, match=r"TLS connection was refused .*engine\.tls_ca_file"):
            engine_of(server).__enter__()
        with engine_of(server, tls_ca_file=str(certificate)) as engine:
            assert nothing_wrong(ask(engine)) == len(PROMPTS)
            assert "tls" not in engine.details()
        with engine_of(server, verify_tls=False) as engine:
            assert nothing_wrong(ask(engine)) == len(PROMPTS)
            assert engine.details()["tls"] == "certificates are not checked"


def test_the_key_is_sent_and_never_said(server, caplog):
    key = "sk-very-secret"

    def echo(handler: Handler) -> None:
        handler.send_json(401, {"error": f"wrong key {handler.headers['Authorization']}"})

    with caplog.at_level(logging.DEBUG), engine_of(server, key=key) as engine:
        assert server.exchanges[-1].headers["Authorization"] == f"Bearer {key}"
        server.fault = on_chat(echo)
        answers = ask(engine)
        said = " ".join([*engine.details().values(), *(a.error for a in answers), repr(engine._settings)])
    assert "wrong key Bearer (key)" in said
    assert "engine.api_key_env" in said
    assert key not in said
    assert key not in caplog.text
    assert "base64" not in caplog.text


def test_an_image_is_encoded_once_however_many_ask_about_it(server, monkeypatch):
    from depthlm_ros.engines import http_images

    encoded = []
    real = http_images.data_uri
    monkeypatch.setattr(http_images, "data_uri", lambda *how: encoded.append(1) or real(*how))
    view = PromptImage(np.zeros((56, 56, 3), np.uint8))
    with engine_of(server, max_in_flight=2) as engine:
        assert nothing_wrong(ask(engine, [Prompt((view,), f"question {n}") for n in range(6)])) == 6
        assert len(encoded) == 1
        assert nothing_wrong(ask(engine)) == len(PROMPTS)
        assert len(encoded) == 1 + len(PROMPTS)


def test_an_unmarked_image_is_encoded_once_for_all_calls_of_its_frame(server, monkeypatch):
    from depthlm_ros.engines import http_images

    encoded = []
    real = http_images.data_uri
    monkeypatch.setattr(http_images, "data_uri", lambda *how: encoded.append(1) or real(*how))
    first, second = (PromptImage(np.full((56, 56, 3), grey, np.uint8)) for grey in (10, 20))
    with engine_of(server) as engine:
        for chunk in range(3):  # a frame is asked in chunks, and callers ask between them
            for view in (first, second):
                assert nothing_wrong(ask(engine, [Prompt((view,), f"question {chunk}")])) == 1
        sent = {c["messages"][0]["content"][0]["image_url"]["url"] for c in server.chats[-6:]}
    assert len(encoded) == 2
    assert sent == {real(view.base, "png", 95) for view in (first, second)}


def test_a_prompt_that_cannot_be_encoded_fails_alone(server):
    broken = Prompt((PromptImage(np.zeros((2, 2), np.uint8)[None].astype(np.float32)),), "what?")
    with engine_of(server) as engine:
        bad, good = ask(engine, [broken, PROMPTS[0]])
    assert bad.finish is Finish.ERROR
    assert "TypeError" in bad.error
    assert nothing_wrong([good]) == 1


def test_it_keeps_the_protocol_of_starting_and_stopping(server):
    engine = engine_of(server)
    engine.cancel()
    with pytest.raises(EngineError, match="not started"):
        ask(engine)
    with engine:
        assert engine.generate([], max_new_tokens=3) == []
        with pytest.raises(ValueError, match="max_new_tokens"):
            engine.generate(PROMPTS, max_new_tokens=0)
        with pytest.raises(EngineError, match="started already"):
            engine.__enter__()
    with engine:
        assert nothing_wrong(ask(engine)) == len(PROMPTS)
    assert not [t for t in threading.enumerate() if t.name == "depthlm_openai"]
