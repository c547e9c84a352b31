"""Samples of the spatial tasks: the exact values against geometry by hand, and the words of the table."""

from __future__ import annotations

import math
import string

import numpy as np
import pytest

from depthlm_ros.prompting import MARKER_MARGIN, MARKER_OFFSETS
from depthlm_ros.spatial.arrows import arrows_paint, uncovered
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.pairs import pair_motion, sample_pair
from depthlm_ros.spatial.samples import POINT_TASKS, SECONDS, SPEEDS, motion_sample, point_sample
from depthlm_ros.spatial.tasks import TASKS, SpatialTask, number_text, signed_text
from depthlm_ros.synthetic import Domain, Intrinsics, Pose

CAMERA = Intrinsics(100.0, 100.0, 79.5, 59.5, 160, 120)
WALL = np.full((120, 160), 3.0, np.float32)
GREY = np.full((120, 160, 3), 128, np.uint8)


def draw(task: SpatialTask, seed: int = 0, depth: np.ndarray = WALL):
    return point_sample(task, GREY, depth, CAMERA, np.random.default_rng(seed))


def angles(x: float, y: float) -> tuple[float, float]:
    """Bearing and elevation of a pixel's ray, for a camera whose rays are 100 px per unit tangent."""
    return math.atan2(x - 79.5, 100.0), math.atan2(y - 59.5, math.hypot(x - 79.5, 100.0))


def range_on_the_wall(x: float, y: float) -> float:
    bearing, elevation = angles(x, y)
    return 3.0 / (math.cos(bearing) * math.cos(elevation))


@pytest.mark.parametrize("seed", range(5))
def test_the_principal_axis_distance_of_a_wall_is_that_of_the_wall_everywhere(seed):
    sample = draw(SpatialTask.PRINCIPAL_AXIS_DISTANCE, seed)
    assert sample.value == pytest.approx(3.0)
    assert sample.answer.endswith("<answer> 3.00 </answer>")


