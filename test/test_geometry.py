"""Points, depth images and what counts as an obstacle, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.geometry import (
    SparseDepth,
    backproject,
    confident,
    project,
    rays,
    within_height,
    within_range,
    z_per_metre_of_range,
)

CAMERA = PinholeCamera.from_intrinsics(100.0, 50.0, 40.0, 30.0, 80, 60)


def near_confident(got: SparseDepth, *, min_range_m: float, max_range_m: float, min_confidence: float):
    """What the node publishes as obstacles."""
    return confident(got, min_confidence) & within_range(got, min_range_m, max_range_m)


OK, NO = AnswerStatus.OK, AnswerStatus.NO_NUMBER


def sparse(pixels, depth, confidence=None, status=None, camera=CAMERA) -> SparseDepth:
    n = len(pixels)
    depth = np.array(depth, dtype=np.float32)
    if status is None:
        status = np.where(np.isnan(depth), NO, OK)
    return SparseDepth(
        pixels=np.array(pixels, dtype=np.int64).reshape(-1, 2),
        depth=depth,
        sigma=np.full(n, np.nan, dtype=np.float32),
        confidence=np.array([0.5] * n if confidence is None else confidence, dtype=np.float32),
        status=np.array(status, dtype=np.uint8),
        rgb=np.zeros((n, 3), dtype=np.uint8),
        camera=camera,
        model="test",
    )


def test_a_pixel_right_of_and_below_the_centre_lies_right_and_below():
    # (90 - 40) / 100 = 0.5 and (55 - 30) / 50 = 0.5, times 4 m
    np.testing.assert_allclose(backproject([(90, 55)], [4.0], CAMERA), [(2.0, 2.0, 4.0)])
    np.testing.assert_allclose(backproject([(40, 30)], [4.0], CAMERA), [(0.0, 0.0, 4.0)])
    np.testing.assert_allclose(rays((-10, 5), CAMERA), (-0.5, -0.5, 1.0))


def test_projection_by_hand():
    np.testing.assert_allclose(project([(2.0, 2.0, 4.0), (-1.0, 0.5, 2.0)], CAMERA), [(90, 55), (-10, 42.5)])


@given(st.integers(0, 79), st.integers(0, 59), st.floats(0.1, 500.0))
def test_there_and_back(u, v, z):
    point = backproject([(u, v)], [z], CAMERA)
    assert point.dtype == np.float32
    assert point[0, 2] == np.float32(z)
    np.testing.assert_allclose(project(point, CAMERA), [(u, v)], atol=1e-3)


def test_no_depth_is_no_point():
    points = backproject([(10, 10), (20, 20)], [math.nan, 1.0], CAMERA)
    assert np.isnan(points[0]).all()
    assert np.isfinite(points[1]).all()
    assert backproject(np.empty((0, 2)), [], CAMERA).shape == (0, 3)


def test_range_and_z_by_the_3_4_5_triangle():
    # A ray that is 3 right for 4 ahead: 5 m along it are 4 m of z.
    camera = PinholeCamera.from_intrinsics(400.0, 400.0, 0.0, 0.0, 640, 480)
    assert 5.0 * z_per_metre_of_range([(300, 0)], camera)[0] == pytest.approx(4.0)
    # 1, 2, 2 are the sides of a box with diagonal 3: x/z = 1/2, y/z = 2/2.
    assert 3.0 * z_per_metre_of_range([(200, 400)], camera)[0] == pytest.approx(2.0)
    assert z_per_metre_of_range([(0, 0)], camera)[0] == 1.0


@given(st.integers(0, 79), st.integers(0, 59), st.floats(0.1, 100.0))
def test_a_point_at_a_range_has_that_range(u, v, distance):
    z = distance * z_per_metre_of_range([(u, v)], CAMERA)
    assert np.linalg.norm(backproject([(u, v)], z, CAMERA)) == pytest.approx(distance, rel=1e-5)


def test_the_depth_image_is_nan_wherever_nothing_was_answered():
    image = sparse([(3, 7), (70, 50), (5, 5)], [1.5, 2.5, math.nan]).depth_image()
    assert image.shape == (60, 80)
    assert image.dtype == np.float32
    assert image[7, 3] == 1.5
    assert image[50, 70] == 2.5
    assert np.isnan(image).sum() == 80 * 60 - 2
    assert not (image == 0.0).any()


def test_each_given_pixel_gets_its_entry_also_where_it_is_repeated():
    got = sparse([(3, 7), (70, 50), (5, 5)], [1.5, 2.5, math.nan], confidence=[0.1, 0.2, 0.3])
    wanted = [(5, 5), (3, 7), (5, 5), (70, 50), (3, 7)]
    out = got.at(wanted)
    assert out.pixels.tolist() == [list(pixel) for pixel in wanted]
    np.testing.assert_array_equal(out.depth, np.array([math.nan, 1.5, math.nan, 2.5, 1.5], np.float32))
    np.testing.assert_array_equal(out.confidence, np.array([0.3, 0.1, 0.3, 0.2, 0.1], np.float32))
    assert out.status.tolist() == [NO, OK, NO, OK, OK]
    assert len(out.sigma) == len(out.rgb) == 5
    assert (out.camera, out.model) == (got.camera, got.model)
    assert got.at([]).pixels.shape == (0, 2)
    with pytest.raises(KeyError):
        got.at([(1, 1)])


def test_a_depth_without_status_ok_never_reaches_the_image():
    image = sparse([(3, 7)], [1.5], status=[AnswerStatus.SEVERAL_NUMBERS]).depth_image()
    assert np.isnan(image).all()


def test_a_pixel_outside_the_image_that_was_not_answered_does_no_harm():
    outside = sparse([(-5, 1000)], [math.nan], status=[AnswerStatus.UNDRAWABLE])
    assert np.isnan(outside.depth_image()).all()
    assert np.isnan(outside.points()).all()


def test_nothing_asked_is_an_empty_answer():
    nothing = sparse([], [])
    assert np.isnan(nothing.depth_image()).all()
    assert nothing.points().shape == (0, 3)
    assert nothing.reasons() == {}
    assert near_confident(nothing, min_range_m=0.0, max_range_m=9.0, min_confidence=0.0).shape == (0,)


def test_reasons_are_counted_by_name():
    s = AnswerStatus
    got = sparse(
        np.zeros((4, 2)), [1.0, 2.0, math.nan, math.nan], status=[s.OK, s.OK, s.NO_NUMBER, s.DEADLINE]
    )
    assert got.reasons() == {"ok": 2, "no_number": 1, "deadline": 1}
    assert got.answered.tolist() == [True, True, False, False]


def test_obstacles_are_near_far_enough_sure_and_answered():
    camera = PinholeCamera.from_intrinsics(400.0, 400.0, 0.0, 0.0, 640, 480)
    pixels = [(0, 0), (0, 1), (0, 2), (300, 0), (0, 4), (0, 5)]
    depth = [1.0, 0.1, 9.0, 4.0, 1.0, math.nan]  # (300, 0) at z = 4 m is 5 m away
    confidence = [0.5, 0.5, 0.5, 0.5, 0.2, 0.5]
    got = sparse(pixels, depth, confidence, camera=camera)
    limits = {"min_range_m": 0.2, "min_confidence": 0.3}
    assert near_confident(got, max_range_m=8.0, **limits).tolist() == [True, False, False, True, False, False]
    assert near_confident(got, max_range_m=4.5, **limits).tolist() == [
        True,
        False,
        False,
        False,
        False,
        False,
    ]


def test_a_depth_without_status_ok_is_no_obstacle():
    got = sparse([(40, 30)], [1.0], status=[AnswerStatus.TRUNCATED])
    assert not near_confident(got, min_range_m=0.2, max_range_m=8.0, min_confidence=0.0).any()


@pytest.mark.parametrize(("at_least", "counts"), [(0.0, [True, True]), (1e-6, [False, True])])
def test_a_point_without_a_confidence_counts_only_where_none_is_asked_for(at_least, counts):
    got = sparse([(40, 30), (41, 30)], [1.0, 1.0], [math.nan, 0.5])
    assert near_confident(got, min_range_m=0.2, max_range_m=8.0, min_confidence=at_least).tolist() == counts


def test_heights_are_looked_at_in_the_other_frame():
    # Optical y points down, so 1.0 m up in a frame whose camera is level and 0.5 m high is y = -0.5.
    level = np.array(
        [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]]
    )
    # v = 30 + 50 * y / z at z = 2 m: y = 0.48, 0.4, 0, -0.48 m, so heights 0.02, 0.1, 0.5 and 0.98 m.
    got = sparse([(40, 42), (40, 40), (40, 30), (40, 18), (41, 30)], [2.0, 2.0, 2.0, 2.0, math.nan])
    assert within_height(got, level, 0.09, 0.9).tolist() == [False, True, True, False, False]
    assert within_height(got, level, -1.0, 0.05).tolist() == [True, False, False, False, False]
