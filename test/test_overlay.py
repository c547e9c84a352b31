"""Pictures: what is drawn where, in which colour, and that nothing breaks at the edges."""

import math

import numpy as np
import pytest

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.overlay import colourise_depth, colours, depth_limits, draw_overlay, top_view

pytestmark = pytest.mark.filterwarnings("error")


def sparse_at(pixels, depth, size=(320, 240)):
    z = np.array(depth, np.float32)
    status = np.where(np.isnan(z), AnswerStatus.NO_NUMBER, AnswerStatus.OK).astype(np.uint8)
    camera = PinholeCamera.from_intrinsics(200.0, 200.0, size[0] / 2, size[1] / 2, *size)
    count = len(z)
    return SparseDepth(
        np.array(pixels, np.int64).reshape(count, 2), z, z * 0.1, z * 0, status,
        np.zeros((count, 3), np.uint8), camera, "test",
    )  # fmt: skip


def image(size=(320, 240)):
    return np.full((size[1], size[0], 3), 90, np.uint8)


def test_near_is_red_far_is_blue_and_no_depth_is_black():
    near, middle, far, no, zero = colours([1.0, 3.0, 9.0, math.nan, 0.0], 1.0, 9.0).astype(int)
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert middle[1] > max(middle[0], middle[2])  # the scale is logarithmic: 3 is the middle of 1 to 9
    assert no.tolist() == zero.tolist() == [0, 0, 0]
    assert colours([0.1, 100.0], 1.0, 9.0).tolist() == [near.tolist(), far.tolist()]


@pytest.mark.parametrize("limits", [(0.0, 1.0), (2.0, 2.0), (1.0, math.inf), (math.nan, 2.0)])
def test_limits_that_make_no_scale_are_refused(limits):
    with pytest.raises(ValueError, match="near"):
        colours([1.0], *limits)


def test_dense_maps_keep_their_shape():
    depth = np.full((4, 6), 2.0)
    depth[1, 2] = math.nan
    got = colourise_depth(depth, 1.0, 4.0)
    assert (got.shape, got.dtype) == ((4, 6, 3), np.uint8)
    assert np.argwhere(~got.any(axis=2)).tolist() == [[1, 2]]
    assert colourise_depth(np.empty((0, 5)), 1.0, 4.0).shape == (0, 5, 3)


def test_depth_limits_ignore_what_is_no_depth():
    assert depth_limits([math.nan, math.inf, 0.0, -1.0]) == (1.0, 10.0)
    near, far = depth_limits([2.0, 2.0])
    assert near == 2.0 < far


def test_the_overlay_draws_where_it_was_asked():
    source = image()
    sparse = sparse_at([[100, 60], [200, 60], [40, 30]], [1.0, 5.0, math.nan])
    picture = draw_overlay(source, sparse, near=1.0, far=5.0)
    assert (picture.shape, picture.dtype) == (source.shape, np.uint8)
    assert (source == 90).all()
    assert picture[60, 100].tolist() == colours(1.0, 1.0, 5.0).tolist()
    assert picture[60, 200].tolist() == colours(5.0, 1.0, 5.0).tolist()
    cross = picture[30, 40]
    assert cross[0] == cross[1] == cross[2] != 90
    assert (picture[100:180] == 90).all()
    assert (picture[200:] != 90).any()  # the legend


@pytest.mark.parametrize("size", [(320, 240), (100, 50), (5, 4)])
def test_edges_and_outside_pixels_do_no_harm(size):
    far_away = 2**31
    pixels = [[0, 0], [size[0] - 1, size[1] - 1], [-5, 2], [far_away, -far_away]]
    sparse = sparse_at(pixels, [0.001, 900.0, math.nan, math.nan], size)
    assert draw_overlay(image(size), sparse).shape == (size[1], size[0], 3)
    assert top_view(sparse, size=(200, 150)).shape == (150, 200, 3)


def test_nothing_answered_is_a_picture_too():
    for sparse in (sparse_at([], []), sparse_at([[5, 5]], [math.nan])):
        draw_overlay(image(), sparse)
        assert top_view(sparse).shape == (480, 480, 3)


def test_the_top_view_has_right_to_the_right_and_far_above():
    # Pixel 200 of a camera with f = 200 and cx = 160: x = 0.2 z.
    sparse = sparse_at([[200, 120]], [5.0])
    picture = top_view(sparse, size=(400, 400), max_range_m=10.0, near=1.0, far=10.0)
    assert picture[399 - 200, 200 + 40].tolist() == colours(5.0, 1.0, 10.0).tolist()
    beyond = top_view(sparse_at([[200, 120]], [50.0]), max_range_m=10.0)
    assert (beyond == top_view(sparse_at([], []), max_range_m=10.0)).all()
