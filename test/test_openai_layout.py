"""What a server puts between image and question: token ids go around it, and without them it is noticed and said."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import numpy as np
import pytest
from servers.brain import EmbeddedModel
from servers.fixtures import CHECKPOINT, PROFILE, engine_of, prompts_of
from servers.kinds import TrtLlmServe, Vllm
from servers.scripted import ScriptedModel
from servers.standin import RefusedError

from depthlm_ros.answers import number_probability, parse_answer
from depthlm_ros.engines.base import Answer, EngineError
from depthlm_ros.engines.openai import OpenAIEngine

PROMPTS = prompts_of(6)
SEPARATED = "with a line break between image and question"
NOT_KNOWN = "whether it puts a line break between image and question is not known"
ADVICE = "name the served checkpoint's directory in engine.checkpoint"


@pytest.fixture(scope="module")
def model() -> Iterator[EmbeddedModel]:
    with EmbeddedModel(CHECKPOINT) as model:
        yield model


@pytest.fixture(scope="module")
def in_process(model: EmbeddedModel) -> list[tuple[float, float]]:
    return numbers(ask(model.engine))


def ask(engine: OpenAIEngine) -> list[Answer]:
    return engine.generate(PROMPTS, max_new_tokens=PROFILE.max_new_tokens, stop=PROFILE.stop)


def numbers(answers: list[Answer]) -> list[tuple[float, float]]:
    """Depths and their probabilities: the embedded checkpoint says the same digits of either prompt, less surely."""
    parsed = [parse_answer(answer, PROFILE) for answer in answers]
    return [(p.metres, number_probability(*pair)) for *pair, p in zip(answers, parsed, parsed, strict=True)]


def has_image(body) -> bool:
    return any(isinstance(m["content"], list) and len(m["content"]) > 1 for m in body["messages"])


class QwenTokens:
    """Counts line breaks in a row as one token, as Qwen's tokenizer does; the embedded one's tokens are bytes."""

    def prompt_tokens(self, body, rendered):
        return self.model.count(re.sub(r"\n+", "\n", rendered))


class QwenTrtLlmServe(QwenTokens, TrtLlmServe):
    """As it is for Qwen2.5-VL."""


class NewTrtLlmServe(QwenTokens, TrtLlmServe):
    """As it is for Qwen3-VL in newer versions."""

    separator = ""


class QwenVllm(QwenTokens, Vllm):
    """Follows the template."""


def test_by_token_ids_trtllm_serve_answers_as_the_engine_in_process_does(model, in_process, caplog):
    with (
        caplog.at_level(logging.WARNING),
        TrtLlmServe(model) as server,
        engine_of(server, checkpoint=CHECKPOINT) as engine,
    ):
        np.testing.assert_allclose(numbers(ask(engine)), in_process, rtol=1e-4)
        state, asked = engine.details()["server/0"], server.chats[-1]
    assert "prefix prompt_token_ids" in state
    assert "line break" not in state
    assert not [record for record in caplog.records if record.name.startswith("depthlm_ros")]
    # The rendering of the server itself is another one, or this would show nothing.
    assert server.render(asked) != server.render({k: v for k, v in asked.items() if k != "prompt_token_ids"})


def test_by_messages_it_reads_another_prompt_and_that_is_said(model, in_process, caplog):
    with (
        caplog.at_level(logging.WARNING),
        TrtLlmServe(model) as server,
        engine_of(server, checkpoint=CHECKPOINT, prefix="chat_template_kwargs") as engine,
    ):
        found = numbers(ask(engine))
        assert np.abs(np.divide(found, in_process) - 1.0).max() > 0.01
        assert SEPARATED in engine.details()["server/0"]
        server.kill()
        with pytest.raises(EngineError):
            ask(engine)
        server.start()
        while "answering" not in engine.details()["server/0"]:
            try:
                ask(engine)
            except EngineError:
                continue
    (warning,) = [
        r.getMessage() for r in caplog.records if SEPARATED in r.getMessage() and ADVICE in r.getMessage()
    ]
    assert server.url in warning


@pytest.mark.parametrize(
    ("kind", "said", "warned"),
    [
        (QwenTrtLlmServe, SEPARATED, True),
        (NewTrtLlmServe, "", False),
        (QwenVllm, "", False),
        (TrtLlmServe, NOT_KNOWN, True),
        (Vllm, NOT_KNOWN, False),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_without_the_checkpoint_the_line_break_is_found_by_counting(kind, said, warned, model, caplog):
    with caplog.at_level(logging.WARNING), kind(model) as server, engine_of(server) as engine:
        state = engine.details()["server/0"]
    assert said in state
    assert ("line break" in state) == bool(said)
    assert any(ADVICE in record.getMessage() for record in caplog.records) == warned


class Trimming(QwenVllm):
    """Its template strips what it is given, so that a line break in front of a question never arrives."""

    def render(self, body):
        messages = [
            m
            | {
                "content": [
                    p | {"text": p["text"].strip()} if p["type"] == "text" else p for p in m["content"]
                ]
            }
            if isinstance(m["content"], list)
            else m
            for m in body["messages"]
        ]
        return super().render(body | {"messages": messages})


def test_a_template_that_strips_is_not_taken_for_one_with_a_line_break(model):
    with Trimming(model) as server, engine_of(server) as engine:
        assert NOT_KNOWN in engine.details()["server/0"]


class RefusesImagesByIds(TrtLlmServe):
    """Refuses a question about an image that is given as token ids."""

    def check(self, body):
        super().check(body)
        if body.get("prompt_token_ids") and has_image(body):
            raise RefusedError(400, {"error": "no images here"})


class BlindByIds(TrtLlmServe):
    """Takes token ids and forgets the image beside them."""

    def prompt_tokens(self, body, rendered):
        return len(body.get("prompt_token_ids") or ()) or super().prompt_tokens(body, rendered)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (RefusesImagesByIds, "no images here"),
        (BlindByIds, "does not look at the image beside prompt_token_ids"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_where_token_ids_do_not_go_with_images_another_way_is_taken_and_the_difference_said(
    kind, reason, model, caplog
):
    with caplog.at_level(logging.INFO), kind(model) as server:
        with engine_of(server, checkpoint=CHECKPOINT) as engine:
            state = engine.details()["server/0"]
        with pytest.raises(EngineError, match=reason):
            engine_of(server, checkpoint=CHECKPOINT, prefix="prompt_token_ids").__enter__()
    assert "prefix chat_template_kwargs" in state
    assert NOT_KNOWN in state
    assert any(reason in r.getMessage() and "token ids" in r.getMessage() for r in caplog.records)


def test_token_ids_of_another_template_are_not_sent(model, tmp_path):
    for file in CHECKPOINT.glob("*.js*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    template = (CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text("Hello. " + template, encoding="utf-8")
    with TrtLlmServe(model) as server:
        with engine_of(server, checkpoint=tmp_path) as engine:
            assert "prefix chat_template_kwargs" in engine.details()["server/0"]
        with pytest.raises(EngineError, match="counts other tokens"):
            engine_of(server, checkpoint=tmp_path, prefix="prompt_token_ids").__enter__()


def test_a_model_of_another_tokenizer_is_not_asked_by_ids_of_the_embedded_one():
    """The configuration names the embedded checkpoint by default, also where another model is served."""
    with TrtLlmServe(ScriptedModel()) as server, engine_of(server, checkpoint=CHECKPOINT) as engine:
        assert "prefix chat_template_kwargs" in engine.details()["server/0"]
