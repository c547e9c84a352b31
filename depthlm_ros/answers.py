"""From the model's words to metres: parse the number, score it, and never make one up."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import IntEnum

import numpy as np

from depthlm_ros.engines.base import Answer, Finish
from depthlm_ros.profile import CheckpointProfile


class AnswerStatus(IntEnum):
    """What became of a query: all but ``OK`` leave its depth NaN. The numbers are those of SparseDepth.msg."""

    OK = 0
    UNDRAWABLE = 1
    """The pixel is not visible, or the arrow (where one is drawn) does not fit beside it; nothing was asked."""
    NO_NUMBER = 2
    SEVERAL_NUMBERS = 3
    """The answer names different numbers and does not say which one it means."""
    NOT_POSITIVE = 4
    NOT_FINITE = 5
    OUT_OF_RANGE = 6
    """Beyond the profile's ``max_depth_m``."""
    TRUNCATED = 7
    """Decoding ended inside or right behind the number, so that digits may be missing."""
    DEADLINE = 8
    ENGINE_ERROR = 9
    BAD_FORMAT = 10
    """A number that can be read in more than one way (``2,42``), or of something else than metres (``20%``)."""
    OVER_BUDGET = 11
    """The frame's budget of seconds or points was spent before it was this pixel's turn; nothing was asked."""


@dataclass(frozen=True)
class ParsedAnswer:
    """The metres that an answer names.

    Attributes:
        metres: The number in metres, NaN unless ``status`` is ``OK``.
        status: What the parser found.
        span: Characters of ``Answer.text`` that hold the number, as (start, end); (0, 0) without one.
        step_m: What one more in the last written digit adds, in metres: 0.01 for "2.42", 1 for "3". NaN unless
            ``status`` is ``OK``.
    """

    metres: float
    status: AnswerStatus
    span: tuple[int, int] = (0, 0)
    step_m: float = math.nan


_NUMBER = re.compile(
    r"(?:(?<![\d.,])(?P<minus>[-\u2010-\u2015\u2212\ufe58\ufe63\uff0d])\s*|(?<!\w)(?P<spelled>minus|negative)\s*"
    r"|(?<![\w.,])\+?)(?P<currency>(?<=[$\u20ac\u00a3\u00a5]))?"
    r"(?:(?P<word>inf(?:inity)?|nan)\b"
    r"|(?P<digits>(?:[0-9][0-9,]*(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?)(?P<odd>[_.]?[\d_])?)"
    r"(?:(?P<gap>\s*(?:-\s*)?)(?P<unit>[^\W\d_]+))?"
    r"(?P<tail>[\d^]|\s*[%\u2030\u2031\u00b0\u2032\u2033$\u20ac\u00a3\u00a5]|\s*/\s*[^\W\d_]"
    r"|\s+(?:per|squared|cubed)\b|(?:\s+and)?\s+(?:an?|one|two|three)\s+(?:half|quarters?|thirds?)\b)?",
    re.IGNORECASE,
)
"""A number, the word behind it (``unit``, which also takes vulgar fractions and superscripts), and in ``tail`` what
makes something else of both: ``%``, a rate, a power, a fraction. Every piece is linear in the text's length."""
_OPEN_END = re.compile(r"\s*(?:[\w.,+/^-]+\s*)?")
"""What may stand behind a number while its digits or its unit are not known to be over."""
_ANSWER_TAG = re.compile(r"<answer>(?P<body>.*?)(?P<end></answer>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?\Z")
_METRES_PER_UNIT = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres", "mètre", "mètres", "米"), 1.0),
    "mm": 0.001, "mms": 0.001, "millimeter": 0.001, "millimeters": 0.001, "millimetre": 0.001, "millimetres": 0.001,
    "dm": 0.1, "decimeter": 0.1, "decimeters": 0.1, "decimetre": 0.1, "decimetres": 0.1,
    "cm": 0.01, "cms": 0.01, "centimeter": 0.01, "centimeters": 0.01, "centimetre": 0.01, "centimetres": 0.01,
    "km": 1000.0, "kms": 1000.0, "kilometer": 1000.0, "kilometers": 1000.0, "kilometre": 1000.0, "kilometres": 1000.0,
    "ft": 0.3048, "foot": 0.3048, "feet": 0.3048, "inch": 0.0254, "inches": 0.0254,
    "yd": 0.9144, "yds": 0.9144, "yard": 0.9144, "yards": 0.9144, "mi": 1609.344, "mile": 1609.344, "miles": 1609.344,
}  # fmt: skip
"""Units of length, exact by definition."""
_OTHER_WORDS = """
    in ins fts micron microns um micrometer micrometers micrometre micrometres nm nanometer nanometers nanometre
    nanometres pm nmi nautical fathom fathoms furlong furlongs league leagues au light square sq cubic
    s sec secs second seconds ms millisecond milliseconds min mins minute minutes h hr hrs hour hours day days o
    deg degs degree degrees rad rads radian radians px pix pixel pixels kg kgs lb lbs mph kph kmh fps
    k thousand thousands million millions billion billions trillion hundred hundreds dozen dozens lakh crore
    half halves quarter quarters third thirds fifth fifths tenth tenths hundredth hundredths thousandth thousandths
    percent percentage pct per times x step steps pace paces floor floors stories storeys block blocks
"""
_NOT_METRES = frozenset(_OTHER_WORDS.split())
"""Words behind a number that make it something else, or (``in``) may do so."""
_SMALLEST_M = float(np.finfo(np.float32).tiny)
"""Below this, float32 would make the depth 0."""
_FINEST_STEP = float(np.finfo(np.float32).eps)
"""Share of the depth below which float32 tells no two depths apart, however many decimals were written."""


