"""The parts of the openai engine, each alone: what a reply says, what is sent, when a server is left alone."""

from __future__ import annotations

import base64
import io
import math
import sys
import time
from dataclasses import replace
from email.utils import formatdate

import numpy as np
import pytest
from PIL import Image
from servers.fixtures import PROFILE, engine_of, prompts_of
from servers.kinds import TransformersServe, Vllm
from servers.scripted import ScriptedModel

from depthlm_ros.answers import number_probability, parse_answer
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.config import DepthLMConfig, EngineConfig, from_flat
from depthlm_ros.config_engine import PREFIX_WAYS
from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt
from depthlm_ros.engines.factory import create_engine
from depthlm_ros.engines.http_dialect import Dialect, PrefixWay, chat_request, messages_of
from depthlm_ros.engines.http_errors import ReplyError, retry_after_s, scrubbed, status_error
from depthlm_ros.engines.http_health import FAILURES_IN_A_ROW, FIRST_WAIT_S, Breaker
from depthlm_ros.engines.http_images import data_uri
from depthlm_ros.engines.http_response import answer_of, models_of, prompt_tokens_of
from depthlm_ros.engines.http_settings import base_urls, settings_from
from depthlm_ros.session import open_estimator


def reply(text, *tokens, finish="stop", **choice):
    """A reply whose tokens are (text, log-probability)."""
    content = [{"token": token, "logprob": logprob} for token, logprob in tokens]
    logprobs = {"content": content} if tokens else None
    message = {"role": "assistant", "content": text}
    return {"choices": [{"message": message, "logprobs": logprobs, "finish_reason": finish, **choice}]}


NUMBER = ((" 2", -0.5), (".", -0.1), ("50", -0.4))


def test_a_stop_string_that_was_kept_ends_the_text_with_its_whole_token():
    answer = answer_of(
        reply(" 2.50 meters away", *NUMBER, (" meters", -0.2), (" away", -0.3)), stop=(" meter",)
    )
    assert answer.text == " 2.50 meters"
    assert [t.text for t in answer.tokens] == [" 2", ".", "50", " meters"]
    assert answer.finish is Finish.STOP


@pytest.mark.parametrize(
    "payload",
    [
        reply(" 2.50", *NUMBER, (" meters", -0.2)),
        reply(" 2.50", *NUMBER, ("<|im_end|>", -0.2)),
        reply(" 2.50", *NUMBER),
        reply("2.50", *NUMBER),
        reply(" 2.50", *NUMBER, stop_reason=" meters"),
    ],
    ids=["stripped", "end of text", "no more", "first space dropped", "named, but not among the tokens"],
)
def test_the_number_has_its_probability_whatever_became_of_the_stop_string(payload):
    answer = answer_of(payload, stop=(" meters",))
    assert "".join(token.text for token in answer.tokens) == answer.text
    parsed = parse_answer(answer, PROFILE)
    assert parsed.metres == 2.5
    assert number_probability(answer, parsed) == pytest.approx(math.exp(-1.0))


def test_the_server_that_names_the_stop_string_gets_it_back():
    answer = answer_of(reply(" 2.50", *NUMBER, (" meters", -0.2), stop_reason=" meters"), stop=(" meters",))
    assert answer.text == " 2.50 meters"
    assert [t.logprob for t in answer.tokens] == [-0.5, -0.1, -0.4, -0.2]


def test_a_text_that_was_cut_but_holds_the_stop_string_is_whole():
    assert answer_of(reply(" 2.50 meters", finish="length"), stop=(" meters",)).finish is Finish.STOP
    assert answer_of(reply(" 2.50 me", finish="length"), stop=(" meters",)).finish is Finish.LENGTH


