"""The whole way from an image to metric points, with an engine that answers what the test wrote."""

import time

import cv2
import numpy as np
import pytest
from PIL import Image

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import CameraError, PinholeCamera
from depthlm_ros.canonical import CanonicalError
from depthlm_ros.config import SamplingConfig
from depthlm_ros.engines.base import Answer, EngineError, Finish, Token
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import BUILT_IN_PROFILES, Calibration, CheckpointProfile

PROFILE = BUILT_IN_PROFILES["depthlm-7b"]
CAMERA = PinholeCamera.from_intrinsics(500.0, 500.0, 80.0, 60.0, 160, 120)
S = AnswerStatus


def picture(width=160, height=120):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def target(prompt):
    """Where a prompt's arrow points: one right of the rightmost red pixel of its shaft."""
    xs, ys = np.array(prompt.images[0].paint.xy).T
    tip = xs.argmax()
    return int(xs[tip]) + 1, int(ys[tip])


def by_column(prompt):
    """Answers a depth that tells the canonical column that was asked, in hundredths."""
    return f" {target(prompt)[0] / 100:.2f} meters"


def ask(pixels, script=by_column, *, profile=PROFILE, camera=CAMERA, **more):
    with FakeEngine(script) as engine:
        estimator = DepthEstimator(engine, profile)
        frame = estimator.prepare(picture(camera.width, camera.height), camera)
        return estimator.ask(frame, pixels, **more), engine


def test_each_pixel_gets_its_own_answer_in_the_order_given():
    pixels = [(100, 50), (20, 60), (70, 10)]
    got, engine = ask(pixels)
    assert got.pixels.tolist() == [list(p) for p in pixels]
    np.testing.assert_allclose(got.depth, [2.00, 0.40, 1.40], rtol=1e-6)  # scale 1000 / 500
    assert [target(p) for p in engine.prompts] == [(200, 100), (40, 120), (140, 20)]
    assert got.status.tolist() == [0, 0, 0]
    assert got.depth.dtype == np.float32
    np.testing.assert_array_equal(got.rgb, [picture()[v, u] for u, v in pixels])
    assert got.camera is CAMERA
    assert "fake" in got.model


def test_a_pixel_that_is_named_twice_is_asked_once():
    got, engine = ask([(100, 50), (20, 60), (100, 50)])
    assert got.pixels.tolist() == [[100, 50], [20, 60]]
    assert len(engine.prompts) == 2


def test_who_names_a_pixel_twice_can_have_its_answer_twice():
    pixels = [(100, 50), (20, 60), (100, 50), (-1, 5), (-1, 5)]
    got, engine = ask(pixels)
    assert len(engine.prompts) == 2
    np.testing.assert_allclose(got.at(pixels).depth, [2.0, 0.4, 2.0, np.nan, np.nan], rtol=1e-6)


def test_what_the_engine_said_about_its_first_failure_is_kept():
    said = iter([" 3.00 meters", RuntimeError("out of memory"), RuntimeError("again")])
    got, _ = ask([(20 + 10 * i, 50) for i in range(3)], lambda _: next(said))
    assert got.error == "out of memory"
    assert got.at([(20, 50)]).error == "out of memory"
    assert ask([(80, 60)])[0].error == ""


def test_a_pixel_without_room_for_the_arrow_is_not_asked_and_says_so():
    # Scale 2: the arrow needs canonical 5 to 314, so source columns 3 (6) to 157 (314).
    pixels = [(2, 60), (3, 60), (157, 60), (158, 60), (-1, 60), (160, 60), (50, 117), (50, 118), (9**9, 5)]
    got, engine = ask(pixels)
    assert [S(s).name for s in got.status] == [
        "UNDRAWABLE", "OK", "OK", "UNDRAWABLE", "UNDRAWABLE", "UNDRAWABLE", "OK", "UNDRAWABLE", "UNDRAWABLE",
    ]  # fmt: skip
    assert np.isnan(got.depth[got.status == S.UNDRAWABLE]).all()
    assert len(engine.prompts) == 3
    assert got.rgb.shape == (9, 3)


