"""Decoded tokens become text whose pieces join to the whole, and stop strings are seen across tokens."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny_models import FAMILIES, shared_checkpoint

from depthlm_ros.engines.base import Answer, Finish
from depthlm_ros.engines.hf_decoding import GreedyDecoding, TextStream


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared_checkpoint(request.param))


def decode(tokenizer, ids: list[int], stop: tuple[str, ...] = (), **options) -> Answer:
    watch = GreedyDecoding(
        tokenizer,
        [[]],
        **{"eos": frozenset(), "max_new_tokens": 99, "late": lambda: False} | options,
        stop=stop,
    )
    seen = torch.zeros((1, 1), dtype=torch.int64)
    for token in ids:
        watch.record(seen, torch.zeros(1, 4))
        seen = torch.cat([seen, torch.tensor([[token]])], dim=1)
        if watch.done(seen, None).item():
            break
    return watch.answers()[0]


@pytest.mark.parametrize(
    "text", [" 2.42 meters", "naïve café 東京 🤖 x", "\n\n<answer> 2 </answer>", "  two  spaces "]
)
def test_pieces_join_to_the_text(tokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = decode(tokenizer, ids)
    assert answer.text == text
    assert "".join(t.text for t in answer.tokens) == text
    assert len(answer.tokens) == len(ids)
    assert all("\ufffd" not in t.text for t in answer.tokens)


def test_any_tokens_join_to_what_the_tokenizer_makes_of_them(tokenizer) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        ids = rng.integers(0, len(tokenizer), 25).tolist()
        answer = decode(tokenizer, ids)
        assert answer.text == tokenizer.decode(ids, skip_special_tokens=True)
        assert "".join(t.text for t in answer.tokens) == answer.text


def test_a_context_gives_the_first_token_its_text(tokenizer) -> None:
    ids = tokenizer("The point is around 2.42", add_special_tokens=False)["input_ids"]
    stream = TextStream(tokenizer, ids[:4])
    start = tokenizer.decode(ids[:4])
    assert start + "".join(stream.add(i) for i in ids[4:]) == "The point is around 2.42"


def test_a_stop_string_is_seen_across_tokens(tokenizer) -> None:
    ids = tokenizer(" 2.42 xyz 2.42", add_special_tokens=False)["input_ids"]
    answer = decode(tokenizer, ids, stop=("never", "yz"))
    assert answer.finish is Finish.STOP
    assert answer.text == " 2.42 xyz"
    assert decode(tokenizer, ids, stop=("never", "")).text == " 2.42 xyz 2.42"


def test_the_last_token_allowed_ends_with_length(tokenizer) -> None:
    ids = tokenizer(" 2.42 xyz", add_special_tokens=False)["input_ids"]
    answer = decode(tokenizer, ids, max_new_tokens=3)
    assert (len(answer.tokens), answer.finish) == (3, Finish.LENGTH)
