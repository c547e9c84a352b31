"""Confidence and sigma from the probability of a number: answers whose certainty and error are known by design."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.certainty import calibrated, mapped, relative_certainty
from depthlm_ros.engines.base import Answer, Token
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.evaluation.confidence import auroc
from depthlm_ros.evaluation.metrics import within_delta1
from depthlm_ros.profile import Calibration, CheckpointProfile
from depthlm_ros.training.calibrate import _bins, cross_fitted, fit_calibration, fit_certainty

OLD = Calibration((0.2, 0.6, 0.8), (0.1, 0.5, 0.9), (0.4, 0.2, 0.1))
RELATIVE = Calibration((1.0, 3.0, 5.0), (0.1, 0.5, 0.9), (0.4, 0.2, 0.1), "by hand", "relative")


def probability_of(metres, step_m, spread):
    """What a model that believes in a log-normal depth around ``metres`` gives to the one number written there."""
    edges = np.log(metres + np.multiply.outer([-0.5, 0.5], step_m)) - np.log(metres)
    return norm.cdf(edges[1] / spread) - norm.cdf(edges[0] / spread)


@pytest.mark.parametrize(
    ("raw", "confidence", "relative"),
    [
        (0.2, 0.1, 0.4),
        (0.4, 0.3, 0.3),  # half way along the first piece
        (0.65, 0.6, 0.175),  # a quarter along the second
        (0.0, 0.1, 0.4),  # before the first knot and after the last one nothing is extrapolated
        (1.0, 0.9, 0.1),
    ],
)
def test_a_calibration_of_before_is_read_by_the_probability_itself(raw, confidence, relative):
    got = calibrated(raw, 3.0, 0.01, OLD)
    assert got == (pytest.approx(confidence), pytest.approx(3.0 * relative))


@pytest.mark.parametrize(
    ("probability", "metres", "step_m", "confidence", "relative"),
    [
        (0.01, 2.0, 0.01, 0.3, 0.3),  # a density of 2 per unit of log depth
        (0.02, 1.0, 0.01, 0.3, 0.3),
        (0.1, 2.0, 0.1, 0.3, 0.3),
        (0.0, 2.0, 0.01, 0.1, 0.4),
        (0.9, 2.0, 0.01, 0.9, 0.1),
    ],
)
def test_a_relative_calibration_is_read_by_the_density(probability, metres, step_m, confidence, relative):
    got = calibrated(probability, metres, step_m, RELATIVE)
    assert got == (pytest.approx(confidence), pytest.approx(metres * relative))


@pytest.mark.parametrize("calibration", [OLD, RELATIVE])
@pytest.mark.parametrize(("probability", "metres"), [(math.nan, 2.0), (0.5, math.nan)])
def test_nothing_is_claimed_where_there_is_nothing_to_derive_it_from(probability, metres, calibration):
    assert np.isnan(calibrated(probability, metres, 0.01, calibration)).all()
    assert np.isnan(calibrated(0.5, 2.0, 0.01, None)).all()


@pytest.mark.parametrize("spread", [0.1, 0.3])
@pytest.mark.parametrize(("metres", "step_m"), [(1.0, 0.01), (10.0, 0.01), (10.0, 0.1), (40.0, 1.0)])
def test_who_is_equally_sure_of_a_ratio_is_equally_certain_near_and_far(metres, step_m, spread):
    certainty = relative_certainty(probability_of(metres, step_m, spread), metres, step_m)
    assert certainty == pytest.approx(1.0 / (spread * math.sqrt(2.0 * math.pi)), rel=0.01)


def population(seed=0, size=20_000):
    """Answers with two decimals, or one, whose log errors have the very spread that the model believes in."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.05, 0.6, size)
    step_m = rng.choice([0.01, 0.1], size)
    answered = np.exp(rng.uniform(math.log(0.5), math.log(20.0), size))
    return (
        probability_of(answered, step_m, spread),
        answered,
        answered * np.exp(rng.normal(0.0, spread)),
        step_m,
    )


@pytest.mark.parametrize("spread", [0.15, 0.25, 0.4])
def test_a_fit_finds_the_share_within_25_percent_and_the_error_at_any_depth(spread):
    probability, answered, truth, step_m = population()
    fitted = fit_calibration(probability, answered, truth, "a simulation", step_m)
    assert fitted.score == "relative"
    assert fitted.fitted_on == "a simulation"
    bound = math.log(1.25) / spread
    for metres, step in ((1.0, 0.01), (10.0, 0.01), (10.0, 0.1)):
        confidence, sigma = calibrated(probability_of(metres, step, spread), metres, step, fitted)
        assert confidence == pytest.approx(norm.cdf(bound) - norm.cdf(-bound), abs=0.03)
        assert sigma / metres == pytest.approx(spread, rel=0.15)


def test_the_relative_score_tells_right_from_wrong_where_the_probability_tells_near_from_far():
    probability, answered, truth, step_m = population()
    hit = within_delta1(truth, answered)
    far = np.corrcoef(np.log(probability / step_m), np.log(answered))[0, 1]
    assert far < -0.5
    relative = auroc(relative_certainty(probability, answered, step_m), hit)
    assert relative > auroc(probability / step_m, hit) + 0.05