def test_what_undistortion_left_black_is_not_asked():
    k, p = np.array([[500.0, 0, 80], [0, 500, 60], [0, 0, 1]]), np.zeros((3, 4))
    p[:, :3] = k
    p[0, 2] += 40  # the rectified image lies 40 px to the right
    camera = PinholeCamera(160, 120, k, np.zeros(5), "plumb_bob", np.eye(3), p)
    got, _ = ask([(30, 60), (50, 60)], camera=camera)
    assert got.status.tolist() == [S.UNDRAWABLE, S.OK]


def test_the_engines_outcomes_become_statuses():
    broken, late = RuntimeError("out of memory"), Answer("", finish=Finish.DEADLINE)
    cut = Answer(" 2.", finish=Finish.LENGTH)
    said = iter([broken, late, " far", " 2.", "-1.00 meters", " 3.00 meters", cut])
    got, _ = ask([(20 + 10 * i, 50) for i in range(7)], lambda _: next(said))
    expected = [S.ENGINE_ERROR, S.DEADLINE, S.NO_NUMBER, S.OK, S.NOT_POSITIVE, S.OK, S.TRUNCATED]
    assert got.status.tolist() == expected
    assert (np.isnan(got.depth) == (got.status != S.OK)).all()
    assert got.reasons() == {
        "ok": 2, "no_number": 1, "not_positive": 1, "truncated": 1, "deadline": 1, "engine_error": 1,
    }  # fmt: skip


def test_a_deadline_is_passed_on_and_what_it_cuts_off_has_no_depth():
    got, engine = ask([(20, 50), (30, 50)], deadline=time.monotonic() - 1.0)
    assert got.status.tolist() == [S.DEADLINE, S.DEADLINE]
    assert np.isnan(got.depth).all()
    assert engine.prompts == []


def test_the_engine_is_told_what_the_profile_says():
    told = {}

    class Listening(FakeEngine):
        def generate(self, prompts, **options):
            told.update(options)
            return super().generate(prompts, **options)

    for profile, stop in (
        (PROFILE, (" meters",)),
        (CheckpointProfile("whole", 1000.0, prompt_prefix=""), ()),
    ):
        with Listening(by_column) as engine:
            estimator = DepthEstimator(engine, profile)
            estimator.ask(estimator.prepare(picture(), CAMERA), [(80, 60)], deadline=1e12)
        assert told == {"max_new_tokens": profile.max_new_tokens, "stop": stop, "deadline": 1e12}