@pytest.mark.parametrize("seed", range(5))
def test_two_points_on_a_wall_are_as_far_apart_as_the_law_of_cosines_says(seed):
    sample = draw(SpatialTask.TWO_POINT_DISTANCE, seed)
    (x1, y1), (x2, y2) = sample.pixels
    a, b = range_on_the_wall(x1, y1), range_on_the_wall(x2, y2)
    (b1, e1), (b2, e2) = angles(x1, y1), angles(x2, y2)
    cosine = math.cos(e1) * math.cos(e2) * math.cos(b1 - b2) + math.sin(e1) * math.sin(e2)
    assert sample.value == pytest.approx(math.sqrt(a * a + b * b - 2 * a * b * cosine), rel=1e-5)
    # On a wall 3 m away a pixel is 3 cm wide.
    assert sample.value == pytest.approx(0.03 * math.hypot(x1 - x2, y1 - y2), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_speed_and_time_divide_the_length_of_the_ray(seed):
    speed, time = draw(SpatialTask.SPEED, seed), draw(SpatialTask.TIME, seed)
    assert speed.value * speed.seconds == pytest.approx(range_on_the_wall(*speed.pixels[0]), rel=1e-5)
    assert time.value * time.speed == pytest.approx(range_on_the_wall(*time.pixels[0]), rel=1e-5)
    assert SECONDS[0] <= speed.seconds <= SECONDS[1]
    assert SPEEDS[0] <= time.speed <= SPEEDS[1]
    assert f"in exactly {speed.seconds:.1f} seconds?" in speed.question
    assert f"with the speed of {time.speed:.1f}m/s?" in time.question


@pytest.mark.parametrize("task", [SpatialTask.SPEED, SpatialTask.TIME])
@pytest.mark.parametrize("seed", range(20))
def test_the_written_division_is_right(task, seed):
    answer = draw(task, seed).answer
    dividend, _, divisor, _, quotient = answer[answer.index(" / ") - 4 : answer.index(". </think>")].split()
    assert float(quotient.rstrip("m/s")) == pytest.approx(float(dividend) / float(divisor), abs=0.00501)
    assert answer.endswith(f"<answer> {quotient.rstrip('m/s')} </answer>")


@pytest.mark.parametrize("task", POINT_TASKS)
def test_exactly_the_arrows_are_painted_and_their_targets_are_not(task):
    sample = draw(task)
    changed = {(x, y) for y, x in zip(*np.nonzero((sample.images[0] != GREY).any(-1)), strict=True)}
    arrows = {(x + dx, y + dy) for x, y in sample.pixels for dx, dy in MARKER_OFFSETS}
    assert changed == arrows
    assert len(sample.pixels) == TASKS[task].points
    assert (GREY == 128).all()


def test_pixels_without_depth_or_beyond_the_limits_are_not_asked():
    depth = np.full((120, 160), np.inf, np.float32)
    depth[:, 80:] = 2.0
    for seed in range(30):
        sample = draw(SpatialTask.TWO_POINT_DISTANCE, seed, depth)
        assert sample is None or (sample.pixels[:, 0] >= 80).all()
    sky = np.full((120, 160), np.inf, np.float32)
    assert draw(SpatialTask.SPEED, 0, sky) is None
    assert point_sample(SpatialTask.SPEED, GREY, WALL, CAMERA, np.random.default_rng(0), farthest=2.9) is None


def test_a_view_without_room_for_an_arrow_gives_no_sample():
    small, margin = np.full((2 * MARKER_MARGIN, 40), 2.0, np.float32), MARKER_MARGIN
    rgb = np.zeros((2 * margin, 40, 3), np.uint8)
    assert point_sample(SpatialTask.SPEED, rgb, small, CAMERA, np.random.default_rng(0)) is None


def test_a_target_under_the_other_arrow_counts_as_covered():
    assert not uncovered([(50, 50), (50, 50)])
    assert not uncovered([(50, 50), (47, 50)])
    assert not uncovered([(50, 50), (47, 52)])
    assert uncovered([(50, 50), (44, 50)])
    assert uncovered([(50, 50), (51, 50)]) is False  # the second arrow's tip lies on the first target
    assert arrows_paint(np.zeros((0, 2))) is None


def test_camera_motion_samples_are_not_drawn_from_pixels():
    with pytest.raises(ValueError, match="expected one of"):
        draw(SpatialTask.CAMERA_MOTION)


def test_driving_forward_and_turning_right_is_forward_and_about_down():
    """x right, y down, z forward: yaw decreases when a camera with z up turns right."""
    first, second = Pose(1.0, 2.0, 0.4, 0.3), Pose(1.0 + math.cos(0.3), 2.0 + math.sin(0.3), 0.4, 0.1)
    motion = CameraMotion.between((first.rotation, first.position), (second.rotation, second.position))
    np.testing.assert_allclose(motion.translation, [0.0, 0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(motion.rotation, [0.0, math.degrees(0.2), 0.0], atol=1e-9)
    assert motion.distance == pytest.approx(1.0)
    assert motion.angle == pytest.approx(math.degrees(0.2))


def test_the_motion_maps_points_of_the_second_camera_into_the_first():
    first, second = Pose(0.5, -1.0, 0.4, 0.7, 0.1, 0.02), Pose(1.5, 0.2, 0.9, 0.2, -0.1, 0.05)
    motion = CameraMotion.between((first.rotation, first.position), (second.rotation, second.position))
    seen = np.array([0.3, -0.2, 2.5])
    world = second.rotation @ seen + second.position
    expected = first.rotation.T @ (world - first.position)
    axis, angle = motion.rotation / motion.angle, math.radians(motion.angle)
    turned = (  # Rodrigues' formula
        seen * math.cos(angle)
        + np.cross(axis, seen) * math.sin(angle)
        + axis * (axis @ seen) * (1 - math.cos(angle))
    )
    np.testing.assert_allclose(turned + motion.translation, expected, atol=1e-12)


def test_errors_of_a_motion_are_metres_and_degrees():
    truth = CameraMotion([0.0, 0.0, 1.0], [0.0, 20.0, 0.0])
    none = CameraMotion(np.zeros(3), np.zeros(3))
    assert none.translation_error(truth) == pytest.approx(1.0)
    assert none.rotation_error(truth) == pytest.approx(20.0)
    assert CameraMotion([0.0, 0.0, 1.0], [0.0, -15.0, 0.0]).rotation_error(truth) == pytest.approx(35.0)
    assert math.isnan(CameraMotion.unknown().rotation_error(truth))
    with pytest.raises(ValueError, match="expected 3 numbers"):
        CameraMotion([1.0], [0.0, 0.0, 0.0])


def test_a_rendered_pair_is_the_same_for_the_same_seed_and_its_depth_agrees_with_its_motion():
    first, second = sample_pair(3, Domain.ROBOT, focal_px=112.0)
    again = sample_pair(3, Domain.ROBOT, focal_px=112.0)
    assert first.rgb.tobytes() == again[0].rgb.tobytes()
    assert second.rgb.tobytes() == again[1].rgb.tobytes()
    motion = pair_motion(first, second)
    assert 0.0 <= motion.distance <= 1.3
    sample = motion_sample(first.rgb, second.rgb, motion)
    assert sample.value == motion.distance
    said = [float(x) for x in sample.answer.split("<answer>")[1].split()[:6]]
    np.testing.assert_allclose(said[:3], motion.translation, atol=0.0051)
    np.testing.assert_allclose(said[3:], motion.rotation, atol=0.051)


@pytest.mark.parametrize("task", TASKS)
def test_question_and_answer_hold_the_papers_words_and_only_known_fields(task):
    template = TASKS[task]
    assert template.paper in template.question
    assert template.answer.startswith(template.prefix)
    assert any(stop in template.answer for stop in template.stop)
    fields = {name for _, name, _, _ in string.Formatter().parse(template.question) if name}
    assert fields == ({template.parameter} if template.parameter else set())
    assert "{" not in template.ask(seconds=2.0, speed=0.5)


def test_every_task_has_a_template():
    assert set(TASKS) == set(SpatialTask)


@pytest.mark.parametrize(
    ("value", "text"), [(4.0, "4.0"), (2.25, "2.25"), (0.1, "0.1"), (100.0, "100.0"), (1 / 3, "0.333")]
)
def test_numbers_in_questions_read_as_in_the_paper(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(-0.001, "0.00"), (-0.126, "-0.13"), (1.0, "1.00")])
def test_no_number_is_minus_zero(value, text):
    assert signed_text(value, 2) == text
