"""Spatial questions from image to number: exact scenes, a scripted model, and both ways of answering."""

from __future__ import annotations

import math
import time

import cv2
import numpy as np
import pytest

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.engines.base import Answer, EngineError, Finish
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import Calibration, CheckpointProfile
from depthlm_ros.spatial.asking import ask_spatial
from depthlm_ros.spatial.between import MOST_POINTS
from depthlm_ros.spatial.derive import normal_confidence
from depthlm_ros.spatial.matching import MOST_PIXELS, match_images, spread
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.pairs import pair_motion, sample_pair
from depthlm_ros.spatial.pose import Points, estimate_motion
from depthlm_ros.spatial.request import SpatialRequest, SpatialRequestError, SpatialStatus
from depthlm_ros.spatial.tasks import TASKS, SpatialTask
from depthlm_ros.synthetic import Domain, Intrinsics

T = SpatialTask
FOCAL = 112.0
CAMERA = PinholeCamera.from_intrinsics(FOCAL, FOCAL, 79.5, 59.5, 160, 120)
TENTH = Calibration((0.0, 1.0), (0.9, 0.9), (0.1, 0.1))
"""Every answer is 90 % sure and 10 % off."""
PIXELS = ((40, 30), (100, 90))


def profile(*trained: SpatialTask, calibration: Calibration | None = TENTH) -> CheckpointProfile:
    return CheckpointProfile(
        "test",
        FOCAL,
        max_new_tokens=20,
        calibration=calibration,
        spatial_tasks=tuple(task.value for task in trained),
    )


def target(prompt):
    """Where a prompt's (first) arrow points."""
    x, y = prompt.images[0].paint.xy[0]
    return x + 5, y


def depth_at(pixel):
    """The scripted world: 2 m away in the left half, 5 m in the right half."""
    return 2.0 if pixel[0] < 80 else 5.0


def says_depth(prompt):
    return f" {depth_at(target(prompt)):.2f} meters"


def ask(request, script=says_depth, *, trained=(), calibration=TENTH, frames=1, **more):
    with FakeEngine(script) as engine:
        estimator = DepthEstimator(engine, profile(*trained, calibration=calibration))
        image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
        prepared = [estimator.prepare(image, CAMERA) for _ in range(frames)]
        return ask_spatial(estimator, prepared, request, **more), engine


def ray(pixel):
    return np.array([(pixel[0] - 79.5) / FOCAL, (pixel[1] - 59.5) / FOCAL, 1.0])


REQUESTS = {
    T.PRINCIPAL_AXIS_DISTANCE: SpatialRequest(T.PRINCIPAL_AXIS_DISTANCE, PIXELS[:1]),
    T.TWO_POINT_DISTANCE: SpatialRequest(T.TWO_POINT_DISTANCE, PIXELS),
    T.SPEED: SpatialRequest(T.SPEED, PIXELS[:1], seconds=4.0),
    T.TIME: SpatialRequest(T.TIME, PIXELS[:1], speed=0.5),
}
LENGTH = 2.0 * math.hypot(39.5 / 112, 29.5 / 112, 1.0)
"""Of the ray to the first pixel."""


@pytest.mark.parametrize(
    ("task", "value"),
    [
        (T.PRINCIPAL_AXIS_DISTANCE, 2.0),
        (T.TWO_POINT_DISTANCE, float(np.linalg.norm(2.0 * ray(PIXELS[0]) - 5.0 * ray(PIXELS[1])))),
        (T.SPEED, LENGTH / 4.0),
        (T.TIME, LENGTH / 0.5),
    ],
)
def test_without_training_for_the_task_the_answer_is_computed_from_depths_and_says_so(task, value):
    answer, engine = ask(REQUESTS[task])
    assert answer.derived
    assert answer.status is SpatialStatus.OK
    assert answer.value == pytest.approx(value, rel=1e-6)
    assert answer.unit == TASKS[task].unit
    assert answer.text == answer.message == ""
    assert len(answer.depths) == 1
    assert "fake" in answer.model
    assert [target(prompt) for prompt in engine.prompts] == list(REQUESTS[task].pixels)
    if task is not T.TWO_POINT_DISTANCE:
        assert answer.sigma == pytest.approx(0.1 * value)
        assert answer.confidence == pytest.approx(0.9)


