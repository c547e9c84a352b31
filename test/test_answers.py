"""What the parser reads out of an answer, and what it refuses to read into one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthlm_ros.answers import AnswerStatus, ParsedAnswer, number_probability, parse_answer
from depthlm_ros.engines.base import Answer, Finish, Token
from depthlm_ros.profile import BUILT_IN_PROFILES

PROFILE = BUILT_IN_PROFILES["depthlm-7b"]
S = AnswerStatus
PREFIX = "<think> The point is around"


def official(depth: float) -> str:
    return (
        f"<think> The point is around {depth:.2f} meters away from the camera. </think>\n\n"
        f"<answer> {depth:.2f} </answer>"
    )


def read(text: str, finish: Finish = Finish.STOP, prefix: str | None = None) -> ParsedAnswer:
    return parse_answer(Answer(text, finish=finish), PROFILE, prefix=prefix)


def test_the_statuses_have_the_numbers_of_the_message():
    names = (
        "OK UNDRAWABLE NO_NUMBER SEVERAL_NUMBERS NOT_POSITIVE NOT_FINITE OUT_OF_RANGE TRUNCATED DEADLINE "
        "ENGINE_ERROR BAD_FORMAT OVER_BUDGET"
    )
    assert [s.name for s in sorted(S)] == names.split()
    assert [int(s) for s in sorted(S)] == list(range(12))


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        (" 2.42 meters", 2.42),
        (" 2.42 meters away from the camera. </think>\n\n<answer> 2.42 </answer>", 2.42),
        (" 2.42", 2.42),  # a server that leaves out the stop string
        ("2.42 meters", 2.42),  # and one that strips the leading space
        ("\n2.42 meters", 2.42),
        (official(2.42), 2.42),  # an engine that cannot be given a prefix
        ("<answer>2.42</answer>", 2.42),  # the official parser misses this one
        ("<answer> 2.42</answer>", 2.42),
        ("<ANSWER>\n2.42\n</ANSWER>", 2.42),
        ("<answer> about 2.42 metres. </answer>", 2.42),
        (" 3.00 meters away. </think>\n\n<answer> 2.42 </answer>", 2.42),  # what is answered counts
        ("<answer> 2.42 </answer> <answer> 2.42 </answer>", 2.42),
        (" 2.42 meters, that is 2.42 m", 2.42),
        (" 2.42.", 2.42),
        (" 2,", 2.0),
        (" 2. Then", 2.0),
        (" .5 meters", 0.5),
        (" +2.42 meters", 2.42),
        (" ~2.42 meters", 2.42),
        (" **2.42** meters", 2.42),
        (" 2.42e1 meters", 24.2),
        (" 999 meters", 999.0),
        (" 1000 meters", 1000.0),
        (" 2.42m", 2.42),
        (" 2.42 m", 2.42),
        (" 2.42 metres", 2.42),
        (" 242 cm", 2.42),
        (" 242 centimeters", 2.42),
        (" 24.2 dm", 2.42),
        (" 2420mm", 2.42),
        (" 2420 MM", 2.42),
        (" 1,234.5 mm", 1.2345),
        (" 0.5 km", 500.0),
        (" 10 feet", 3.048),
        (" 10 ft", 3.048),
        (" 1 foot", 0.3048),
        (" 10 inches", 0.254),
        (" 2 yards", 1.8288),
        (" 2 yds", 1.8288),
        (" 242 cms", 2.42),
        (" 0.1 mi", 160.9344),
        (" a 10-foot gap", 3.048),
        (" 2.42-meter gap", 2.42),
        (" 2.42米", 2.42),
        (" 2.42 mètres", 2.42),
        (" 2.42 METERS", 2.42),
        (" 2.42 away from the camera", 2.42),  # ordinary words are no units
        (" 2.42 from here", 2.42),
        (" 2.42 and nothing else", 2.42),
        (" 2.42 I think", 2.42),
        (' "2.42"', 2.42),
        (" 2.42 meters </think>", 2.42),
        (" 2.42 - about as far as the door", 2.42),
        (" 2.42 meters, a third of the room", 2.42),
    ],
)
def test_the_number_is_read_in_metres(text, metres):
    parsed = read(text)
    assert parsed.status is S.OK
    assert parsed.metres == pytest.approx(metres, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", S.NO_NUMBER),
        (" far away", S.NO_NUMBER),
        (" two meters", S.NO_NUMBER),
        ("<answer> </answer>", S.NO_NUMBER),
        ("<answer></answer>", S.NO_NUMBER),
        (" 2.42 meters away </think><answer> unknown </answer>", S.NO_NUMBER),
        ("the shelf2", S.NO_NUMBER),
        (" ２.４２ meters", S.NO_NUMBER),
        (" between 2 and 3 meters", S.SEVERAL_NUMBERS),
        (" 2.1-2.5 meters", S.SEVERAL_NUMBERS),
        (" 2.1–2.5 meters", S.SEVERAL_NUMBERS),
        (" 5 ft 10 inches", S.SEVERAL_NUMBERS),
        (" 1/2 meter", S.SEVERAL_NUMBERS),
        (" 2 point 42", S.SEVERAL_NUMBERS),
        (" 2, 42", S.SEVERAL_NUMBERS),
        ("<answer> 2.42 or 3.42 </answer>", S.SEVERAL_NUMBERS),
        ("<answer> 2.42 </answer> <answer> 3.10 </answer>", S.SEVERAL_NUMBERS),
        ("<answer> 3.10 <answer> 2.42 </answer>", S.SEVERAL_NUMBERS),
        (" -2.42 meters", S.NOT_POSITIVE),
        ("-2.42 meters", S.NOT_POSITIVE),
        (" - 2.42 meters", S.NOT_POSITIVE),
        (" -   2.42 meters", S.NOT_POSITIVE),
        (" \u22122.42 meters", S.NOT_POSITIVE),
        (" \u20132.42 meters", S.NOT_POSITIVE),
        (" \uff0d2.42 meters", S.NOT_POSITIVE),
        ("<answer>-2.42</answer>", S.NOT_POSITIVE),  # the official parser counts these as hits
        ("<answer> -2.42 </answer>", S.NOT_POSITIVE),
        (" 0.00 meters", S.NOT_POSITIVE),
        (" 0 meters", S.NOT_POSITIVE),
        (" -0.0 meters", S.NOT_POSITIVE),
        (" 1e-400 meters", S.NOT_POSITIVE),
        (" 1e-300 meters", S.NOT_POSITIVE),  # would become 0.0 in a float32 depth image
        (" inf meters", S.NOT_FINITE),
        (" -inf", S.NOT_FINITE),
        (" Infinity", S.NOT_FINITE),
        (" NaN meters", S.NOT_FINITE),
        (" 1e999 meters", S.NOT_FINITE),
        (" 1e9 meters", S.OUT_OF_RANGE),
        (" 1000.01 meters", S.OUT_OF_RANGE),
        (" 1,234.5 meters", S.OUT_OF_RANGE),
        (" 2 km", S.OUT_OF_RANGE),
        (" 1 mile", S.OUT_OF_RANGE),
        (" 2,42 meters", S.BAD_FORMAT),
        ("<answer>2,42</answer>", S.BAD_FORMAT),
        (" 12,34 meters", S.BAD_FORMAT),
        (" 1,23,456 mm", S.BAD_FORMAT),
        (" 2.42.1 meters", S.BAD_FORMAT),
        (" 1_000 mm", S.BAD_FORMAT),
        (" 2m30", S.BAD_FORMAT),
        (" 2.４2 meters", S.BAD_FORMAT),
        (" 24 in", S.BAD_FORMAT),
        (" minus 3 meters", S.NOT_POSITIVE),
        (" Minus  3", S.NOT_POSITIVE),
        (" negative 3 meters", S.NOT_POSITIVE),
        (" 20%", S.BAD_FORMAT),
        (" 20 % of the way", S.BAD_FORMAT),
        (" 20 percent", S.BAD_FORMAT),
        (" 20 per cent", S.BAD_FORMAT),
        (" 5 thousand meters", S.BAD_FORMAT),
        (" 5 hundred", S.BAD_FORMAT),
        (" 1.5 million meters", S.BAD_FORMAT),
        (" 5k", S.BAD_FORMAT),
        (" 5 K meters", S.BAD_FORMAT),
        (" 5M", S.BAD_FORMAT),
        (" 5 M", S.BAD_FORMAT),
        (" 5Mm", S.BAD_FORMAT),
        (" 3½ meters", S.BAD_FORMAT),
        (" 3 ½ meters", S.BAD_FORMAT),
        (" 3 and a half meters", S.BAD_FORMAT),
        (" 3 meters and a half", S.BAD_FORMAT),
        (" 3 quarters of a meter", S.BAD_FORMAT),
        (" 5 µm", S.BAD_FORMAT),
        (" 5 μm", S.BAD_FORMAT),
        (" 5um", S.BAD_FORMAT),
        (" 5 nm", S.BAD_FORMAT),
        (" 5 seconds", S.BAD_FORMAT),
        (" 5s", S.BAD_FORMAT),
        (" 5 min", S.BAD_FORMAT),
        (" 45 degrees", S.BAD_FORMAT),
        (" 45°", S.BAD_FORMAT),
        (" 5″", S.BAD_FORMAT),
        (" 240 pixels", S.BAD_FORMAT),
        (" 240px", S.BAD_FORMAT),
        (" 5 m/s", S.BAD_FORMAT),
        (" 5 meters per second", S.BAD_FORMAT),
        (" 5 m²", S.BAD_FORMAT),
        (" 5 m^2", S.SEVERAL_NUMBERS),
        (" 5 square meters", S.BAD_FORMAT),
        (" 5 steps", S.BAD_FORMAT),
        (" 5 times the width", S.BAD_FORMAT),
        (" 5xyz", S.BAD_FORMAT),
        (" 5 厘米", S.BAD_FORMAT),
        (" $5", S.BAD_FORMAT),
        (" 5€", S.BAD_FORMAT),
        ("<answer> 20% </answer>", S.BAD_FORMAT),
        ("<answer> minus 3 </answer>", S.NOT_POSITIVE),
    ],
)
def test_what_is_not_one_believable_number_is_nan_with_its_reason(text, status):
    parsed = read(text)
    assert math.isnan(parsed.metres)
    assert parsed.status is status


@pytest.mark.parametrize(
    ("text", "metres", "status"),
    [
        ("", math.nan, S.TRUNCATED),
        (" ", math.nan, S.TRUNCATED),
        (" -", math.nan, S.TRUNCATED),
        (" 2", math.nan, S.TRUNCATED),
        (" 2.", math.nan, S.TRUNCATED),
        (" 2.4", math.nan, S.TRUNCATED),
        (" 2.42", math.nan, S.TRUNCATED),
        (" 2.42 ", math.nan, S.TRUNCATED),  # centimetres may follow
        (" 2.42 m", math.nan, S.TRUNCATED),  # or miles
        (" 2.42e+", math.nan, S.TRUNCATED),
        (" 2.42 m ", math.nan, S.TRUNCATED),  # or metres per second
        (" 2.42 m/", math.nan, S.TRUNCATED),
        (" 2,", math.nan, S.TRUNCATED),
        (" 2.42 meters away", 2.42, S.OK),
        (" 2.42 meters away from the camera. </think>", 2.42, S.OK),
        (" 2.42 meters away from the camera. </think>\n\n<ans", 2.42, S.OK),
        (" 2.42 meters away from the camera. </think>\n\n<answer>", 2.42, S.OK),
        (" 2.42 meters away from the camera. </think>\n\n<answer> 2.4", math.nan, S.TRUNCATED),
        (" 2.42 meters away from the camera. </think>\n\n<answer> 2.42 </ans", 2.42, S.OK),
        ("<answer>2.42</answer>", 2.42, S.OK),
    ],
)
def test_an_answer_cut_short_never_yields_half_a_number(text, metres, status):
    parsed = read(text, Finish.LENGTH)
    assert parsed.status is status
    assert parsed.metres == metres or (math.isnan(metres) and math.isnan(parsed.metres))


@pytest.mark.parametrize(
    ("finish", "status"), [(Finish.DEADLINE, S.DEADLINE), (Finish.ERROR, S.ENGINE_ERROR)]
)
@pytest.mark.parametrize("text", ["", " 2.42 meters"])
def test_an_unanswered_prompt_has_no_depth_whatever_its_text(finish, status, text):
    parsed = read(text, finish)
    assert math.isnan(parsed.metres)
    assert parsed.status is status


def test_numbers_in_the_prefix_are_ours_not_the_models():
    assert read(" 2.42 meters", prefix="Camera 1: the point is around").metres == 2.42
    assert read(" far", prefix="The point is around 3").status is S.NO_NUMBER
    assert read(" 2.42 </answer>", prefix="<think> 9 m </think><answer>").metres == 2.42


@pytest.mark.parametrize(
    "garbage",
    [
        "1" * 100_000,
        "1." * 50_000,
        "1," * 50_000,
        "1+" * 50_000,
        "1 " * 50_000,
        "-" * 100_000,
        "- " * 50_000,
        " " * 100_000,
        "2" + " " * 100_000,
        "-" + " " * 100_000 + "x",
        "2" + " " * 100_000 + "!",
        "2 m" + " " * 100_000 + "!",
        "2 and" + " " * 100_000 + "a" + " " * 100_000 + "!",
        "2" + "m" * 100_000,
        "2 -" * 33_000,
        "minus " * 16_000,
        "minus" + " " * 100_000 + "!",
        "<answer>" * 12_500,
        "<answer></answer>" * 6_000,
        "<answer>1</answer>" * 6_000,
        "inf" * 33_000,
        "e" * 100_000,
        "1e+" * 33_000,
        "\u0663" * 100_000,
        "\x00\ud800\U0001f4a9" * 33_000,
    ],
    ids=lambda text: ascii(text[:12]),
)
@pytest.mark.parametrize("finish", [Finish.STOP, Finish.LENGTH])
def test_a_hundred_kilobytes_of_garbage_are_read_without_backtracking(garbage, finish):
    parsed = read(garbage, finish)  # linear in the length; backtracking would not come back within the hour
    assert parsed.status is S.OK or math.isnan(parsed.metres)


WORDS = ["<answer>", "</answer>", "<think>", "</think>", "2.42", "-", "\u2212", ",", ".", "e", "m", "cm", " "]
SIGNS = ["inf", "nan", "0", "9", "\n", "+", "_", "in", "meters", "1e", "\u0663", "\uff12"]


@given(
    st.one_of(st.text(), st.lists(st.sampled_from(WORDS + SIGNS), max_size=12).map("".join)),
    st.sampled_from(Finish),
    st.sampled_from([None, "", PREFIX, "<answer>"]),
)
@settings(max_examples=400, deadline=None)
def test_any_text_gives_a_usable_depth_or_nan_with_a_reason(text, finish, prefix):
    parsed = read(text, finish, prefix)
    if parsed.status is S.OK:
        assert 0.0 < parsed.metres <= PROFILE.max_depth_m
        assert np.float32(parsed.metres) > 0.0
        start, end = parsed.span
        assert any(character.isdigit() for character in text[start:end])
    else:
        assert math.isnan(parsed.metres)


DEPTHS = st.floats(0.01, 999.99).map(lambda d: round(d, 2))


@given(DEPTHS, st.booleans())
@settings(deadline=None)
def test_a_depth_written_as_in_training_is_read_back(depth, prefixed):
    text = official(depth)
    parsed = read(text.removeprefix(PREFIX) if prefixed else text)
    assert parsed.status is S.OK
    assert parsed.metres == depth


@given(DEPTHS)
@settings(max_examples=25, deadline=None)
def test_a_text_cut_anywhere_never_gives_another_depth(depth):
    text = official(depth)
    for end in range(len(text) + 1):
        for part, prefix in ((text[:end], ""), (text[:end][len(PREFIX) :], PREFIX)):
            parsed = read(part, Finish.LENGTH, prefix)
            assert math.isnan(parsed.metres) or parsed.metres == depth
    assert read(text, Finish.LENGTH).metres == depth


def tokens(*pairs: tuple[str, float]) -> Answer:
    made = tuple(Token(text, math.log(p) if p else -math.inf) for text, p in pairs)
    return Answer("".join(text for text, _ in pairs), made)


def probability(answer: Answer) -> float:
    return number_probability(answer, parse_answer(answer, PROFILE))


def test_the_probability_is_that_of_the_numbers_tokens_alone():
    answer = tokens((" ", 0.3), ("2", 0.5), (".", 0.9), ("42", 0.8), (" meters", 0.1))
    assert probability(answer) == pytest.approx(0.5 * 0.9 * 0.8)


def test_a_token_that_holds_the_space_and_the_digit_counts():
    assert probability(tokens((" 2", 0.5), (".42", 0.5), (" meters", 0.1))) == pytest.approx(0.25)


def test_the_tokens_of_the_answer_count_where_it_is_the_answer_that_is_read():
    answer = tokens(
        (" 3.00", 0.2), (" meters </think>", 0.3), ("<answer> ", 0.4), ("2.42", 0.5), ("</answer>", 0.6)
    )
    assert probability(answer) == pytest.approx(0.5)


def test_without_log_probabilities_or_a_number_there_is_no_probability():
    assert math.isnan(probability(Answer(" 2.42 meters")))
    assert math.isnan(probability(Answer(" 2.42", (Token(" 2", -0.1), Token(".42", math.nan)))))
    assert math.isnan(probability(tokens((" far", 0.5))))
    assert math.isnan(number_probability(tokens((" 2", 0.5)), ParsedAnswer(math.nan, S.NO_NUMBER)))


def test_a_probability_stays_within_zero_and_one():
    assert probability(Answer(" 2.42", (Token(" 2.42", 1e-6),))) == 1.0
    assert probability(tokens((" 2.42", 0.0))) == 0.0


@pytest.mark.parametrize(
    ("text", "step_m"),
    [
        (" 2.42 meters", 0.01),
        (" 2.4 meters", 0.1),
        (" 2.400 meters", 0.001),
        (" 3 meters", 1.0),
        (" 3. meters", 1.0),
        (" 20 meters", 1.0),
        (" 1,000 m", 1.0),
        (" 242 cm", 0.01),
        (" 2.4e1 m", 1.0),
        (" 250e-2 m", 0.01),
        (" 0.5 km", 100.0),
    ],
)
def test_the_last_written_digit_says_how_fine_the_number_is(text, step_m):
    assert read(text).step_m == pytest.approx(step_m)


def test_no_step_is_finer_than_what_float32_tells_apart():
    step = read(f" 2.{'0' * 5000} meters").step_m
    assert np.float32(2.0) + np.float32(step) > np.float32(2.0)
    assert step < 1e-6
    assert math.isnan(read(" far").step_m)
