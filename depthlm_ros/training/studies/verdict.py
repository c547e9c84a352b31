"""The rule that judges a claim from paired seeds. It is code, so that it is fixed before the numbers are seen."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from scipy import stats

CONFIDENCE = 0.95


class Verdict(Enum):
    """What became of a claim."""

    CONFIRMED = "confirmed"
    NOT_CONFIRMED = "not confirmed"
    CONTRADICTED = "contradicted"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Claim:
    """That one arm is better than another, or no worse by more than a margin.

    Attributes:
        text: The claim in words.
        better: The arm that the claim favours.
        than: The arm that it is compared with.
        figure: What is compared; more is better.
        margin: None claims that ``better`` is better; a number claims that it is worse by less than that.
    """

    text: str
    better: str
    than: str
    figure: str = "delta1"
    margin: float | None = None

    @property
    def rule(self) -> str:
        """The rule in words."""
        if self.margin is None:
            return (
                f"confirmed if {self.better} is ahead in every seed and the {CONFIDENCE:.0%} interval of the mean "
                "paired difference (Student's t) is above 0; contradicted if the same holds the other way"
            )
        return (
            f"confirmed if the {CONFIDENCE:.0%} interval of the mean paired difference (Student's t) is above "
            f"-{self.margin:g}; contradicted if {self.better} is behind in every seed and the interval is below "
            f"-{self.margin:g}"
        )


@dataclass(frozen=True)
class Floor:
    """What the better of two arms must be above, lest two that learnt nothing be found equally good.

    Attributes:
        name: What scores it without having learnt anything in the study.
        delta1: Its delta1, one per seed.
        lead: How far above its mean the better arm's mean delta1 must be.
    """

    name: str
    delta1: tuple[float, ...]
    lead: float

    @property
    def level(self) -> float:
        """Mean delta1; NaN without any."""
        return statistics.fmean(self.delta1) if self.delta1 else math.nan

    def reached_by(self, delta1: float) -> bool:
        """Whether an arm of this mean delta1 has learnt something; never where either was not measured."""
        return delta1 - self.level >= self.lead


@dataclass(frozen=True)
class Judgement:
    """A claim and the numbers behind its verdict.

    Attributes:
        claim: The claim.
        differences: ``better`` less ``than``, per seed.
        mean: Their mean; NaN without any.
        error: Standard error of the mean: sample standard deviation over the root of the number of seeds; NaN for
            fewer than two seeds.
        verdict: What follows by the claim's rule.
        reason: Why it was not judged; empty where it was.
    """

    claim: Claim
    differences: tuple[float, ...]
    mean: float
    error: float
    verdict: Verdict
    reason: str = ""


def judge(
    claim: Claim, better: Sequence[float], than: Sequence[float], *, delta1: float, floors: Sequence[Floor]
) -> Judgement:
    """Judge a claim.

    Fewer than two seeds have no spread, and a NaN is no measurement: neither confirms nor contradicts anything.

    Args:
        claim: The claim.
        better: Figures of the arm that it favours, one per seed.
        than: Figures of the other, of the same seeds in the same order.
        delta1: Mean delta1 of whichever of the two arms has the higher one.
        floors: What it must be above for anything to be judged, one at least.
    """
    differences = tuple(a - b for a, b in zip(better, than, strict=True))
    mean = statistics.fmean(differences) if differences else math.nan
    error = math.nan
    if len(differences) > 1 and all(math.isfinite(d) for d in differences):
        error = statistics.stdev(differences) / math.sqrt(len(differences))
    if reason := _nothing_learnt(delta1, floors):
        return Judgement(claim, differences, mean, error, Verdict.NOT_JUDGED, reason)
    return Judgement(claim, differences, mean, error, _verdict(claim, differences, mean, error))


def _nothing_learnt(delta1: float, floors: Sequence[Floor]) -> str:
    """Why two arms cannot be compared; empty where they can."""
    if not floors:
        return "nothing was measured that learnt nothing, to compare the arms with"
    short = [floor for floor in floors if not floor.reached_by(delta1)]
    if not short:
        return ""
    # The tallest says it all.
    floor = max(short, key=lambda f: f.level + f.lead if math.isfinite(f.level) else math.inf)
    return (
        f"neither arm has a delta1 of {floor.lead:g} above {floor.name} ({floor.level:.3f}): the better one has "
        f"{delta1:.3f}"
    )


def _verdict(claim: Claim, differences: tuple[float, ...], mean: float, error: float) -> Verdict:
    if not math.isfinite(error):
        return Verdict.NOT_CONFIRMED
    reach = error * float(stats.t.ppf((1.0 + CONFIDENCE) / 2.0, len(differences) - 1))
    low, high = mean - reach, mean + reach
    behind = all(d < 0.0 for d in differences)
    if claim.margin is None:
        if low > 0.0 and all(d > 0.0 for d in differences):
            return Verdict.CONFIRMED
        return Verdict.CONTRADICTED if high < 0.0 and behind else Verdict.NOT_CONFIRMED
    if low > -claim.margin:
        return Verdict.CONFIRMED
    return Verdict.CONTRADICTED if high < -claim.margin and behind else Verdict.NOT_CONFIRMED