def test_unless_told_otherwise_numbers_have_two_decimals():
    probability, answered, truth, _ = population()
    told = fit_calibration(probability, answered, truth, "", np.full(len(answered), 0.01))
    assert fit_calibration(probability, answered, truth, "") == told


def test_the_few_answers_of_which_a_model_is_hardly_sure_are_not_taken_for_the_rest_of_a_twelfth():
    rng = np.random.default_rng(1)
    certainty = np.sort(rng.uniform(1.0, 20.0, 8000))
    answered = rng.uniform(1.0, 8.0, 8000)
    share = np.where(np.arange(8000) < 120, 0.1, 0.8)  # of 1.5 % nearly all are wrong
    truth = answered * np.where(rng.random(8000) < share, 1.1, 2.0)
    fitted = fit_certainty(certainty, answered, truth, "")
    confidence, sigma = mapped(np.array([certainty[0], certainty[60], certainty[400], 20.0]), fitted)
    assert confidence == pytest.approx([0.1, 0.1, 0.8, 0.8], abs=0.1)
    assert sigma[:2] == pytest.approx([1.0, 1.0])
    assert sigma[3] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (40, [20, 20]),
        (400, [34] * 4 + [33] * 8),
        (1200, [50, 50] + [100] * 10 + [50, 50]),
        (3840, [40, 40, 80, 160] + [320] * 10 + [160, 80, 40, 40]),
    ],
)
def test_bins_hold_all_answers_once_and_are_finer_at_the_ends_where_there_are_enough(count, sizes):
    bins = _bins(count)
    assert np.concatenate(bins).tolist() == list(range(count))
    assert [len(part) for part in bins] == sizes


def test_answers_without_a_probability_are_left_out_of_a_fit():
    probability, answered, truth, step_m = population(size=400)
    whole = fit_calibration(probability, answered, truth, "", step_m)
    extra = ([np.nan, 0.5], [1.0, np.nan], [5.0, 5.0], [0.01, np.nan])
    columns = zip((probability, answered, truth, step_m), extra, strict=True)
    more = [np.append(column, values) for column, values in columns]
    assert fit_calibration(*more[:3], "", more[3]) == whole
    with pytest.raises(ValueError, match="40 answers or more, got 0"):
        fit_calibration(np.full(400, np.nan), answered, truth, "")


def test_cross_fitting_asks_no_scene_about_itself():
    rng = np.random.default_rng(3)
    certainty, answered = rng.uniform(1.0, 5.0, 400), np.full(400, 2.0)
    scene = np.repeat(np.arange(4), 100)
    # Four scenes make four folds; only scene 0 is answered right, so that the fit which it is not in has no hits.
    truth = np.where(scene == 0, 2.0, 4.0)
    confidence, sigma = cross_fitted(certainty, answered, truth, scene)
    assert (confidence[scene == 0] == 0.0).all()
    assert confidence[scene != 0].min() > 0.0
    np.testing.assert_allclose(sigma[scene == 0], 2.0 * 1.0)  # |4 - 2| / 2 of the others, of 2 m
    with pytest.raises(ValueError, match="two scenes"):
        cross_fitted(certainty, answered, truth, np.zeros(400, dtype=np.int64))
    assert fit_certainty(certainty, answered, truth, "").score == "relative"


@pytest.mark.parametrize(("metres", "step_m"), [(1.0, 0.01), (10.0, 0.01), (10.0, 0.1)])
def test_the_estimator_gives_equal_confidence_and_sigma_to_equal_relative_certainty(metres, step_m):
    written = f" {metres:.{round(-math.log10(step_m))}f}"
    answer = Answer(
        f"{written} meters", (Token(written, math.log(2.0 * step_m / metres)), Token(" meters", -9.0))
    )
    camera = PinholeCamera.from_intrinsics(100.0, 100.0, 32.0, 24.0, 64, 48)
    for calibration, expected in ((RELATIVE, (0.3, 0.3)), (None, (math.nan, math.nan))):
        with FakeEngine(lambda prompt: answer) as engine:
            estimator = DepthEstimator(engine, CheckpointProfile("test", 100.0, calibration=calibration))
            frame = estimator.prepare(np.zeros((48, 64, 3), np.uint8), camera)
            got = estimator.ask(frame, [(30, 20), (30, 20)]).at([(30, 20)])
        assert got.certainty == pytest.approx([2.0])
        assert got.confidence == pytest.approx([expected[0]], nan_ok=True)
        assert got.sigma == pytest.approx([expected[1] * metres], nan_ok=True)


def test_without_log_probabilities_the_certainty_is_unknown():
    camera = PinholeCamera.from_intrinsics(100.0, 100.0, 32.0, 24.0, 64, 48)
    with FakeEngine(lambda prompt: Answer(" 2.00 meters")) as engine:
        estimator = DepthEstimator(engine, CheckpointProfile("test", 100.0, calibration=RELATIVE))
        got = estimator.ask(estimator.prepare(np.zeros((48, 64, 3), np.uint8), camera), [(30, 20)])
    assert got.depth[0] == 2.0
    assert np.isnan([got.certainty[0], got.confidence[0], got.sigma[0]]).all()