def test_the_start_that_the_model_wrote_is_taken_off_text_and_tokens():
    start = "The point is around"
    tokens = (("The", -0.1), (" point is", -0.1), (" around 2", -0.5), (".5", -0.2), (" meters", -0.3))
    answer = answer_of(reply("The point is around 2.5 meters", *tokens), written=start, stop=(" meters",))
    assert answer.text == " 2.5 meters"
    assert [(t.text, t.logprob) for t in answer.tokens] == [(" 2", -0.5), (".5", -0.2), (" meters", -0.3)]
    other = answer_of(reply("It is 2.5 meters"), written=start, stop=(" meters",))
    assert other.text == "It is 2.5 meters"


def test_tokens_that_do_not_fit_the_text_are_no_tokens():
    answer = answer_of(reply(" 2.50", (" 3", -0.1), (".50", -0.1)))
    assert answer == Answer(" 2.50")


@pytest.mark.parametrize("logprob", [-9999.0, None, "x", math.nan, 0.5, True, -math.inf, 10**400, -(10**400)])
def test_what_is_no_log_probability_is_nan(logprob):
    (token,) = answer_of(reply("7", ("7", logprob))).tokens
    assert math.isnan(token.logprob)


@pytest.mark.parametrize(
    "logprobs", [{}, [], {"content": None}, {"content": [3]}, {"content": [{"token": 3}]}, "x"]
)
def test_log_probabilities_of_another_layout_are_none(logprobs):
    payload = reply("7")
    payload["choices"][0]["logprobs"] = logprobs
    assert answer_of(payload).tokens == ()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ([], "got list"),
        ({"error": "x"}, r"an object with \['error'\]"),
        ({"choices": []}, "got 0"),
        ({"choices": [{}, {}]}, "got 2"),
        ({"choices": ["x"]}, "got 1"),
        ({"choices": [{"finish_reason": "stop"}]}, "expected a 'message'"),
        (reply(["x"]), "expected text in 'content', got list"),
        (reply("2.5", finish=None), "finish_reason: .* got 'None'"),
        (reply("2.5", finish="content_filter"), "'content_filter'"),
        (reply("2.5", finish="abort"), "'abort'"),
    ],
)
def test_what_is_no_answer_is_refused_with_what_came(payload, reason):
    with pytest.raises(ReplyError, match=reason):
        answer_of(payload)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_an_answer_that_a_reasoning_parser_took_is_said_so(field):
    payload = reply(None)
    payload["choices"][0]["message"][field] = "The point is around 2.5 meters"
    with pytest.raises(ReplyError, match="without a reasoning parser"):
        answer_of(payload)


def test_models_and_prompt_lengths():
    assert models_of({"data": [{"id": "a", "owned_by": "vllm"}, {"id": "b"}]}) == {"a": "vllm", "b": ""}
    for wrong in ({}, [], {"data": {}}, {"data": ["a"]}):
        with pytest.raises(ReplyError, match="OpenAI-compatible"):
            models_of(wrong)
    assert prompt_tokens_of({"usage": {"prompt_tokens": 7}}) == 7
    for silent in (
        {},
        {"usage": None},
        {"usage": {"prompt_tokens": 0}},
        {"usage": {"prompt_tokens": True}},
        [],
    ):
        assert prompt_tokens_of(silent) is None


QUESTION = Prompt((), "how far?", prefix="It is")


@pytest.mark.parametrize(
    "way", [way for way in PrefixWay if way is not PrefixWay.TOKENS], ids=lambda way: way.value
)
def test_the_start_of_the_answer_is_sent_in_its_way(way):
    messages = messages_of(QUESTION, [])
    body = chat_request("m", QUESTION, [], Dialect(prefix=way), max_tokens=9, stop=("x",))
    assert body["temperature"] == 0
    assert body["stop"] == ["x"]
    if way is PrefixWay.WHOLE:
        assert body["messages"] == messages
        assert body["max_tokens"] == 9 + len("It is")
        return
    assert body["messages"] == [*messages, {"role": "assistant", "content": "It is"}]
    assert body["max_tokens"] == 9
    assert body.get("add_generation_prompt", True) is (way is PrefixWay.ASSISTANT)
    where = body.get("chat_template_kwargs", {}) if way is PrefixWay.KWARGS else body
    assert where.get("continue_final_message", False) is (way is not PrefixWay.ASSISTANT)


