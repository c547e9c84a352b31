"""The metrics and the trivial predictors against calculations by hand."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from depthlm_ros.evaluation.benchmark import LabelledImage, read_benchmark
from depthlm_ros.evaluation.metrics import rank_correlation, score, within_delta1
from depthlm_ros.evaluation.trivial import ROW_BINS, best_constant, row_prior, trivial_predictions


def image(rows, depth, height=ROW_BINS * 10):
    pixels = np.array([[5, v] for v in rows])
    return LabelledImage(
        "a", Path("a"), (100, 100, 50, 50, 100, height), pixels, np.array(depth, dtype=float)
    )


def test_delta1_is_strict_and_symmetric():
    truth = [4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    guess = [5.0, 4.99, 3.2, 3.21, math.nan, -4.0, 0.0]
    assert within_delta1(truth, guess).tolist() == [False, True, False, True, False, False, False]


def test_score_by_hand():
    truth = [np.array([1.0, 2.0]), np.array([4.0, 10.0])]
    guess = [np.array([1.1, math.nan]), np.array([6.0, 9.0])]
    got = score(truth, guess)
    assert got["n"] == 4
    assert got["answered"] == 0.75
    assert got["delta1"] == 0.5  # 1.1 and 9 hit; no answer and 6 for 4 miss
    assert got["abs_rel"] == pytest.approx((0.1 / 1 + 2 / 4 + 1 / 10) / 3)
    assert got["rmse"] == pytest.approx(math.sqrt((0.1**2 + 2**2 + 1**2) / 3))
    assert got["delta1_interval95"] == [0.5, 0.5]  # both images hit one of two, whichever are drawn


def test_bootstrap_draws_whole_images():
    # One image all right, one all wrong: a draw of two has 0, 1 or 2 right ones, so the interval is everything.
    truth = [np.full(50, 2.0), np.full(50, 2.0)]
    got = score(truth, [np.full(50, 2.0), np.full(50, 9.0)])
    assert got["delta1"] == 0.5
    assert got["delta1_interval95"] == [0.0, 1.0]
    assert score(truth[:1], [np.full(50, 2.0)])["delta1_interval95"] is None


def test_nothing_answered_is_a_delta1_of_zero_without_errors():
    got = score([np.array([1.0, 2.0])], [np.full(2, math.nan)])
    assert (got["delta1"], got["answered"], got["abs_rel"], got["rmse"]) == (0.0, 0.0, None, None)


def test_best_constant_beats_every_constant_of_a_fine_search():
    rng = np.random.default_rng(3)
    for size in (1, 2, 7, 200):
        z = np.exp(rng.normal(1.0, 0.8, size))
        best = best_constant(z)
        hits = sum(max(a / best, best / a) < 1.25 for a in z)
        assert hits == max(
            sum(max(a / c, c / a) < 1.25 for a in z.tolist()) for c in np.geomspace(0.1, 50.0, 3000).tolist()
        )


def test_row_prior_does_not_see_its_own_image():
    a = image([5, 5, 155], [1.0, 3.0, 8.0])
    b = image([5, 155, 75], [2.0, 4.0, 6.0])
    first, second = row_prior([a, b])
    assert first.tolist() == [2.0, 2.0, 4.0]
    # Row 75 has no label in the other image: the median of all of its labels.
    assert second.tolist() == [2.0, 8.0, 3.0]
    assert np.isnan(row_prior([a])[0]).all()


def test_image_constant_is_an_oracle_per_image():
    samples = [image([5, 6, 7], [1.0, 1.1, 9.0]), image([5, 6, 7], [4.0, 4.4, 20.0])]
    got = trivial_predictions(samples)
    truth = [s.depth for s in samples]
    assert score(truth, got["oracle_image_constant"])["delta1"] == pytest.approx(4 / 6)
    assert score(truth, got["best_constant"])["delta1"] == pytest.approx(2 / 6)
    assert [x.tolist() for x in got["always_2m"]] == [[2.0] * 3] * 2


def test_rank_correlation_is_the_median_over_images():
    rising, z = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 5.0])
    falling, flat = np.array([3.0, 2.0, 1.0]), np.full(3, 2.0)
    assert rank_correlation([z, z, z], [rising, falling, rising]) == pytest.approx(1.0)
    assert rank_correlation([z], [flat]) == 0.0
    assert rank_correlation([z], [np.array([1.0, 2.0, math.nan])]) is None
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15)
    assert rank_correlation([np.arange(1.0, 5.0)], [np.array([2.0, 1.0, 4.0, 3.0])]) == pytest.approx(0.6)


def test_always_two_metres_on_ibims_equals_plain_python(shared):
    data = shared("data", "ibims1", "ibims1_dev.jsonl")
    hits = total = 0
    per_image = []
    for line in data.read_text().splitlines():
        depths = json.loads(line)["depth"]
        per_image.append(statistics.median(depths))
        for z in depths:
            total += 1
            hits += max(z / 2.0, 2.0 / z) < 1.25
    samples = read_benchmark(data, data.parent)
    truth = [s.depth for s in samples]
    got = score(truth, trivial_predictions(samples)["always_2m"])
    assert got["n"] == total
    assert got["delta1"] == pytest.approx(hits / total, abs=1e-12)
    low, high = got["delta1_interval95"]
    assert low < hits / total < high
    assert [float(np.median(z)) for z in truth] == pytest.approx(per_image)
