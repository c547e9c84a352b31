"""The canonical view: the official geometry, bit for bit, and one resize."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shared_data import GOLDEN

from depthlm_ros.canonical import CanonicalError, CanonicalView
from depthlm_ros.engines.base import PromptImage
from depthlm_ros.prompting import drawable, marker_paint


def formula_image(width, height):
    y, x = np.mgrid[:height, :width]
    return np.stack([(3 * x + y) % 256, (x + 2 * y) % 256, (x * y // 7) % 256], axis=-1).astype(np.uint8)


def test_the_official_code_paints_the_same_bytes(golden):
    compared = 0
    for case in golden["cases"]:
        image = formula_image(case["width"], case["height"])
        view = CanonicalView(image, case["fx"], case["fy"], case["canonical_focal_px"])
        assert list(view.size) == case["canonical_size"]
        assert view.image.shape == (view.size[1], view.size[0], 3)
        for query in case["queries"]:
            x, y = view.to_canonical(query["pixel"])
            assert bool(drawable((x, y), view.size)) is query["drawable"]
            if query["drawable"]:
                assert [x, y] == query["marker_xy"]
                marked = PromptImage(view.image, marker_paint(int(x), int(y))).pixels()
                assert hashlib.sha256(marked.tobytes()).hexdigest() == query["marked_rgb_sha256"]
                compared += 1
    assert compared > 50


def test_the_golden_record_is_the_original(shared):
    assert GOLDEN.read_bytes() == shared("golden", "canonical.json").read_bytes()


@pytest.mark.parametrize(
    ("size", "focal", "canonical", "expected", "pixel", "moved"),
    [
        # s = 1000 / 300: int(201 s) = 670, int(99 s) = 330; (50, 31) to (166.67, 103.33)
        ((201, 99), 300.0, 1000.0, (670, 330), (50, 31), (166, 103)),
        # s = 750 / 1215.834 = 0.61686: 770 s = 474.98, 420 s = 259.08; 389 s = 239.96
        ((770, 420), 1215.834, 750.0, (474, 259), (272, 389), (167, 239)),
        ((64, 48), 500.0, 500.0, (64, 48), (63, 47), (63, 47)),
    ],
)
def test_sides_and_pixels_are_scaled_and_cut_to_whole_numbers(size, focal, canonical, expected, pixel, moved):
    view = CanonicalView(formula_image(*size), focal, focal, canonical)
    assert view.size == expected
    assert tuple(view.to_canonical(pixel)) == moved
    assert view.source_size == size


def test_the_filter_is_pillows_default():
    image = formula_image(120, 90)
    view = CanonicalView(image, 210.0, 210.0, 750.0)
    expected = Image.fromarray(image).resize((428, 321), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(view.image, np.asarray(expected))


@pytest.mark.parametrize(("fx", "fy"), [(0.0, 250.0), (250.0, 0.0)])
def test_a_missing_focal_length_takes_the_other(fx, fy):
    assert CanonicalView(formula_image(100, 80), fx, fy, 500.0).size == (200, 160)


def test_up_to_one_per_cent_of_anisotropy_one_scale_serves_both_sides():
    # as the official code: s = f / fx on both sides
    assert CanonicalView(formula_image(100, 1000), 250.0, 252.0, 500.0).size == (200, 2000)


@pytest.mark.parametrize(("fx", "fy"), [(200.0, 250.0), (250.0, 200.0), (250.0, 253.0)])
def test_beyond_it_both_focal_lengths_become_canonical(fx, fy):
    view = CanonicalView(formula_image(300, 240), fx, fy, 500.0)
    assert view.size == (int(300 * 500 / fx), int(240 * 500 / fy))
    # A ray that is 0.2 right and 0.1 down of the axis is 0.2 f and 0.1 f off the centre, f being canonical.
    cx, cy = 150, 120
    moved = view.to_canonical([(cx, cy), (cx + round(0.2 * fx), cy + round(0.1 * fy))])
    np.testing.assert_allclose(moved[1] - moved[0], (0.2 * 500, 0.1 * 500), atol=2.0)


def test_the_resize_is_done_once_however_many_pixels_are_asked(monkeypatch):
    calls = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda *a, **k: calls.append(1) or resize(*a, **k))
    view = CanonicalView(formula_image(100, 80), 250.0, 250.0, 500.0)
    for pixel in np.ndindex(30, 30):
        x, y = view.to_canonical(pixel)
        PromptImage(view.image, marker_paint(int(x) + 10, int(y) + 10)).pixels()
    assert len(calls) == 1


def test_the_source_image_is_left_alone():
    image = formula_image(60, 40)
    CanonicalView(image, 250.0, 250.0, 500.0)
    np.testing.assert_array_equal(image, formula_image(60, 40))


FOCALS = st.floats(20.0, 3000.0)


@given(FOCALS, FOCALS, st.sampled_from([750.0, 1000.0]), st.integers(0, 4000), st.integers(0, 4000))
def test_pixels_go_there_and_back(fx, fy, canonical, u, v):
    view = CanonicalView(formula_image(70, 50), fx, fy, canonical)
    xy = view.to_canonical((u, v))
    back = view.to_source(xy)
    sx = canonical / fx
    sy = sx if abs(fx - fy) <= 0.01 * max(fx, fy) else canonical / fy
    assert abs(back[0] - u) <= 0.5 / sx + 1e-6
    assert abs(back[1] - v) <= 0.5 / sy + 1e-6
    np.testing.assert_array_equal(view.to_canonical(back), xy)


def test_pixels_of_any_shape():
    view = CanonicalView(formula_image(70, 50), 250.0, 250.0, 500.0)
    assert view.to_canonical(np.zeros((4, 5, 2))).shape == (4, 5, 2)
    assert view.to_canonical(np.empty((0, 2))).shape == (0, 2)
    assert view.to_canonical([[3, 4]]).dtype == np.int64


@pytest.mark.parametrize(
    ("image", "fx", "fy", "reason"),
    [
        (np.zeros((40, 60), np.uint8), 100.0, 100.0, "RGB"),
        (np.zeros((40, 60, 4), np.uint8), 100.0, 100.0, "RGB"),
        (np.zeros((40, 60, 3), np.float32), 100.0, 100.0, "uint8"),
        (np.zeros((0, 60, 3), np.uint8), 100.0, 100.0, "60x0"),
        (np.zeros((40, 60, 3), np.uint8), 0.0, 0.0, "above 0"),
        (np.zeros((40, 60, 3), np.uint8), -5.0, -5.0, "above 0"),
        (np.zeros((40, 60, 3), np.uint8), math.nan, 5.0, "above 0"),
        (np.zeros((40, 60, 3), np.uint8), math.inf, math.inf, "above 0"),
        (np.zeros((40, 60, 3), np.uint8), 1e6, 1e6, "becomes 0x0"),
        (np.zeros((40, 60, 3), np.uint8), 0.01, 0.01, "becomes 6000000x4000000"),
        (np.zeros((40, 60, 3), np.uint8), 5e-324, 5e-324, "outside 1 to"),
    ],
)
def test_what_cannot_be_resized_is_refused_with_the_reason(image, fx, fy, reason):
    with pytest.raises(CanonicalError, match=reason):
        CanonicalView(image, fx, fy, 1000.0)


def test_the_largest_view_is_a_choice():
    image = formula_image(100, 100)
    assert CanonicalView(image, 100.0, 100.0, 200.0, max_pixels=40_000).size == (200, 200)
    with pytest.raises(CanonicalError, match="200x200"):
        CanonicalView(image, 100.0, 100.0, 200.0, max_pixels=39_999)
