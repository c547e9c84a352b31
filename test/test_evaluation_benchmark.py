"""What the benchmark reader takes and refuses, and an evaluation with scripted answers."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.evaluation import BenchmarkError, evaluate, read_benchmark
from depthlm_ros.profile import CheckpointProfile

GOOD = {
    "image": "/rgb/a.png",
    "intrinsics": [0, 60, 32, 24, 64, 48],
    "pixel_coords": [[30, 20]],
    "depth": [2.0],
}


def written(path, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_line_is_read_as_the_official_code_does(tmp_path):
    data = written(tmp_path / "d.jsonl", {**GOOD, "extra": 1}, "", GOOD)
    first, second = read_benchmark(data, tmp_path / "images")
    assert first.path == tmp_path / "images" / "rgb" / "a.png"
    assert first.intrinsics == (60.0, 60.0, 32.0, 24.0, 64, 48)
    assert second.name == "/rgb/a.png"
    assert len(read_benchmark(data, tmp_path, limit=1)) == 1


def test_labels_without_a_depth_are_left_out_and_counted(tmp_path):
    line = {**GOOD, "pixel_coords": [[1, 2], [3, 4], [5, 6], [-1, -1], [7, 8], [9, 9]]}
    text = json.dumps(line).replace('"depth": [2.0]', '"depth": [0.0, NaN, 3.0, 4.0, -1, Infinity]')
    (sample,) = read_benchmark(written(tmp_path / "d.jsonl", text), tmp_path)
    assert sample.pixels.tolist() == [[5, 6]]
    assert sample.depth.tolist() == [3.0]
    assert sample.ignored == 5
    assert (sample.dense, sample.static) == (None, None)


def test_dense_truth_and_static_scenes_are_read_where_a_line_names_them(tmp_path):
    line = {**GOOD, "dense": "depth/000000.npz", "static": "desk"}
    (sample,) = read_benchmark(written(tmp_path / "d.jsonl", line), tmp_path)
    assert (sample.dense, sample.static) == (tmp_path / "depth" / "000000.npz", "desk")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2"),
        ("[1]", "JSON object"),
        ({"image": "a.png"}, "lacks intrinsics"),
        ({**GOOD, "image": "../secret.png"}, "outside"),
        ({**GOOD, "image": "a/../../secret.png"}, "outside"),
        ({**GOOD, "image": ""}, "image"),
        ({**GOOD, "image": 3}, "image"),
        ({**GOOD, "intrinsics": [1, 2, 3]}, "intrinsics"),
        ({**GOOD, "intrinsics": [0, 0, 1, 1, 64, 48]}, "focal length"),
        ({**GOOD, "intrinsics": [1, 1, 1, 1, 64.5, 48]}, "whole pixels"),
        ({**GOOD, "intrinsics": "60"}, "intrinsics"),
        ({**GOOD, "pixel_coords": [[1, 2], [3, 4]]}, "2 pixel_coords but 1 depths"),
        ({**GOOD, "pixel_coords": [[1, 2, 3]]}, "pixel_coords"),
        ({**GOOD, "pixel_coords": [[1.5, 2]]}, "whole pixels"),
        ({**GOOD, "pixel_coords": [[float("nan"), 2]]}, "whole pixels"),
        ({**GOOD, "pixel_coords": [[1e300, 2]]}, "whole pixels"),
        ({**GOOD, "depth": ["2.0"]}, "depth"),
        ({**GOOD, "depth": [True]}, "depth"),
        ({**GOOD, "dense": "../truth.npz"}, "outside"),
        ({**GOOD, "dense": 7}, "dense"),
        ({**GOOD, "static": 7}, "static"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path, line, says):
    data = written(tmp_path / "d.jsonl", GOOD, line)
    with pytest.raises(BenchmarkError, match="line 2") as caught:
        read_benchmark(data, tmp_path)
    assert says in str(caught.value)


def test_a_file_without_labels_is_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="no labelled pixel"):
        read_benchmark(written(tmp_path / "d.jsonl", {**GOOD, "depth": [0.0]}), tmp_path)
    with pytest.raises(BenchmarkError, match="expected one JSON object a line, but there is no such file"):
        read_benchmark(tmp_path / "absent.jsonl", tmp_path)


def saved(tmp_path, name, size=(64, 48)):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path)


def test_an_evaluation_end_to_end(tmp_path):
    saved(tmp_path, "rgb/a.png")
    saved(tmp_path, "rgb/b.png")
    a = {
        **GOOD,
        "pixel_coords": [[30, 20], [30, 20], [0, 0], [40, 30], [50, 40]],
        "depth": [2.0, 9.0, 3.0, 4.0, 0],
    }
    b = {**GOOD, "image": "rgb/b.png", "pixel_coords": [[10, 10]], "depth": [2.2]}
    nothing = {**GOOD, "image": "rgb/b.png", "depth": [0]}
    samples = read_benchmark(written(tmp_path / "d.jsonl", a, b, nothing), tmp_path)

    def script(prompt):
        # The arrow's tip is one column left of the pixel; the canonical view is twice the source here.
        xy = prompt.images[0].paint.xy[4]
        return "no idea" if xy == (40 * 2 - 1, 30 * 2) else " 2.00 meters"

    profile = CheckpointProfile("test", 120.0)
    steps = []
    with FakeEngine(script) as engine:
        result = evaluate(
            DepthEstimator(engine, profile), samples, max_megapixels=1.0, on_image=lambda: steps.append(1)
        )
    metrics = result.write(tmp_path / "out")
    assert len(steps) == 3
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    # Labels: 2.0 hit, 9.0 miss, border not asked, "no idea", 2.2 hit.
    assert (metrics["n"], metrics["images"], metrics["labels_ignored"]) == (5, 3, 2)
    assert metrics["delta1"] == pytest.approx(2 / 5)
    assert metrics["answered"] == pytest.approx(3 / 5)
    assert metrics["abs_rel"] == pytest.approx((0 + 7 / 9 + 0.2 / 2.2) / 3)
    assert metrics["rmse"] == pytest.approx(math.sqrt((7**2 + 0.2**2) / 3))
    assert metrics["status"] == {"no_number": 1, "ok": 3, "undrawable": 1}
    assert set(metrics["trivial"]) == {"always_2m", "best_constant", "row_prior", "oracle_image_constant"}
    assert metrics["trivial"]["always_2m"]["delta1"] == pytest.approx(2 / 5)
    with (tmp_path / "out" / "per_point.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "u", "v", "truth_m", "z_m", "sigma_m", "confidence", "status"]
    assert [(r["image"], r["u"], r["z_m"], r["status"]) for r in rows] == [
        ("/rgb/a.png", "30", "2", "ok"),
        ("/rgb/a.png", "30", "2", "ok"),
        ("/rgb/a.png", "0", "nan", "undrawable"),
        ("/rgb/a.png", "40", "nan", "no_number"),
        ("rgb/b.png", "10", "2", "ok"),
    ]


def test_images_that_cannot_be_asked_are_counted_with_their_reasons(tmp_path):
    saved(tmp_path, "rgb/a.png")
    saved(tmp_path, "rgb/small.png", size=(32, 48))
    small = {**GOOD, "image": "rgb/small.png", "pixel_coords": [[1, 2], [3, 4]], "depth": [1.0, 2.0]}
    absent = {**GOOD, "image": "rgb/absent.png"}
    samples = read_benchmark(written(tmp_path / "d.jsonl", small, GOOD, absent), tmp_path)
    steps = []
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        estimator = DepthEstimator(engine, CheckpointProfile("test", 120.0))
        result = evaluate(estimator, samples, max_megapixels=1.0, on_image=lambda: steps.append(1))
        metrics = result.write(tmp_path / "out")
        assert len(steps) == 3
        assert (metrics["images"], metrics["n"], metrics["delta1"]) == (1, 1, 1.0)
        assert [(f["image"], f["labels"]) for f in metrics["failures"]] == [
            ("rgb/small.png", 2), ("rgb/absent.png", 1),
        ]  # fmt: skip
        assert "32x48" in metrics["failures"][0]["reason"]
        assert "no such file" in metrics["failures"][1]["reason"]
        with pytest.raises(BenchmarkError, match=r"none of the 2 images.*small\.png.*32x48"):
            evaluate(estimator, [samples[0], samples[2]], max_megapixels=1.0)
