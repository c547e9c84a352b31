"""Groups of labels, the paper's table, and the picture."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.evaluation.benchmark import LabelledImage
from depthlm_ros.evaluation.groups import DEPTH_EDGES_M, by_canvas, by_depth
from depthlm_ros.evaluation.metrics import log_correlation
from depthlm_ros.evaluation.plot import draw_report
from depthlm_ros.evaluation.results import Evaluation, ImageResult
from depthlm_ros.evaluation.table import markdown_table, paper_table
from depthlm_ros.geometry import SparseDepth


def test_depth_bins_share_out_all_labels():
    truth = [np.array([0.5, 1.0, 3.9, 500.0]), np.array([1.5])]
    guess = [np.array([0.5, 1.0, math.nan, 1.0]), np.array([3.0])]
    bins = by_depth(truth, guess)
    assert [b["from_m"] for b in bins] == list(DEPTH_EDGES_M)
    assert bins[-1]["to_m"] is None
    assert {b["from_m"]: b["n"] for b in bins if b["n"]} == {0.0: 1, 1.0: 2, 2.0: 1, 32.0: 1}
    of = {b["from_m"]: b for b in bins}
    assert of[1.0]["delta1"] == 0.5
    assert of[1.0]["abs_rel"] == pytest.approx((0.0 + 1.0) / 2)
    assert (of[2.0]["delta1"], of[2.0]["answered"], of[2.0]["abs_rel"]) == (0.0, 0.0, None)
    assert (of[8.0]["n"], of[8.0]["delta1"], of[8.0]["answered"]) == (0, None, None)


def test_few_canvas_sizes_are_a_group_each():
    hit, miss = np.array([2.0, 2.0]), np.array([2.0, 9.0])
    truth = [np.full(2, 2.0)] * 3
    groups = by_canvas([(100, 50), (50, 40), (100, 50)], truth, [hit, miss, hit])
    for name, low, high in (
        ("area", 2000, 5000),
        ("width", 50, 100),
        ("height", 40, 50),
        ("aspect", 1.05**5, 1.05**14),
    ):
        assert [(g["smallest"], g["largest"], g["scenes"]) for g in groups[name]] == [
            ([50, 40], [50, 40], 1), ([100, 50], [100, 50], 2),
        ]  # fmt: skip
        assert [g["from"] for g in groups[name]] == pytest.approx([low, high])
        assert [g["to"] for g in groups[name]] == pytest.approx([low, high])
        assert [g["delta1"] for g in groups[name]] == [0.5, 1.0]
        assert [g["below_best"] for g in groups[name]] == [0.5, 0.0]
        # A single scene has no spread, and the best one no gap.
        assert [g["below_best_interval95"] for g in groups[name]] == [None, None]
    assert groups["size"] == []


def test_many_canvas_sizes_make_groups_of_about_equal_count():
    sizes = [(60 + k, 50) for k in range(40)]
    truth = [np.full(3, 2.0)] * 40
    groups = by_canvas(sizes, truth, truth)
    assert [g["scenes"] for g in groups["area"]] == [8] * 5
    assert [g["scenes"] for g in groups["width"]] == [10] * 4
    assert [g["scenes"] for g in groups["height"]] == [40]
    assert (groups["area"][0]["smallest"], groups["area"][-1]["largest"]) == ([60, 50], [99, 50])
    assert (groups["width"][1]["from"], groups["width"][1]["to"]) == (70, 79)
    assert sum(g["n"] for g in groups["area"]) == 120
    # Sizes of one area are not torn apart; by their width they are.
    mixed = by_canvas([(60, 50), (50, 60)] * 10 + [(70 + k, 50) for k in range(10)], truth[:30], truth[:30])
    assert mixed["area"][0]["scenes"] >= 20
    assert [g["from"] for g in mixed["width"]][:2] == [50, 60]


def test_whole_pixels_do_not_tear_one_aspect_apart():
    # 4:3 and 16:9 at sizes that were cut to whole pixels; 3:4 is another shape.
    sizes = [
        (113, 85),
        (114, 85),
        (130, 97),
        (132, 99),
        (110, 62),
        (113, 63),
        (115, 64),
        (160, 90),
        (85, 114),
    ]
    truth = [np.full(2, 2.0)] * len(sizes)
    assert [g["scenes"] for g in by_canvas(sizes, truth, truth)["aspect"]] == [1, 4, 4]


def test_a_single_size_is_compared_once_it_has_a_hundred_labels():
    hit, miss = np.full(10, 2.0), np.full(10, 9.0)
    sizes = [(64, 48)] * 10 + [(48, 64)] * 10 + [(80, 60)] * 9
    predicted = [hit, miss] * 5 + [hit] * 10 + [miss] * 9
    tall, wide = by_canvas(sizes, [hit] * 29, predicted)["size"]
    assert (tall["smallest"], tall["n"], tall["below_best"]) == ([48, 64], 100, 0.0)
    assert (wide["smallest"], wide["n"], wide["below_best"]) == ([64, 48], 100, 0.5)
    # One scene in two is missed: of ten scenes drawn anew, 2 to 8 (97.9 % of the binomial distribution).
    assert wide["below_best_interval95"] == pytest.approx([0.2, 0.8], abs=0.101)


def test_log_correlation_sees_ratios_and_no_common_factor():
    z = np.array([1.0, 2.0, 4.0, 8.0])
    assert log_correlation([z], [7.0 * z]) == pytest.approx(1.0)
    assert log_correlation([z], [1.0 / z]) == pytest.approx(-1.0)
    # Logs 0 1 2 3 against 0 1 0 1 (in units of log 2): covariance 0.25 over the square root of 1.25 times 0.25.
    assert log_correlation([z], [np.array([1.0, 2.0, 1.0, 2.0])]) == pytest.approx(
        0.25 / math.sqrt(1.25 * 0.25)
    )
    assert log_correlation([z], [np.full(4, 2.0)]) == 0.0
    assert log_correlation([z], [np.array([1.0, 2.0, math.nan, math.nan])]) is None


def evaluation(name, factors, confidence=0.5):
    """One image per factor, whose ten answers are so many times the truth."""
    camera = PinholeCamera.from_intrinsics(100.0, 100.0, 40.0, 30.0, 80, 60)
    pixels = np.array([[20 + k, 20 + 2 * k] for k in range(10)])
    z = np.geomspace(1.0, 9.0, 10)
    results = []
    for factor in factors:
        answer = (z * factor).astype(np.float32)
        sparse = SparseDepth(
            pixels, answer, 0.1 * answer, np.full(10, confidence, np.float32),
            np.where(np.isnan(answer), 2, 0).astype(np.uint8), np.zeros((10, 3), np.uint8), camera, "scripted",
        )  # fmt: skip
        label = LabelledImage(name, Path(name), (100, 100, 40, 30, 80, 60), pixels, z)
        results.append(ImageResult(label, sparse, (80, 60), level=0.0))
    return Evaluation(name, results)


def test_the_average_counts_every_data_set_alike():
    rows = paper_table([evaluation("a", [1.0, 1.0, 2.0, 2.0]), evaluation("b", [1.0])])
    assert next(iter(rows)) == "scripted"
    cells = rows["scripted"]
    assert [cells[name]["delta1"] for name in ("a", "b", "average")] == pytest.approx([0.5, 1.0, 0.75])
    # A single image has no spread, and neither has an average with it.
    assert cells["a"]["delta1_interval95"] == [0.0, 1.0]
    assert cells["b"]["delta1_interval95"] is None
    assert cells["average"]["delta1_interval95"] is None
    assert "| scripted | 0.500 (0.000 to 1.000) | 1.000 | 0.750 |" in markdown_table(rows)


def test_the_average_is_surer_than_its_parts():
    factors = [1.0, 2.0] * 20
    rows = paper_table([evaluation("a", factors), evaluation("b", factors)])["scripted"]
    width = {name: np.ptp(cell["delta1_interval95"]) for name, cell in rows.items()}
    assert width["average"] == pytest.approx(width["a"] / math.sqrt(2), rel=0.15)


@pytest.mark.parametrize(
    ("factors", "confidence"), [([1.0, 1.1, 2.0], 0.5), ([1.0], math.nan), ([math.nan, math.nan], math.nan)]
)
def test_the_picture_is_drawn_whatever_there_is(tmp_path, factors, confidence):
    measured = evaluation("some data", factors, confidence)
    draw_report(measured, measured.write(tmp_path), tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as picture:
        assert min(picture.size) > 800


def test_pictures_of_one_static_scene_count_as_one_when_images_are_drawn():
    apart = evaluation("a", [1.0, 1.0, 2.0, 2.0])
    repeats = evaluation("a", [1.0, 1.0, 2.0, 2.0])
    repeats.results = [
        replace(result, sample=replace(result.sample, static="desk")) for result in repeats.results
    ]
    assert [len(scene) for scene in apart.scenes()] == [1] * 4
    assert [len(scene) for scene in repeats.scenes()] == [4]
    alone, together = apart.metrics(), repeats.metrics()
    assert alone["delta1"] == together["delta1"] == 0.5
    assert alone["delta1_interval95"] == [0.0, 1.0]
    assert together["delta1_interval95"] is None
    assert together["images"] == 4
    assert together["by_canvas"]["area"][0]["scenes"] == 1
    # log 1, log 1, log 2, log 2: standard deviation log 2 / sqrt 3.
    assert together["static"]["scale_jitter"] == pytest.approx(math.log(2) / math.sqrt(3))
    # No other scene is left to learn a prior from.
    assert together["trivial"]["row_prior"]["answered"] == 0.0
    assert alone["static"] is None


def test_the_figures_need_neither_matplotlib_nor_scipy_to_be_imported():
    code = (
        "import sys, depthlm_ros.evaluation, depthlm_ros.evaluation.plot, depthlm_ros.evaluation.card\n"
        "print([name for name in ('matplotlib', 'scipy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "[]\n"