def test_the_configuration_names_the_ways_that_there_are():
    assert set(PREFIX_WAYS) == {"auto", *(way.value for way in PrefixWay)}


def test_fields_that_a_server_refuses_are_left_out_and_no_prefix_adds_nothing():
    prompt = replace(QUESTION, prefix="")
    dialect = Dialect(prefix=PrefixWay.CONTINUE, fields=frozenset({"seed"}))
    body = chat_request("m", prompt, [], dialect, max_tokens=9)
    messages = [{"role": "user", "content": [{"type": "text", "text": "how far?"}]}]
    assert body == {"model": "m", "messages": messages, "temperature": 0.0, "max_tokens": 9, "seed": 0}


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")).astype(int)


def test_png_keeps_every_pixel_and_jpeg_keeps_the_arrow_red():
    prompt = prompts_of(1)[0]
    pixels = prompt.images[0].pixels()
    np.testing.assert_array_equal(decoded(data_uri(pixels, "png", 95)), pixels)
    jpeg = decoded(data_uri(pixels, "jpeg", 95))
    x, y = np.array(prompt.images[0].paint.xy).T
    assert np.abs(jpeg[y, x] - [255, 0, 0]).max() < 60
    assert np.abs(jpeg - pixels).max() > 0


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_breaker_opens_after_failures_in_a_row_and_waits_longer_each_time_up_to_its_limit():
    clock = Clock()
    breaker = Breaker(1.5, clock)
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed("x")
    breaker.succeeded()
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed("y")
    assert breaker.closed
    breaker.failed("z")
    assert not breaker.closed
    assert breaker.reason == "z"
    waits = [breaker.left_alone_s()]
    for _ in range(3):
        clock.now += waits[-1]
        assert breaker.left_alone_s() == 0.0
        breaker.open("still")
        waits.append(breaker.left_alone_s())
    assert waits == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 1.5, 1.5]
    breaker.succeeded()
    assert breaker.closed
    assert breaker.left_alone_s() == 0.0
    assert Breaker(0.2, clock).left_alone_s() == 0.0


def test_retry_after_is_seconds_or_a_date():
    assert retry_after_s("7") == 7.0
    assert retry_after_s("\u00b2") == 0.0  # a digit to Python, no number
    assert retry_after_s(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=3)
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    for nothing in (None, "", "soon", "-3"):
        assert retry_after_s(nothing) == 0.0


@pytest.mark.parametrize(
    ("status", "retry", "server_failed"),
    [
        (400, False, False), (401, False, False), (404, False, False), (422, False, False), (302, False, False),
        (429, True, False), (500, False, True), (502, True, True), (503, True, True), (504, True, True),
    ],
)  # fmt: skip
def test_what_each_status_means(status, retry, server_failed):
    error = status_error(status, "words", 0.0, 30.0)
    assert (error.retry, error.server_failed, error.status) == (retry, server_failed, status)
    assert f"HTTP {status}: words" in str(error)


def test_words_of_a_server_are_scrubbed_and_short():
    words = "bad input 'data:image/png;base64,AAAA+/=' for key sk-1" + " blah" * 200
    said = scrubbed(words, "sk-1")
    assert said.startswith("bad input '(image)' for key (key) blah")
    assert len(said) < 310


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("http://a:8000", ("http://a:8000",)),
        (" https://a/v1/ , http://b:1/proxy/v1", ("https://a", "http://b:1/proxy")),
    ],
)
def test_base_urls(text, urls):
    assert base_urls(text) == urls


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected http"),
        ("a:8000", "got 'a:8000'"),
        ("ftp://a", "got 'ftp://a'"),
        ("http://", "expected http"),
        ("http://a:99999", "Port out of range"),
        ("http://a?x=1", "without"),
        ("http://a,http://a/v1", "named twice"),
        ("http://me:secret@a", "holds a user name or password"),
    ],
)
def test_what_is_no_base_url(text, reason):
    with pytest.raises(EngineError, match=reason) as caught:
        base_urls(text)
    assert "secret" not in str(caught.value)


