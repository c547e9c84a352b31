"""Which pixels are asked: askable ones, each once, as many as wanted, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.config import SamplingConfig
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import BUILT_IN_PROFILES
from depthlm_ros.sampling import coarse_to_fine, given_pixels, sample_pixels, unique_pixels


def everywhere(width, height):
    return lambda uv: np.all((np.asarray(uv) >= 0) & (np.asarray(uv) < (width, height)), axis=-1)


def all_but_margin(width, height, margin):
    return lambda uv: np.all(
        (np.asarray(uv) >= margin) & (np.asarray(uv) < (width - margin, height - margin)), axis=-1
    )


def image_with_edge(width=120, height=80, column=60):
    image = np.full((height, width, 3), 40, dtype=np.uint8)
    image[:, column:] = 220
    return image


def blank(width, height):
    return np.full((height, width, 3), 128, dtype=np.uint8)


def are_distinct(pixels):
    return len(np.unique(pixels, axis=0)) == len(pixels)


def test_the_grid_is_regular_and_begins_at_the_bottom():
    pixels = sample_pixels(SamplingConfig(columns=4, rows=2), blank(101, 81), everywhere(101, 81))
    # Middles of 4 x 2 equal cells of the span 0..100 x 0..80 (12.5 and 37.5 go to the even neighbour).
    assert sorted(set(pixels[:, 0].tolist())) == [12, 38, 62, 88]
    assert sorted(pixels[:, 1].tolist()) == [20] * 4 + [60] * 4
    assert pixels[0].tolist() == [62, 60]  # the middle of the bottom row
    assert are_distinct(pixels)


@pytest.mark.parametrize(("columns", "rows"), [(12, 8), (16, 16), (7, 5), (9, 16), (40, 30), (3, 2), (1, 1)])
def test_every_beginning_of_the_grid_covers_it_evenly(columns, rows):
    cells = coarse_to_fine(columns, rows).astype(float)
    assert sorted(map(tuple, cells.tolist())) == [(c, r) for c in range(columns) for r in range(rows)]
    nearest = np.minimum.accumulate(cdist(cells, cells), axis=1)
    for count in range(1, len(cells) + 1):
        # No cell lies further from an asked one than 1.6 sides of the square that each asked one stands for: 0.71 is
        # the best that can be, and row by row it is 12 on the grid of 40 x 30.
        assert nearest[:, count - 1].max() <= 1.6 * np.sqrt(columns * rows / count), count


def test_a_long_row_is_asked_in_halves_then_quarters():
    assert coarse_to_fine(8, 1)[:, 0].tolist()[:4] in ([4, 0, 6, 2], [4, 0, 2, 6])
    assert {tuple(cell) for cell in coarse_to_fine(1, 8)[:2].tolist()} == {(0, 0), (0, 4)}


def test_a_border_that_cannot_be_asked_costs_the_grid_no_points():
    askable = all_but_margin(200, 150, 20)
    pixels = sample_pixels(SamplingConfig(columns=12, rows=8), blank(200, 150), askable)
    assert len(pixels) == 96
    assert askable(pixels).all()


@pytest.mark.parametrize("method", ["grid", "roi", "gradient"])
def test_a_region_of_interest_holds_every_method(method):
    config = SamplingConfig(method=method, columns=5, rows=4, points=30, roi=(50, 10, 40, 30))
    pixels = sample_pixels(config, image_with_edge(), everywhere(120, 80))
    assert len(pixels) == (30 if method == "gradient" else 20)
    assert ((pixels >= (50, 10)) & (pixels < (90, 40))).all()


def test_the_region_is_cut_at_the_images_border():
    config = SamplingConfig(method="roi", columns=3, rows=3, roi=(100, 60, 500, 500))
    pixels = sample_pixels(config, blank(120, 80), everywhere(120, 80))
    assert len(pixels) == 9
    assert ((pixels >= (100, 60)) & (pixels < (120, 80))).all()


@pytest.mark.parametrize("method", ["roi", "gradient"])
@pytest.mark.parametrize("roi", [(120, 0, 10, 10), (0, 80, 10, 10), (10**9, 10**9, 5, 5)])
def test_a_region_outside_the_image_gives_nothing(method, roi):
    config = SamplingConfig(method=method, roi=roi)
    pixels = sample_pixels(config, blank(120, 80), everywhere(120, 80))
    assert pixels.shape == (0, 2)
    assert pixels.dtype == np.int64


@pytest.mark.parametrize("roi", [(0, 0, 100, 8), (0, 0, 8, 80), (0, 0, 8, 8), (92, 74, 8, 6)])
def test_a_region_whose_middle_cannot_be_asked_still_gives_what_can(roi):
    pixels = sample_pixels(
        SamplingConfig(method="roi", columns=3, rows=3, roi=roi), blank(100, 80), all_but_margin(100, 80, 5)
    )
    assert len(pixels) >= 1
    assert all_but_margin(100, 80, 5)(pixels).all()
    assert ((pixels >= roi[:2]) & (pixels < (roi[0] + roi[2], roi[1] + roi[3]))).all()


@pytest.mark.parametrize("method", ["grid", "gradient"])
@pytest.mark.parametrize("size", [(1, 1), (10, 10), (300, 9)])
def test_where_nothing_can_be_asked_nothing_is(method, size):
    pixels = sample_pixels(SamplingConfig(method=method), blank(*size), all_but_margin(*size, 5))
    assert pixels.shape == (0, 2)


def test_a_grid_finer_than_the_image_asks_each_pixel_once():
    pixels = sample_pixels(SamplingConfig(columns=50, rows=50), blank(7, 5), everywhere(7, 5))
    assert are_distinct(pixels)
    assert 0 < len(pixels) <= 35


def test_more_is_asked_near_an_edge():
    config = SamplingConfig(method="gradient", points=100)
    pixels = sample_pixels(config, image_with_edge(), everywhere(120, 80))
    near = np.abs(pixels[:, 0] - 59.5) < 2.0
    assert near.mean() > 0.5  # those 320 pixels are 3 % of the image
    assert (~near).sum() >= 2  # and plain walls are asked as well: 9 % of the weight is theirs


def test_without_any_structure_every_pixel_has_the_same_chance():
    config = SamplingConfig(method="gradient", points=1000)
    pixels = sample_pixels(config, blank(120, 80), everywhere(120, 80))
    counts = [
        ((pixels[:, 0] // 40 == i) & (pixels[:, 1] // 40 == j)).sum() for i in range(3) for j in range(2)
    ]
    assert min(counts) > 100  # 167 expected, standard deviation 12


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others():
    image, ask = image_with_edge(), everywhere(120, 80)

    def draw(seed):
        return sample_pixels(SamplingConfig(method="gradient", points=50, seed=seed), image, ask)

    np.testing.assert_array_equal(draw(3), draw(3))
    assert draw(3).tolist() != draw(4).tolist()


def test_more_points_than_pixels_gives_each_askable_pixel_once():
    config = SamplingConfig(method="gradient", points=5000)
    pixels = sample_pixels(config, blank(30, 20), all_but_margin(30, 20, 5))
    assert len(pixels) == 200
    assert are_distinct(pixels)


def test_given_pixels_keep_their_order_and_lose_doubles_and_the_unaskable():
    pixels = given_pixels([(9, 9), (5, 5), (0, 0), (9, 9), (-3, 5), (6, 5)], all_but_margin(20, 20, 5))
    assert pixels.tolist() == [[9, 9], [5, 5], [6, 5]]
    assert given_pixels([], everywhere(5, 5)).shape == (0, 2)
    assert unique_pixels([(2, 1), (1, 2), (2, 1)]).tolist() == [[2, 1], [1, 2]]


@given(
    st.sampled_from(["grid", "gradient", "roi"]),
    st.tuples(st.integers(1, 90), st.integers(1, 70)),
    st.tuples(st.floats(0.5, 20.0), st.floats(0.5, 20.0)),
    st.tuples(st.integers(0, 100), st.integers(0, 100), st.integers(1, 100), st.integers(1, 100)),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_whatever_is_sampled_can_be_asked(method, size, relative_focals, roi, columns, rows, seed):
    width, height = size
    fx, fy = relative_focals[0] * width, relative_focals[1] * height
    camera = PinholeCamera.from_intrinsics(fx, fy, width / 2, height / 2, width, height)
    if (750.0 / fx) * (750.0 / fy) * width * height > 1e6:  # keep it quick
        return
    if min(int(width * 750 / fx), int(height * 750 / fy)) < 1:
        return
    estimator = DepthEstimator(FakeEngine(lambda _: ""), BUILT_IN_PROFILES["depthlm-12b"])
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frame = estimator.prepare(image, camera)
    config = SamplingConfig(
        method=method, columns=columns, rows=rows, points=columns * rows, roi=roi, seed=seed
    )
    pixels = estimator.sample(frame, config)
    assert pixels.shape[1:] == (2,)
    assert len(pixels) <= columns * rows
    assert are_distinct(pixels)
    canonical = frame.view.to_canonical(pixels)
    assert ((canonical >= 5) & (canonical < np.array(frame.view.size) - 5)).all()
    assert ((pixels >= roi[:2]) & (pixels < (roi[0] + roi[2], roi[1] + roi[3]))).all()
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    inside = (u >= roi[0]) & (u < roi[0] + roi[2]) & (v >= roi[1]) & (v < roi[1] + roi[3])
    possible = frame.askable(np.stack([u, v], axis=-1)) & inside
    assert (len(pixels) > 0) == possible.any()