def test_the_sigma_of_a_two_point_distance_is_that_of_drawn_depths():
    answer, _ = ask(REQUESTS[T.TWO_POINT_DISTANCE])
    rng = np.random.default_rng(0)
    near, far = (z + 0.1 * z * rng.standard_normal((200_000, 1)) for z in (2.0, 5.0))
    drawn = np.linalg.norm(near * ray(PIXELS[0]) - far * ray(PIXELS[1]), axis=1)
    assert answer.sigma == pytest.approx(drawn.std(), rel=0.02)
    within = np.mean((drawn > 0.8 * answer.value) & (drawn < 1.25 * answer.value))
    assert answer.confidence == pytest.approx(within, abs=0.02)


def test_without_a_calibration_sigma_and_confidence_are_unknown():
    for request in REQUESTS.values():
        answer, _ = ask(request, calibration=None)
        assert math.isfinite(answer.value)
        assert math.isnan(answer.sigma)
        assert math.isnan(answer.confidence)


@pytest.mark.parametrize(
    ("sigma", "share"),
    [
        # Tables of the normal distribution: Phi(1) + Phi(0.8) - 1, Phi(2) + Phi(1.6) - 1, Phi(0.5) + Phi(0.4) - 1.
        (0.25, 0.84134 + 0.78814 - 1.0),
        (0.125, 0.97725 + 0.94520 - 1.0),
        (0.5, 0.69146 + 0.65542 - 1.0),
        (0.0, 1.0),
    ],
)
def test_normal_confidence_is_the_share_of_truths_within_a_factor_of_one_and_a_quarter(sigma, share):
    assert normal_confidence(1.0, sigma) == pytest.approx(share, abs=2e-5)
    assert normal_confidence(4.0, 4.0 * sigma) == pytest.approx(share, abs=2e-5)


@pytest.mark.parametrize(
    ("task", "said", "value"),
    [
        (T.PRINCIPAL_AXIS_DISTANCE, " 3.10 meters from the camera", 3.1),
        (T.TWO_POINT_DISTANCE, " 2.58 meters from each other", 2.58),
        (T.SPEED, " 7.23 meters away. ... = 1.81m/s. </think>\n\n<answer> 1.81 </answer>", 1.81),
        (T.TIME, " 48.28 meters away. ... = 8.05s. </think>\n\n<answer> 8.05 </answer>", 8.05),
    ],
)
def test_a_model_that_was_trained_for_the_task_is_asked_in_its_words(task, said, value):
    request = REQUESTS[task]
    answer, engine = ask(request, lambda _: Answer(said), trained=(task,))
    assert not answer.derived
    assert answer.value == value
    assert answer.text == TASKS[task].prefix + said
    assert answer.depths == ()
    assert math.isnan(answer.sigma)
    (prompt,) = engine.prompts
    assert prompt.question == TASKS[task].ask(seconds=request.seconds, speed=request.speed)
    assert prompt.prefix == TASKS[task].prefix
    (image,) = prompt.images
    assert image.paint.rgb == (255, 0, 0)
    assert len(image.paint.xy) == 9 * len(request.pixels)
    assert [image.paint.xy[9 * i][0] + 5 for i in range(len(request.pixels))] == [
        u for u, _ in request.pixels
    ]


def test_the_caller_can_choose_the_way():
    request = REQUESTS[T.TWO_POINT_DISTANCE]
    assert ask(request, trained=(T.TWO_POINT_DISTANCE,), direct=False)[0].derived
    assert not ask(request, direct=True)[0].derived


