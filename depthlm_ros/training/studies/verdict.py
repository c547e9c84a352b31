"""The rule that judges a claim from paired seeds. It is code, so that it is fixed before the numbers are seen."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

_STANDARD_ERRORS = 2.0


class Verdict(Enum):
    """What became of a claim."""

    CONFIRMED = "confirmed"
    NOT_CONFIRMED = "not confirmed"
    CONTRADICTED = "contradicted"


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
                f"confirmed if {self.better} is ahead in every seed and by more than {_STANDARD_ERRORS:g} standard "
                "errors of the paired differences; contradicted if the same holds the other way"
            )
        return (
            f"confirmed if the mean paired difference less {_STANDARD_ERRORS:g} standard errors is above "
            f"-{self.margin:g}; contradicted if {self.better} is behind in every seed and the mean plus "
            f"{_STANDARD_ERRORS:g} standard errors is below -{self.margin:g}"
        )


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
    """

    claim: Claim
    differences: tuple[float, ...]
    mean: float
    error: float
    verdict: Verdict


def judge(claim: Claim, better: Sequence[float], than: Sequence[float]) -> Judgement:
    """Judge a claim.

    Fewer than two seeds have no spread, and a NaN is no measurement: neither confirms nor contradicts anything.

    Args:
        claim: The claim.
        better: Figures of the arm that it favours, one per seed.
        than: Figures of the other, of the same seeds in the same order.
    """
    differences = tuple(a - b for a, b in zip(better, than, strict=True))
    mean = statistics.fmean(differences) if differences else math.nan
    error = math.nan
    if len(differences) > 1 and all(math.isfinite(d) for d in differences):
        error = statistics.stdev(differences) / math.sqrt(len(differences))
    return Judgement(claim, differences, mean, error, _verdict(claim, differences, mean, error))


def _verdict(claim: Claim, differences: tuple[float, ...], mean: float, error: float) -> Verdict:
    if not math.isfinite(error):
        return Verdict.NOT_CONFIRMED
    low, high = mean - _STANDARD_ERRORS * error, mean + _STANDARD_ERRORS * error
    behind = all(d < 0.0 for d in differences)
    if claim.margin is None:
        if low > 0.0 and all(d > 0.0 for d in differences):
            return Verdict.CONFIRMED
        return Verdict.CONTRADICTED if high < 0.0 and behind else Verdict.NOT_CONFIRMED
    if low > -claim.margin:
        return Verdict.CONFIRMED
    return Verdict.CONTRADICTED if high < -claim.margin and behind else Verdict.NOT_CONFIRMED
