"""The arrow and the question, against what the paper's code draws and asks."""

import numpy as np
import pytest

from depthlm_ros.profile import BUILT_IN_PROFILES
from depthlm_ros.prompting import drawable, marker_paint, prompt_for

ARROW = """
......
..x...
...x..
xxxxxT
...x..
..x...
"""
"""T is the asked pixel. The head is two pixels before it and three: (-2, +-1) and (-3, +-2)."""

OFFICIAL_QUESTION = (
    "Given this image, how far is the point pointed by the red arrow from the camera? Output the thinking "
    "process in <think> </think> and final answer (the meter number only, without the unit) in <answer> "
    "</answer> tags."
)


def arrow_offsets():
    rows = ARROW.strip().splitlines()
    cells = {(x, y): mark for y, row in enumerate(rows) for x, mark in enumerate(row)}
    ((tx, ty),) = (cell for cell, mark in cells.items() if mark == "T")
    return {(x - tx, y - ty) for (x, y), mark in cells.items() if mark == "x"}


def test_exactly_nine_pixels_turn_red_and_the_target_does_not():
    base = np.full((40, 50, 3), 90, dtype=np.uint8)
    prompt = prompt_for(base, 20, 15, BUILT_IN_PROFILES["depthlm-7b"])
    (image,) = prompt.images
    pixels = image.pixels()
    changed = {(int(x), int(y)) for y, x in np.argwhere((pixels != 90).any(axis=2))}
    assert len(changed) == 9
    assert changed == {(20 + dx, 15 + dy) for dx, dy in arrow_offsets()}
    assert {tuple(pixels[y, x]) for x, y in changed} == {(255, 0, 0)}
    assert tuple(pixels[15, 20]) == (90, 90, 90)
    assert (base == 90).all()


def test_the_base_is_shared_not_copied():
    base = np.zeros((40, 50, 3), dtype=np.uint8)
    prompts = [prompt_for(base, x, 15, BUILT_IN_PROFILES["depthlm-7b"]) for x in (10, 20)]
    assert all(prompt.images[0].base is base for prompt in prompts)


@pytest.mark.parametrize(
    ("xy", "fits"),
    [
        ((5, 5), True), ((4, 5), False), ((5, 4), False), ((-1, 5), False),
        ((44, 34), True), ((45, 34), False), ((44, 35), False), ((50, 40), False), ((10**12, 5), False),
    ],
)  # fmt: skip
def test_the_arrow_needs_five_pixels_on_each_side(xy, fits):
    assert bool(drawable(xy, (50, 40))) is fits


def test_a_drawable_arrow_lies_in_the_image_whole():
    size = (14, 12)
    points = np.stack(np.meshgrid(np.arange(-3, 20), np.arange(-3, 20)), axis=-1)
    fits = drawable(points, size)
    assert fits.shape == (23, 23)
    assert fits.sum() == (14 - 10) * (12 - 10)
    for x, y in points[fits]:
        painted = np.array(marker_paint(int(x), int(y)).xy)
        assert (painted >= 0).all()
        assert (painted < size).all()


def test_no_pixel_of_a_tiny_image_is_drawable():
    points = np.stack(np.meshgrid(np.arange(10), np.arange(10)), axis=-1)
    assert not drawable(points, (10, 10)).any()
    assert drawable(np.empty((0, 2), dtype=np.int64), (10, 10)).shape == (0,)


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("depthlm-3b", "You are a helpful assistant."),
        ("depthlm-7b", "You are a helpful assistant."),
        ("depthlm-12b", None),
    ],
)
def test_the_model_is_asked_as_it_was_trained(name, system):
    prompt = prompt_for(np.zeros((40, 50, 3), np.uint8), 20, 15, BUILT_IN_PROFILES[name])
    assert prompt.question == OFFICIAL_QUESTION
    assert prompt.system == system
    assert prompt.image_first is True
    assert prompt.prefix == "<think> The point is around"
