"""Calibration, sparsification and sigma against calculations by hand and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthlm_ros.evaluation.confidence import (
    KEPT_SHARES,
    auroc,
    calibration_error,
    confidence_figures,
    equal_mass_edges,
    equal_width_edges,
    perfect_calibration_error,
    reliability,
    sigma_figures,
    sparsification,
)

# Few distinct values, so that ties happen.
CONFIDENCES = st.lists(st.integers(0, 20).map(lambda k: k / 20), min_size=1, max_size=40)


def test_calibration_error_by_hand():
    # Two bins: 0.62 and 0.68 with one hit of two (mean 0.65), and 1.0, which belongs to the last bin, with a miss.
    rows = reliability(np.array([0.62, 0.68, 1.0]), np.array([True, False, False]), equal_width_edges())
    assert [(r["n"], r["delta1"]) for r in rows] == [(2, 0.5), (1, 0.0)]
    assert [(r["from"], r["to"]) for r in rows] == [
        (pytest.approx(0.6), pytest.approx(0.7)), (pytest.approx(0.9), 1.0),
    ]  # fmt: skip
    assert calibration_error(rows) == pytest.approx((2 * 0.15 + 1 * 1.0) / 3)


def test_equal_mass_bins_hold_equally_many_and_keep_ties_together():
    spread = np.arange(100) / 100.0
    rows = reliability(spread, np.ones(100, np.bool_), equal_mass_edges(spread))
    assert [r["n"] for r in rows] == [10] * 10
    tied = np.array([0.3] * 50 + [0.7] * 50)
    rows = reliability(tied, np.ones(100, np.bool_), equal_mass_edges(tied))
    assert [r["n"] for r in rows if r["confidence"] == pytest.approx(0.3)] == [50]
    assert [r["n"] for r in reliability(tied[:9], np.ones(9, np.bool_), equal_mass_edges(tied[:9]))] == [9]


@given(CONFIDENCES, st.randoms())
def test_every_answer_is_in_one_bin(values, random):
    confidence = np.array(values)
    hit = np.array([random.random() < 0.5 for _ in values])
    for edges in (equal_width_edges(), equal_mass_edges(confidence)):
        rows = reliability(confidence, hit, edges)
        assert sum(r["n"] for r in rows) == len(values)
        assert sum(r["n"] * r["delta1"] for r in rows) == pytest.approx(hit.sum())
        assert all(r["from"] - 1e-12 <= r["confidence"] <= r["to"] + 1e-12 for r in rows)


def test_the_floor_is_what_perfect_answers_show():
    rng = np.random.default_rng(1)
    confidence = rng.random(4000)
    perfect = rng.random(4000) < confidence
    edges = equal_width_edges()
    floor = perfect_calibration_error(confidence, edges)
    seen = calibration_error(reliability(confidence, perfect, edges))
    # A bin of 400 differs by about 0.8 standard errors of at most 0.5 / sqrt(400) on average.
    assert 0.0 < floor < 0.8 * 0.5 / math.sqrt(400)
    assert seen < 3 * floor
    assert calibration_error(reliability(confidence, ~perfect, edges)) > 10 * floor


@given(CONFIDENCES, st.randoms())
def test_auroc_counts_pairs(values, random):
    score = np.array(values)
    hit = np.array([random.random() < 0.5 for _ in values])
    pairs = list(itertools.product(score[hit], score[~hit]))
    if not pairs:
        assert auroc(score, hit) is None
    else:
        wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)
        assert auroc(score, hit) == pytest.approx(wins / len(pairs))


def brute_mean_of_kept(key, value, share):
    """The mean over the kept share, each group of equal keys giving each of its members alike."""
    left, total = share * len(key), 0.0
    for k in sorted(set(key), reverse=True):
        group = [v for x, v in zip(key, value, strict=True) if x == k]
        taken = min(left, len(group))
        total += taken * sum(group) / len(group)
        left -= taken
        if left <= 1e-9:
            break
    return total / (share * len(key))


@given(CONFIDENCES, st.randoms())
def test_sparsification_is_that_of_brute_force(values, random):
    truth = np.array([random.uniform(1.0, 5.0) for _ in values])
    guess = truth * np.array([random.uniform(0.5, 2.0) for _ in values])
    got = sparsification(truth, guess, np.array(values))
    error = (np.abs(guess - truth) / truth).tolist()
    hit = [1.0 if max(a / b, b / a) < 1.25 else 0.0 for a, b in zip(truth, guess, strict=True)]
    for i in (0, 7, 25, 49):
        share = got["kept"][i]
        assert got["delta1"][i] == pytest.approx(brute_mean_of_kept(values, hit, share))
        assert got["abs_rel"][i] == pytest.approx(brute_mean_of_kept(values, error, share))
        assert got["abs_rel_oracle"][i] == pytest.approx(
            brute_mean_of_kept([-e for e in error], error, share)
        )
    assert got["delta1"][0] == pytest.approx(np.mean(hit))
    # No order is better than the oracle's.
    assert got["ause_delta1"] >= -1e-12
    assert got["ause_abs_rel"] >= -1e-12


def test_areas_by_hand():
    # Half are right, and the confidence knows which: the oracle's curve, 0.5 / kept until only right ones are left.
    truth, guess = np.full(100, 2.0), np.array([2.0] * 50 + [4.0] * 50)
    sure = np.array([0.9] * 50 + [0.1] * 50)
    got = sparsification(truth, guess, sure)
    assert got["ause_delta1"] == pytest.approx(0.0)
    assert got["ause_abs_rel"] == pytest.approx(0.0)
    removed = 1.0 - KEPT_SHARES
    curve = [min(0.5 / kept, 1.0) - 0.5 for kept in KEPT_SHARES]
    trapezoids = sum(
        (b - a) * (x + y) / 2 for a, b, x, y in zip(removed, removed[1:], curve, curve[1:], strict=False)
    )
    assert got["aurg_delta1"] == pytest.approx(trapezoids)
    # A confidence that is the same for all gains nothing over dropping at random.
    flat = sparsification(truth, guess, np.full(100, 0.4))
    assert flat["aurg_delta1"] == pytest.approx(0.0)
    assert flat["aurg_abs_rel"] == pytest.approx(0.0)
    assert sparsification(truth, guess, 1.0 - sure)["aurg_delta1"] < -0.2


def test_answers_without_a_confidence_are_counted_and_left_out():
    truth, guess = np.array([1.0, 1.0, 1.0, 1.0]), np.array([1.0, 3.0, math.nan, 1.0])
    got = confidence_figures(truth, guess, np.array([0.9, 0.2, math.nan, math.nan]))
    assert (got["n"], got["without_confidence"]) == (2, 1)
    assert (got["delta1"], got["auroc"]) == (0.5, 1.0)
    assert got["mean"] == pytest.approx(0.55)
    none = confidence_figures(truth, guess, np.full(4, math.nan))
    assert none == {"n": 0, "without_confidence": 3}


def test_sigma_of_normal_errors_covers_what_it_should():
    rng = np.random.default_rng(2)
    sigma = rng.uniform(0.1, 0.5, 40_000)
    truth = np.full(40_000, 10.0)
    got = sigma_figures(truth, truth + sigma * rng.standard_normal(40_000), sigma)
    assert got["coverage"] == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.01)
    assert got["coverage_expected"] == pytest.approx(math.erf(1 / math.sqrt(2)))
    for row in got["quantiles"]:
        # The expected quantile solves erf(x / sqrt 2) = share.
        assert math.erf(row["expected"] / math.sqrt(2)) == pytest.approx(row["share"])
        assert row["error_per_sigma"] == pytest.approx(row["expected"], rel=0.03)
    halved = sigma_figures(truth, truth + 1.0, np.full(40_000, 0.5))
    assert (halved["coverage"], halved["quantiles"][0]["error_per_sigma"]) == (0.0, 2.0)


def test_a_sigma_that_is_missing_or_zero_is_counted():
    truth, guess = np.array([1.0, 1.0, 1.0, 1.0]), np.array([1.5, 3.0, 1.0, math.nan])
    got = sigma_figures(truth, guess, np.array([1.0, math.nan, 0.0, math.nan]))
    assert (got["n"], got["without_sigma"], got["coverage"]) == (1, 2, 1.0)
    assert sigma_figures(truth, guess, np.full(4, math.nan)) == {"n": 0, "without_sigma": 3}