def test_a_range_becomes_z():
    # 60 px off the axis at f = 80 px: the 3-4-5 triangle, so 5 m of range are 4 m of z.
    camera = PinholeCamera.from_intrinsics(80.0, 80.0, 80.0, 60.0, 160, 120)
    profile = CheckpointProfile(
        "ranged", 160.0, depth_convention="range", calibration=Calibration((0.0, 1.0), (0.5, 0.5), (0.1, 0.1))
    )
    got, _ = ask([(140, 60), (80, 60)], lambda _: " 5.00 meters", profile=profile, camera=camera)
    np.testing.assert_allclose(got.depth, [4.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(got.sigma, [0.4, 0.5], rtol=1e-6)
    np.testing.assert_allclose(got.points(), [(3.0, 0.0, 4.0), (0.0, 0.0, 5.0)], atol=1e-6)


def test_confidence_and_sigma_come_from_the_calibration():
    profile = CheckpointProfile(
        "calibrated", 1000.0, calibration=Calibration((0.0, 1.0), (0.0, 0.8), (0.5, 0.1))
    )
    half = np.log(0.5)
    answer = Answer(" 2.00 meters", (Token(" 2", half), Token(".00", 0.0), Token(" meters", -9.0)))
    got, _ = ask([(80, 60), (90, 60)], lambda p: answer if target(p)[0] == 160 else " far", profile=profile)
    assert got.confidence[0] == pytest.approx(0.4)
    assert got.sigma[0] == pytest.approx(2.0 * 0.3)
    assert np.isnan([got.confidence[1], got.sigma[1]]).all()


def test_without_a_calibration_nothing_is_claimed():
    got, _ = ask([(80, 60)])
    assert got.status[0] == S.OK
    assert np.isnan([got.confidence[0], got.sigma[0]]).all()


def test_a_frame_is_rectified_and_resized_once_however_often_it_is_asked(monkeypatch):
    remaps, resizes = [], []
    remap, resize = cv2.remap, Image.Image.resize
    monkeypatch.setattr(cv2, "remap", lambda *a, **k: remaps.append(1) or remap(*a, **k))
    monkeypatch.setattr(Image.Image, "resize", lambda *a, **k: resizes.append(1) or resize(*a, **k))
    k = np.array([[500.0, 0, 80], [0, 500, 60], [0, 0, 1]])
    camera = PinholeCamera(
        160, 120, k, np.array([-0.1, 0, 0, 0, 0]), "plumb_bob", np.eye(3), np.zeros((3, 4))
    )
    with FakeEngine(by_column) as engine:
        estimator = DepthEstimator(engine, PROFILE)
        frame = estimator.prepare(picture(), camera)
        pixels = estimator.sample(frame, SamplingConfig(columns=20, rows=15))
        assert len(pixels) == 300
        estimator.ask(frame, pixels)
        estimator.ask(frame, [(80, 60)])
        assert engine.generate_calls == 2
        assert len({id(prompt.images[0].base) for prompt in engine.prompts}) == 1
        assert engine.prompts[0].images[0].base is frame.view.image
    assert (len(remaps), len(resizes)) == (1, 1)


def test_nothing_to_ask_is_no_question():
    for pixels in ([], np.empty((0, 2), dtype=np.int64), [(-1, -1)]):
        got, engine = ask(pixels)
        assert len(got.pixels) == len(got.depth) == len(got.status) == len(got.rgb) == len(pixels)
        assert engine.generate_calls == 0
        assert np.isnan(got.depth_image()).all()


def test_a_broken_engine_is_not_hidden():
    with pytest.raises(EngineError, match="server is gone"):
        ask([(80, 60)], lambda _: EngineError("the server is gone"))


def test_an_engine_that_loses_an_answer_is_not_believed():
    class Losing(FakeEngine):
        def generate(self, prompts, **options):
            return super().generate(prompts, **options)[1:]

    with Losing(by_column) as engine:
        estimator = DepthEstimator(engine, PROFILE)
        frame = estimator.prepare(picture(), CAMERA)
        with pytest.raises(EngineError, match="1 answers to 2 prompts"):
            estimator.ask(frame, [(80, 60), (90, 60)])


def test_an_image_that_is_too_large_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(cv2, "remap", lambda *_: pytest.fail("rectified"))
    estimator = DepthEstimator(FakeEngine(by_column), PROFILE, max_megapixels=0.019)
    with pytest.raises(CanonicalError, match=r"160x120.*max_megapixels"):
        estimator.prepare(picture(), CAMERA)


def test_a_view_that_becomes_too_large_is_refused():
    estimator = DepthEstimator(FakeEngine(by_column), PROFILE, max_megapixels=0.076)  # 320 x 240 = 0.0768
    with pytest.raises(CanonicalError, match=r"320x240.*max_megapixels"):
        estimator.prepare(picture(), CAMERA)


def test_an_image_of_another_size_than_its_calibration_is_refused():
    estimator = DepthEstimator(FakeEngine(by_column), PROFILE)
    with pytest.raises(CameraError, match=r"160x100.*160x120"):
        estimator.prepare(picture(160, 100), CAMERA)


def test_the_time_of_each_stage_is_told():
    got, _ = ask([(80, 60)])
    assert set(got.seconds) >= {"rectify", "resize", "engine"}
    assert all(seconds >= 0.0 for seconds in got.seconds.values())