def test_the_key_comes_from_the_environment_and_is_not_shown():
    config = EngineConfig(name="openai", model="m", api_key_env="MY_KEY")
    settings = settings_from(config, {"MY_KEY": "sk-1"})
    assert settings.key == "sk-1"
    assert "sk-1" not in repr(settings)
    with pytest.raises(EngineError, match=r"'MY_KEY' is empty or not set; export"):
        settings_from(config, {})


@pytest.mark.parametrize("wrong", ["sk-1\n", "sk 1", "schlüssel", "sk\x001"])
def test_what_is_no_key_is_refused_and_not_repeated(wrong):
    config = EngineConfig(name="openai", model="m", api_key_env="MY_KEY")
    with pytest.raises(EngineError, match=r"'MY_KEY' holds is no key") as caught:
        settings_from(config, {"MY_KEY": wrong})
    assert wrong not in str(caught.value)


def test_a_proxy_that_cannot_be_used_is_said_at_start(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "gopher://nowhere:1")
    with pytest.raises(EngineError, match=r"ALL_PROXY .* NO_PROXY"):
        create_engine(EngineConfig(name="openai", model="embedded")).__enter__()


def test_another_model_than_the_embedded_one_needs_its_profile(tmp_path):
    with pytest.raises(EngineError, match=r"engine.profile \(depthlm-3b"):
        create_engine(EngineConfig(name="openai", model="facebook/DepthLM"))
    for fits in ({"profile": "depthlm-3b"}, {"checkpoint": str(tmp_path)}):
        engine = create_engine(EngineConfig(name="openai", model="facebook/DepthLM", **fits))
        assert engine.model_name == "facebook/DepthLM (openai)"
    assert create_engine(EngineConfig(name="openai", model="/models/embedded")).details() == {"images": "png"}


def test_a_file_that_is_no_certificate_is_refused_at_start(tmp_path):
    wrong = tmp_path / "ca.pem"
    wrong.write_text("nothing")
    config = EngineConfig(name="openai", model="embedded", tls_ca_file=str(wrong))
    with pytest.raises(EngineError, match=r"engine\.tls_ca_file: .*ca\.pem' cannot be read"):
        create_engine(config).__enter__()


class OpenTemplate(TransformersServe):
    """A strict server whose chat template leaves a last assistant message open."""

    def render(self, body):
        *talk, last = body["messages"]
        if last["role"] != "assistant":
            return super().render(body)
        return self.model.render(talk, add_generation_prompt=True) + last["content"]


def test_a_template_on_the_server_that_leaves_the_last_message_open_is_found():
    with OpenTemplate(ScriptedModel()) as server, engine_of(server) as engine:
        assert "prefix assistant_message" in engine.details()["server/0"]
    with TransformersServe(ScriptedModel()) as server, engine_of(server) as engine:
        assert "prefix whole_answer" in engine.details()["server/0"]


def test_the_libraries_that_are_missing_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tenacity", None)
    for name in ("openai", "http_sending"):
        monkeypatch.delitem(sys.modules, f"depthlm_ros.engines.{name}", raising=False)
    with pytest.raises(EngineError, match="pip install httpx tenacity"):
        create_engine(EngineConfig(name="openai", model="embedded"))


def test_the_estimator_asks_through_the_configuration():
    image = np.full((120, 160, 3), 90, np.uint8)
    with Vllm(ScriptedModel()) as server:
        values = {"engine.name": "openai", "engine.model": "embedded", "engine.base_urls": server.url + "/v1"}
        camera = PinholeCamera.from_intrinsics(112.0, 112.0, 80.0, 60.0, 160, 120)
        with open_estimator(from_flat(values, DepthLMConfig())) as estimator:
            sparse = estimator.ask(estimator.prepare(image, camera), [(20, 30), (80, 60)])
    np.testing.assert_allclose(sparse.depth, [2.5, 2.5])
    assert np.isfinite(sparse.confidence).all()
    assert sparse.model == "embedded (openai)"