def test_a_camera_motion_is_asked_with_both_images_and_read_as_six_numbers():
    said = " 1.30 meters. </think>\n\n<answer> 0.50 0.00 -1.20 0.0 -12.0 0.5 </answer>"
    request = SpatialRequest(T.CAMERA_MOTION)
    answer, engine = ask(request, lambda _: Answer(said), trained=(T.CAMERA_MOTION,), frames=2)
    assert not answer.derived
    assert answer.value == pytest.approx(1.3)
    np.testing.assert_array_equal(answer.motion.translation, [0.5, 0.0, -1.2])
    np.testing.assert_array_equal(answer.motion.rotation, [0.0, -12.0, 0.5])
    assert [image.paint for image in engine.prompts[0].images] == [None, None]


@pytest.mark.parametrize("trained", [(), tuple(T)])
def test_an_undrawable_pixel_is_not_asked_and_says_where_one_could_be(trained):
    for pixel in ((2, 60), (400, 10), (-3, 5)):
        answer, engine = ask(SpatialRequest(T.SPEED, (pixel,), seconds=1.0), trained=trained)
        assert answer.status is SpatialStatus.UNDRAWABLE
        assert math.isnan(answer.value)
        assert str(pixel) in answer.message
        assert answer.derived is not bool(trained)
        assert engine.prompts == []


def test_arrows_that_hide_each_others_targets_are_refused_only_where_both_are_drawn():
    request = SpatialRequest(T.TWO_POINT_DISTANCE, ((50, 50), (47, 50)))
    direct, engine = ask(request, trained=(T.TWO_POINT_DISTANCE,))
    assert direct.status is SpatialStatus.UNDRAWABLE
    assert "further apart" in direct.message
    assert engine.prompts == []
    assert ask(request)[0].status is SpatialStatus.OK


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("nonsense", SpatialStatus.NO_NUMBER),
        (" -2.0 meters", SpatialStatus.NOT_POSITIVE),
        (Answer("", finish=Finish.DEADLINE), SpatialStatus.DEADLINE),
        (ValueError("the logits are not finite"), SpatialStatus.ENGINE_ERROR),
    ],
)
@pytest.mark.parametrize("trained", [(), tuple(T)])
def test_an_answer_without_a_number_is_nan_with_its_reason(said, status, trained):
    answer, _ = ask(REQUESTS[T.TWO_POINT_DISTANCE], lambda _: said, trained=trained)
    assert answer.status is status
    assert math.isnan(answer.value)
    assert status.name.lower() in answer.message
    if isinstance(said, ValueError):
        assert "the logits are not finite" in answer.message


def test_the_number_of_frames_must_be_the_tasks():
    with pytest.raises(SpatialRequestError, match=r"camera_motion: expected 2 image\(s\), got 1"):
        ask(SpatialRequest(T.CAMERA_MOTION))
    with pytest.raises(SpatialRequestError, match=r"speed: expected 1 image\(s\), got 2"):
        ask(REQUESTS[T.SPEED], frames=2)


def test_an_engine_that_fails_as_a_whole_is_raised():
    def broken(_):
        return EngineError("the GPU is gone")

    with pytest.raises(EngineError, match="the GPU is gone"):
        ask(REQUESTS[T.SPEED], broken, trained=(T.SPEED,))


def test_a_deadline_that_has_passed_is_a_reason():
    answer, _ = ask(REQUESTS[T.SPEED], deadline=time.monotonic() - 1.0)
    assert answer.status is SpatialStatus.DEADLINE


def rendered(seed, factor=1.0):
    """A pair of rendered views, and a model that knows their depth, times a factor."""
    views = sample_pair((21, seed), Domain.ROBOT, focal_px=FOCAL)

    def knows(prompt):
        x, y = target(prompt)
        view = next(v for v in views if np.array_equal(v.rgb, prompt.images[0].base))
        return f" {factor * view.z_depth[y, x]:.2f} meters"

    return views, knows


def derive_motion(views, script, calibration=TENTH, second=None):
    with FakeEngine(script) as engine:
        estimator = DepthEstimator(engine, profile(calibration=calibration))
        cameras = [
            PinholeCamera.from_intrinsics(i.fx, i.fy, i.cx, i.cy, i.width, i.height)
            for i in (view.intrinsics for view in views)
        ]
        images = [views[0].rgb, views[1].rgb if second is None else second]
        frames = [estimator.prepare(*pair) for pair in zip(images, cameras, strict=True)]
        return ask_spatial(estimator, frames, SpatialRequest(T.CAMERA_MOTION)), engine


