"""From streamed token ids to an answer: stop strings across tokens, log-probabilities of both layouts."""

import math
from types import SimpleNamespace

import pytest

from depthlm_ros.engines.base import Finish
from depthlm_ros.engines.trtllm_text import StreamedAnswer

END = 99


class Letters:
    """STANDS IN for a tokenizer: ids are letters, ``END`` adds no text."""

    def decode(self, ids, **_):
        return "".join(chr(i) for i in ids if i != END)


def stream(stop=()):
    return StreamedAnswer(Letters(), [ord("?")], ends={END}, stop=stop)


def ids(text):
    return [ord(letter) for letter in text]


def test_a_stop_string_across_tokens_ends_the_answer_with_the_token_that_completes_it():
    answer = stream(stop=("", "me"))
    assert not answer.take(ids("2.5 m"), None)
    assert answer.take(ids("2.5 meters"), None)
    assert answer.take(ids("2.5 meters away"), None)
    done = answer.answer(Finish.LENGTH)
    assert (done.text, done.finish) == ("2.5 me", Finish.STOP)
    assert [token.text for token in done.tokens] == list("2.5 me")


def test_an_end_token_ends_the_answer_and_is_no_part_of_it():
    answer = stream()
    assert answer.take([*ids("2.5"), END, *ids("!")], None)
    assert answer.answer(Finish.STOP).text == "2.5"


def test_what_did_not_end_by_itself_says_so():
    answer = stream()
    assert not answer.take(ids("2.5"), None)
    assert answer.answer(Finish.LENGTH).finish is Finish.LENGTH
    assert stream().answer(Finish.DEADLINE).text == ""


def test_log_probabilities_of_either_layout():
    answer = stream()
    entry = {ord("1"): SimpleNamespace(logprob=-0.5), ord("2"): SimpleNamespace(logprob=-2.0)}
    answer.take(ids("1234"), [entry, -0.25, {ord("9"): SimpleNamespace(logprob=-1.0)}])
    first, second, other, without = (token.logprob for token in answer.answer(Finish.STOP).tokens)
    assert (first, second) == (-0.5, -0.25)
    assert math.isnan(other)
    assert math.isnan(without)


@pytest.mark.parametrize("value", [math.nan, 0.7, math.inf])
def test_a_broken_log_probability_is_refused(value):
    with pytest.raises(ValueError, match="expected a log-probability of 0 or less"):
        stream().take(ids("1"), [value])


def test_rounding_above_zero_is_zero():
    answer = stream()
    answer.take(ids("1"), [1e-6])
    assert answer.answer(Finish.STOP).tokens[0].logprob == 0.0