def parse_answer(answer: Answer, profile: CheckpointProfile, *, prefix: str | None = None) -> ParsedAnswer:
    """Read the metres out of an answer.

    What stands between the answer tags counts (with or without spaces; the official parser misses the
    latter). Where no number came there, because only the number was decoded or the text was cut, it is the
    number of the thought. Numbers that differ are refused, and so is a number at the end of a text that was cut.

    Args:
        answer: What the engine returned.
        profile: Gives the largest believable depth.
        prefix: The start of the answer that was given to the model; None takes the profile's.

    Returns:
        The metres and what became of the query; negative and zero depths are refused (the official parser
        counts negative ones as hits).
    """
    if answer.finish is Finish.ERROR:
        return ParsedAnswer(math.nan, AnswerStatus.ENGINE_ERROR)
    if answer.finish is Finish.DEADLINE:
        return ParsedAnswer(math.nan, AnswerStatus.DEADLINE)
    given = profile.prompt_prefix if prefix is None else prefix
    if given[-1:].isalnum():
        given += " "  # so that an engine that drops the leading space is understood
    text, shift = given + answer.text, len(given)
    cut = answer.finish is Finish.LENGTH
    tags = list(_ANSWER_TAG.finditer(text))
    spans = [(max(start, shift), end) for start, end in (tag.span("body") for tag in tags)]
    found = [match for span in spans for match in _NUMBER.finditer(text, *span)]
    if found:
        parsed = _only_number(found, cut and not tags[-1]["end"], spans[-1][1], profile.max_depth_m)
    elif tags and tags[-1]["end"]:
        parsed = ParsedAnswer(math.nan, AnswerStatus.NO_NUMBER)
    else:
        end = tags[0].start() if tags else len(text)
        found = list(_NUMBER.finditer(text, shift, end))
        parsed = _only_number(found, cut and not tags, end, profile.max_depth_m)
    return replace(parsed, span=(max(parsed.span[0] - shift, 0), max(parsed.span[1] - shift, 0)))


def _only_number(found: list[re.Match[str]], cut: bool, end: int, max_depth_m: float) -> ParsedAnswer:
    """The number that all matches agree on; ``cut`` says that the text goes on unseen after ``end``."""
    if not found:
        return ParsedAnswer(math.nan, AnswerStatus.TRUNCATED if cut else AnswerStatus.NO_NUMBER)
    last = found[-1]
    unfinished = cut and _OPEN_END.fullmatch(last.string, _span(last)[1], end) is not None
    parsed = [_read(match, unfinished and match is last, max_depth_m) for match in found]
    if len({(p.status, p.metres if p.status is AnswerStatus.OK else None) for p in parsed}) > 1:
        return ParsedAnswer(math.nan, AnswerStatus.SEVERAL_NUMBERS, parsed[0].span)
    return parsed[0]


def _span(match: re.Match[str]) -> tuple[int, int]:
    return match.span("digits" if match["digits"] else "word")


def _read(match: re.Match[str], unfinished: bool, max_depth_m: float) -> ParsedAnswer:
    """Turn one match into metres."""

    def refused(status: AnswerStatus) -> ParsedAnswer:
        return ParsedAnswer(math.nan, status, _span(match))

    if match["word"]:
        return refused(AnswerStatus.NOT_FINITE)
    if unfinished:
        return refused(AnswerStatus.TRUNCATED)
    digits = match["digits"].rstrip(",")
    if match["odd"] or match["tail"] or match["currency"] is not None:
        return refused(AnswerStatus.BAD_FORMAT)
    if not _in_a_length(match["unit"] or "", match["gap"] or ""):
        return refused(AnswerStatus.BAD_FORMAT)
    if "," in digits and not _THOUSANDS.match(digits):
        return refused(AnswerStatus.BAD_FORMAT)
    unit_m = _METRES_PER_UNIT.get((match["unit"] or "").lower(), 1.0)
    metres = float(digits.replace(",", "")) * unit_m
    if not math.isfinite(metres):
        return refused(AnswerStatus.NOT_FINITE)
    if match["minus"] or match["spelled"] or metres < _SMALLEST_M:
        return refused(AnswerStatus.NOT_POSITIVE)
    if metres > max_depth_m:
        return refused(AnswerStatus.OUT_OF_RANGE)
    exponent = Decimal(digits.replace(",", "")).as_tuple().exponent
    step_m = max(10.0 ** int(exponent) * unit_m, metres * _FINEST_STEP)
    return ParsedAnswer(metres, AnswerStatus.OK, _span(match), step_m)


def _in_a_length(word: str, gap: str) -> bool:
    """Whether the word behind a number leaves it a length: a known unit, or an ordinary word such as "away".

    Without a gap it must be a unit (``5kk``), and so must a word beyond ASCII (``3½``, ``5 µm``, ``5 m²``).
    """
    if word.lower() in _METRES_PER_UNIT:
        return word not in ("M", "Mm")  # millions, megametres
    return not word or (gap != "" and word.isascii() and word.lower() not in _NOT_METRES)


def number_probability(answer: Answer, parsed: ParsedAnswer) -> float:
    """The model's probability of the number's own tokens: exp of the sum of their log-probabilities.

    Returns:
        A value in [0, 1], or NaN where the engine gave no log-probabilities or there is no number.
    """
    start, end = parsed.span
    total, position, seen = 0.0, 0, False
    for token in answer.tokens:
        here, position = position, position + len(token.text)
        if here < end and position > start:
            total += token.logprob
            seen = True
    return math.exp(min(total, 0.0)) if seen and start < end and not math.isnan(total) else math.nan