SEEDS = (0, 1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def solved():
    """What becomes of rendered pairs with a model that knows the depth."""
    found = {}
    for seed in SEEDS:
        views, knows = rendered(seed)
        found[seed] = (pair_motion(*views), *derive_motion(views, knows))
    return found


def test_the_motion_between_rendered_views_is_found_or_refused_with_a_reason(solved):
    answered = [seed for seed in SEEDS if solved[seed][1].status is SpatialStatus.OK]
    assert len(answered) >= 3
    for seed in SEEDS:
        truth, answer, engine = solved[seed]
        assert answer.derived
        assert len(engine.prompts) <= 2 * MOST_POINTS
        if seed not in answered:
            assert answer.message
            assert math.isnan(answer.value)
            assert np.isnan(answer.motion.translation).all()
            continue
        assert answer.motion.translation_error(truth) < 0.3
        assert answer.motion.rotation_error(truth) < 8.0
        assert answer.value == pytest.approx(answer.motion.distance)
        assert answer.inliers >= 6
        assert answer.matches >= answer.inliers
        assert len(answer.depths) == 2


def test_a_model_that_sees_everything_twice_as_far_sees_twice_the_motion(solved):
    seed = next(seed for seed in SEEDS if solved[seed][1].status is SpatialStatus.OK)
    views, doubled = rendered(seed, 2.0)
    answer, _ = derive_motion(views, doubled)
    np.testing.assert_allclose(answer.motion.translation, 2.0 * solved[seed][1].motion.translation, atol=0.05)


def test_an_image_without_features_is_refused_before_anything_is_asked():
    views, knows = rendered(0)
    grey = np.full_like(views[1].rgb, 128)
    blank, engine = derive_motion(views, knows, second=grey)
    assert blank.status is SpatialStatus.FEW_MATCHES
    assert "more texture and more overlap" in blank.message
    assert engine.prompts == []


def cloud(motion_yaw, shift, noise, count=60, seed=0):
    """Points in front of two cameras, with exact or noisy depths."""
    rng = np.random.default_rng(seed)
    first = rng.uniform((-1.5, -1.0, 2.0), (1.5, 1.0, 6.0), (count, 3))
    cos, sin = math.cos(motion_yaw), math.sin(motion_yaw)
    turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    second = (first - shift) @ turn  # p1 = turn p2 + shift
    views = []
    for points in (first, second):
        z = points[:, 2] * (1.0 + noise * rng.standard_normal(count))
        views.append(Points(points / points[:, 2:], z, np.abs(noise) * z))
    return views, CameraMotion(shift, np.array([0.0, math.degrees(motion_yaw), 0.0]))


def test_exact_depths_give_the_exact_motion():
    views, truth = cloud(0.2, np.array([0.3, -0.05, 0.8]), 0.0)
    found = estimate_motion(*views)
    assert found.status is SpatialStatus.OK
    assert found.motion.translation_error(truth) < 1e-4
    assert found.motion.rotation_error(truth) < 1e-3
    assert found.inliers == 60
    assert found.sigma == pytest.approx(0.0, abs=1e-9)


def test_depths_of_one_image_are_enough():
    (first, second), truth = cloud(0.1, np.array([0.0, 0.0, 0.6]), 0.0)
    blind = Points(second.rays, np.full(60, np.nan), second.sigma)
    assert estimate_motion(first, blind).motion.translation_error(truth) < 1e-4
    swapped = estimate_motion(blind, first)
    assert swapped.status is SpatialStatus.OK
    assert swapped.motion.rotation[1] == pytest.approx(-math.degrees(0.1), abs=1e-3)


def test_sigma_is_what_one_common_scale_error_does():
    """All depths wrong by one factor scale the motion by it: sigma is 10 % of the distance for 10 % depths."""
    views, truth = cloud(0.15, np.array([0.4, 0.0, 0.5]), 0.0)
    tenth = [Points(view.rays, view.z, 0.1 * view.z) for view in views]
    found = estimate_motion(*tenth)
    # The sum of magnitudes bounds the common error from above.
    assert 0.1 * truth.distance <= found.sigma <= 0.3 * truth.distance


def test_points_that_follow_no_common_motion_are_refused():
    views, _ = cloud(0.2, np.array([0.3, 0.0, 0.8]), 0.0)
    shuffled = Points(np.random.default_rng(0).permutation(views[1].rays), views[1].z, views[1].sigma)
    found = estimate_motion(views[0], shuffled)
    assert found.status is SpatialStatus.FEW_INLIERS
    assert np.isnan(found.motion.translation).all()
    assert "static" in found.message


def test_directions_that_disagree_are_refused():
    (first, second), _ = cloud(0.0, np.array([0.0, 0.0, 0.5]), 0.0)
    # Two halves of the points moved differently; each image has depths of one half alone.
    (_, turned), _ = cloud(0.5, np.array([0.0, 0.0, 0.5]), 0.0)
    half = np.arange(60) < 30
    rays = np.where(half[:, None], second.rays, turned.rays)
    one = Points(first.rays, np.where(half, first.z, np.nan), first.sigma)
    other = Points(rays, np.where(half, np.nan, turned.z), second.sigma)
    found = estimate_motion(one, other)
    assert found.status is SpatialStatus.INCONSISTENT
    assert "differ by" in found.message


def test_without_a_depth_at_any_matched_point_the_reason_is_the_models():
    views, _ = rendered(1)
    answer, engine = derive_motion(views, lambda _: ValueError("the logits are not finite"))
    assert answer.status is SpatialStatus.ENGINE_ERROR
    assert "the logits are not finite" in answer.message
    assert engine.prompts


def reprojection_errors(views, matches, camera):
    """Pixels between where the second view shows each first point and where it was matched."""
    first, second = views
    scale = camera.fx / first.intrinsics.fx
    u, v = np.rint((matches.first + 0.5) / scale - 0.5).astype(int).T
    z = first.z_depth[v, u].astype(float)
    seen = np.stack(
        [
            (matches.first[:, 0] - camera.cx) / camera.fx * z,
            (matches.first[:, 1] - camera.cy) / camera.fy * z,
            z,
        ],
        1,
    )
    world = seen @ first.pose.rotation.T + first.pose.position
    there = (world - second.pose.position) @ second.pose.rotation
    where = np.stack([camera.fx * there[:, 0], camera.fy * there[:, 1]], 1) / there[:, 2:]
    return np.linalg.norm(where - (matches.second - (camera.cx, camera.cy)), axis=1)


def test_matches_show_the_same_point_of_the_scene():
    errors = []
    for seed in SEEDS:
        views, _ = rendered(seed)
        i = views[0].intrinsics
        camera = PinholeCamera.from_intrinsics(i.fx, i.fy, i.cx, i.cy, i.width, i.height)
        matches = match_images(views[0].rgb, views[1].rgb, camera, camera)
        errors.append(reprojection_errors(views, matches, camera))
        chosen = spread(matches, i.width, 10)
        assert len(chosen) <= 10
        gaps = np.linalg.norm(chosen.first[:, None] - chosen.first[None], axis=2)
        assert (gaps[~np.eye(len(chosen), dtype=bool)] >= i.width / 24).all()
    every = np.concatenate(errors)
    assert len(every) >= 30
    assert np.mean(every < 4.0) > 0.8


def test_a_large_image_is_matched_in_its_own_pixels():
    views = sample_pair((21, 4), Domain.ROBOT, intrinsics=Intrinsics(400.0, 400.0, 319.5, 239.5, 640, 480))
    large = [cv2.resize(view.rgb, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC) for view in views]
    camera = PinholeCamera.from_intrinsics(1200.0, 1200.0, 959.5, 719.5, 1920, 1440)
    assert MOST_PIXELS < 1920 * 1440
    matches = match_images(*large, camera, camera)
    assert len(matches) >= 20
    assert np.mean(reprojection_errors(views, matches, camera) < 12.0) > 0.8
