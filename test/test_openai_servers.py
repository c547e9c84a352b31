"""The openai engine against stand-ins of real servers, and against a real one where one is given.

DEPTHLM_TEST_SERVER_URL and DEPTHLM_TEST_SERVER_MODEL name a real server that serves the embedded checkpoint.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from servers.brain import EmbeddedModel
from servers.fixtures import CHECKPOINT, PROFILE, REAL_MODEL, REAL_URL, engine_of, prompts_of
from servers.kinds import (
    KINDS,
    EdgeLlm,
    LlamaCpp,
    TransformersServe,
    TransformersServeOfDirectory,
    TrtLlmServe,
    Vllm,
)
from servers.standin import CHAT

from depthlm_ros.answers import AnswerStatus, number_probability, parse_answer
from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt
from depthlm_ros.engines.http_dialect import PENALTY_FIELDS
from depthlm_ros.engines.http_models import _ITS_WORDS
from depthlm_ros.engines.openai import OpenAIEngine

PROMPTS = prompts_of(2)
PREFIXES = {
    TrtLlmServe: "prompt_token_ids",
    Vllm: "continue_final_message",
    TransformersServe: "whole_answer",
    LlamaCpp: "assistant_message",
    EdgeLlm: "whole_answer",
}


@pytest.fixture(scope="module")
def model() -> Iterator[EmbeddedModel]:
    with EmbeddedModel(CHECKPOINT) as model:
        yield model


@contextmanager
def engine_at(kind: str, model: EmbeddedModel) -> Iterator[OpenAIEngine]:
    """An engine at a stand-in, or at the real server; the served checkpoint's directory is at hand, as it is by
    default for the embedded one."""
    if kind == "real":
        if not REAL_URL:
            pytest.skip("no real server: DEPTHLM_TEST_SERVER_URL is not set")
        with engine_of(REAL_URL, model=REAL_MODEL, checkpoint=CHECKPOINT) as engine:
            yield engine
    else:
        (server_kind,) = (k for k in KINDS if k.kind == kind)
        with server_kind(model) as server, engine_of(server, checkpoint=CHECKPOINT) as engine:
            yield engine


def ask(engine: OpenAIEngine, prompts=PROMPTS, **changes) -> list[Answer]:
    how = {"max_new_tokens": PROFILE.max_new_tokens, "stop": PROFILE.stop, **changes}
    return engine.generate(prompts, **how)


@pytest.fixture(scope="module")
def in_process(model: EmbeddedModel) -> list[Answer]:
    return ask(model.engine)


@pytest.mark.parametrize("kind", [*(kind.kind for kind in KINDS), "real"])
def test_the_same_pixels_give_equal_depths_over_http_and_in_process(kind, model, in_process):
    with engine_at(kind, model) as engine:
        answers = ask(engine)
        (state,) = (text for name, text in engine.details().items() if name.startswith("server/"))
    theirs = [parse_answer(answer, PROFILE) for answer in answers]
    ours = [parse_answer(answer, PROFILE) for answer in in_process]
    assert [p.status for p in theirs] == [p.status for p in ours] == [AnswerStatus.OK] * len(PROMPTS)
    assert [p.metres for p in theirs] == [p.metres for p in ours]
    if "with log-probabilities" in state:
        for pair in zip(answers, theirs, in_process, ours, strict=True):
            assert "".join(token.text for token in pair[0].tokens) == pair[0].text
            assert number_probability(*pair[:2]) == pytest.approx(number_probability(*pair[2:]), rel=1e-3)
    else:
        assert all(math.isnan(number_probability(*pair)) for pair in zip(answers, theirs, strict=True))


@pytest.fixture(scope="module")
def twice(model: EmbeddedModel) -> tuple[Prompt, str]:
    """A prompt whose number has a digit twice, as a repetition penalty would change it, and the number."""
    prompts = prompts_of(24)
    numbers = [answer.text.split()[0] for answer in ask(model.engine, prompts)]
    return next(found for found in zip(prompts, numbers, strict=True) if len(set(found[1])) < len(found[1]))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_repetition_penalty_of_the_server_s_own_changes_no_number(kind, model, twice):
    prompt, number = twice
    with kind(model) as server, engine_of(server, checkpoint=CHECKPOINT) as engine:
        (answer,) = ask(engine, [prompt])
        state = engine.details()["server/0"]
        silent = {name: value for name, value in server.chats[-1].items() if name not in PENALTY_FIELDS}
        _, reply = server.respond(CHAT, silent)
    assert parse_answer(answer, PROFILE).metres == float(number)
    has_its_own = server.facts["repetition_penalty"]["default"] == "the server's own"
    assert (number in reply["choices"][0]["message"]["content"]) != has_its_own
    can_be_told = server.facts["repetition_penalty"]["field"] is not None
    assert ("no repetition penalty asked for" in state) == can_be_told
    assert ("takes no word on repetition penalties" in state) != can_be_told


def test_transformers_serve_itself_decodes_without_a_penalty_when_it_is_told(model):
    serving = pytest.importorskip("transformers.cli.serving.utils", reason="the server of transformers 5.23")
    server = SimpleNamespace(generation_state=SimpleNamespace(_compile=False))
    loaded = model.engine._model
    ends = loaded.generation_config.eos_token_id

    def config_of(**fields):
        body = {"temperature": 0.0, **fields}
        built = serving.BaseHandler._build_generation_config(server, body, loaded.generation_config)
        return loaded._prepare_generation_config(built)[0]

    loaded.generation_config.repetition_penalty = 1.05
    try:
        silent, told = config_of(), config_of(generation_config=PENALTY_FIELDS["generation_config"])
    finally:
        loaded.generation_config.repetition_penalty = None
    assert (silent.repetition_penalty, told.repetition_penalty) == (1.05, 1.0)
    assert (told.do_sample, told.eos_token_id) == (False, ends)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_how_each_server_is_given_the_start_of_the_answer(kind, model):
    with kind(model) as server, engine_of(server, checkpoint=CHECKPOINT) as engine:
        state = engine.details()["server/0"]
        ask(engine, PROMPTS[:1])
    assert f"prefix {PREFIXES[kind]}" in state
    assert ("without log-probabilities" in state) == (kind is TransformersServe)
    assert all(body["temperature"] == 0 for body in server.chats)
    asked = server.chats[-1]
    apart = ("whole_answer", "prompt_token_ids")
    assert (asked["messages"][-1]["role"] == "assistant") == (PREFIXES[kind] not in apart)
    assert ("prompt_token_ids" in asked) == (PREFIXES[kind] == "prompt_token_ids")
    assert asked["stop"] == [" meters"]
    known = server.facts.get("request_fields")
    assert known is None or set(asked) <= set(known)


@pytest.mark.parametrize("kind", [TrtLlmServe, Vllm], ids=lambda kind: kind.kind)
def test_the_text_is_that_of_the_engine_in_process_to_the_letter(kind, model, in_process):
    with kind(model) as server, engine_of(server, checkpoint=CHECKPOINT) as engine:
        answers = ask(engine)
    assert [a.text for a in answers] == [a.text for a in in_process]
    assert [a.finish for a in answers] == [a.finish for a in in_process]
    assert [[t.text for t in a.tokens] for a in answers] == [[t.text for t in a.tokens] for a in in_process]


@pytest.mark.parametrize("way", ["whole_answer", "assistant_message"])
def test_the_way_of_the_prefix_can_be_forced(way, model, in_process):
    with LlamaCpp(model) as server, engine_of(server, prefix=way) as engine:
        answers = ask(engine)
        assert f"prefix {way}" in engine.details()["server/0"]
    metres = [parse_answer(answer, PROFILE).metres for answer in answers]
    assert metres == [parse_answer(answer, PROFILE).metres for answer in in_process]


def test_a_way_that_the_server_refuses_is_said_at_start(model):
    with (
        EdgeLlm(model) as server,
        pytest.raises(EngineError, match=r"another engine\.prefix"),
        engine_of(server, prefix="continue_final_message"),
    ):
        pass


def test_jpeg_is_an_option_that_changes_pixels_a_little(model, in_process):
    with Vllm(model) as server, engine_of(server, image_format="jpeg", jpeg_quality=95) as engine:
        answers = ask(engine)
    uri = server.chats[-1]["messages"][0]["content"][0]["image_url"]["url"]
    assert uri.startswith("data:image/jpeg;base64,")
    for answer, exact in zip(answers, in_process, strict=True):
        ours, theirs = parse_answer(answer, PROFILE).metres, parse_answer(exact, PROFILE).metres
        assert ours == pytest.approx(theirs, rel=1.0)


def test_a_length_that_is_reached_is_told(model):
    with Vllm(model) as server, engine_of(server) as engine:
        (answer,) = ask(engine, PROMPTS[:1], max_new_tokens=2)
    assert answer.finish is Finish.LENGTH
    assert len(answer.tokens) == 2


def test_a_system_message_and_the_order_of_text_and_image_are_sent(model):
    prompt = replace(PROMPTS[0], system="You are a helpful assistant.", image_first=False)
    with Vllm(model) as server, engine_of(server) as engine:
        (over_http,) = ask(engine, [prompt])
        (here,) = ask(model.engine, [prompt])
    assert over_http.text == here.text
    system, user, _ = server.chats[-1]["messages"]
    assert system == {"role": "system", "content": "You are a helpful assistant."}
    assert [part["type"] for part in user["content"]] == ["text", "image_url"]


def test_transformers_serve_answers_for_a_directory_that_it_does_not_list(model, in_process):
    with TransformersServeOfDirectory(model, "/models/embedded") as server:
        for has_cache in (True, False):
            server.has_cache = has_cache
            with engine_of(server, model="/models/embedded") as engine:
                answers = ask(engine)
                assert "(transformers serve) answering" in engine.details()["server/0"]
            metres = [parse_answer(answer, PROFILE).metres for answer in answers]
            assert metres == [parse_answer(answer, PROFILE).metres for answer in in_process]
        with pytest.raises(EngineError, match="pinned to '/models/embedded'; requested '/models/another'"):
            engine_of(server, model="/models/another").__enter__()
        server.has_cache = True
        with pytest.raises(
            EngineError, match=r"`transformers serve /models/DepthLM-3B`\), and set engine\.model"
        ):
            engine_of(server, model="embedded").__enter__()


def test_a_path_is_a_model_of_no_other_server_that_does_not_list_it(model):
    for kind in (Vllm, LlamaCpp, TrtLlmServe, EdgeLlm):
        with (
            kind(model) as server,
            pytest.raises(EngineError, match=r"have the model '/models/embedded'; it has"),
        ):
            engine_of(server, model="/models/embedded").__enter__()


def test_transformers_serve_itself_says_what_it_is_recognised_by_before_it_looks_at_the_model():
    serving = pytest.importorskip("transformers.cli.serving.utils", reason="the server of transformers 5.23")
    refusing = inspect.getsource(serving.BaseHandler._validate_request)
    assert f'status_code=422, detail=f"{_ITS_WORDS}' in refusing
    # Importing it takes the web server's libraries.
    handling = Path(serving.__file__).with_name("chat_completion.py").read_text(encoding="utf-8")
    assert 0 < handling.index("_validate_request(") < handling.index("_resolve_model(")


@pytest.mark.parametrize("flat", [True, False], ids=["ErrorResponse", "one text"])
def test_either_shape_of_trtllm_serves_refusal_is_understood(flat, model, monkeypatch):
    monkeypatch.setattr(TrtLlmServe, "flat_errors", flat)
    with TrtLlmServe(model) as server, engine_of(server, checkpoint=CHECKPOINT) as engine:
        status, refusal = server.respond(CHAT, server.chats[-1] | {"generation_config": "{}"})
        (answer,) = ask(engine, PROMPTS[:1])
        assert set(server.chats[-1]) <= set(server.facts["request_fields"])
        with pytest.raises(EngineError, match="Extra inputs are not permitted"):
            engine_of(server, prefix="continue_final_message").__enter__()
    assert answer.finish is Finish.STOP
    assert status == 400
    assert set(refusal) == ({"object", "message", "type", "param", "code"} if flat else {"error"})


def test_a_server_without_the_model_is_refused_with_the_names_it_has(model):
    with Vllm(model, "depthlm-3b") as server:
        with pytest.raises(EngineError, match=r"does not have the model 'embedded'; it has 'depthlm-3b'"):
            engine_of(server).__enter__()
        with pytest.raises(EngineError, match=r"engine.model is empty; name one of .*'depthlm-3b'"):
            engine_of(server, model="").__enter__()


def test_the_stand_ins_sample_when_the_temperature_is_forgotten(model):
    with Vllm(model) as server, engine_of(server) as engine:
        (answer,) = ask(engine, PROMPTS[:1])
        body = dict(server.chats[-1])
        del body["temperature"]
        texts = {server.respond(CHAT, body)[1]["choices"][0]["message"]["content"] for _ in range(5)}
    assert len(texts | {answer.text}) > 2
