"""``depthlm mark`` against hashes that the official code produced, through the command line itself."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from depthlm_ros.cli import app

CASES = 24
DRAWABLE = 97


def mark(tmp_path, image, *options):
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    result = CliRunner().invoke(app, ["mark", str(path), *map(str, options), "--out", str(tmp_path / "out")])
    record = tmp_path / "out" / "mark.json"
    return result, json.loads(record.read_text()) if record.exists() else None


def formula(width, height):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(3 * x + y) % 256, (x + 2 * y) % 256, (x * y // 7) % 256], axis=-1).astype(np.uint8)


def test_marked_images_are_those_of_the_official_code_bit_for_bit(tmp_path, golden):
    drawn = 0
    for number, case in enumerate(golden["cases"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        names = ("fx", "fy", "cx", "cy")
        options = [word for name in names for word in (f"--{name}", case[name])]
        options += ["--focal", case["canonical_focal_px"]]
        for query in case["queries"]:
            options += ["--pixel", *query["pixel"]]
        result, record = mark(folder, formula(case["width"], case["height"]), *options)
        assert result.exit_code == 0, result.output
        assert record["canonical_size"] == case["canonical_size"]
        assert len(record["queries"]) == len(case["queries"])
        for got, want in zip(record["queries"], case["queries"], strict=True):
            assert got["pixel"] == want["pixel"]
            assert got["drawable"] == want["drawable"]
            if not want["drawable"]:
                assert (got["marker_xy"], got["file"]) == (None, None)
                continue
            assert got["marker_xy"] == want["marker_xy"]
            with Image.open(folder / "out" / got["file"]) as png:
                assert png.mode == "RGB"
                assert hashlib.sha256(np.asarray(png).tobytes()).hexdigest() == want["marked_rgb_sha256"]
            drawn += 1
    assert drawn == DRAWABLE


def test_each_pixel_as_given_keeps_its_entry_and_outside_is_not_drawable(tmp_path):
    result, record = mark(
        tmp_path, formula(60, 40), "--fx", 50, "--fy", 0, "--focal", 100,
        "--pixel", 30, 20, "--pixel", -3, 20, "--pixel", 30, 20, "--pixel", 60, 20, "--pixel=7,9",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert [q["pixel"] for q in record["queries"]] == [[30, 20], [-3, 20], [30, 20], [60, 20], [7, 9]]
    assert [q["drawable"] for q in record["queries"]] == [True, False, True, False, True]
    assert record["canonical_size"] == [120, 80]
    assert record["queries"][0]["marker_xy"] == [60, 40]


def test_the_size_that_is_refused_can_be_raised_as_the_refusal_says(tmp_path):
    options = ["--fx", 50, "--fy", 50, "--focal", 100, "--pixel", 30, 20]  # a view of 120 x 80 = 9600 pixels
    small = tmp_path / "small.yaml"
    small.write_text("camera: {max_megapixels: 0.009}\n")
    result, record = mark(tmp_path, formula(60, 40), *options, "--config", small)
    assert result.exit_code == 2
    assert "raise camera.max_megapixels" in " ".join(result.output.split())
    assert record is None
    more = ["--config", small, "--set", "camera.max_megapixels=0.01"]
    result, record = mark(tmp_path, formula(60, 40), *options, *more)
    assert result.exit_code == 0, result.output
    assert record["canonical_size"] == [120, 80]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--fx", 50, "--fy", 50, "--focal", 100], "--pixel"),
        (["--fx", 0, "--fy", 0, "--focal", 100, "--pixel", 30, 20], "focal length"),
        (["--fx", -5, "--fy", 50, "--focal", 100, "--pixel", 30, 20], "focal length"),
        (["--fx", 50, "--fy", 50, "--focal", 1e6, "--pixel", 30, 20], "max_megapixels"),
        (["--fx", 50, "--fy", 50, "--focal", 0, "--pixel", 30, 20], "canonical"),
        (["--fx", 50, "--fy", 50, "--focal", "nan", "--pixel", 30, 20], "canonical"),
        (["--fx", 50, "--fy", 50, "--focal", 100, "--pixel", 30], "two whole numbers"),
        (["--fx", 50, "--fy", 50, "--focal", 100, "--pixel", 1.5, 2], "two whole numbers"),
    ],
)
def test_what_makes_no_sense_is_refused_without_a_traceback(tmp_path, options, says):
    result, record = mark(tmp_path, formula(60, 40), *options)
    assert result.exit_code == 2
    assert says in result.output
    assert "Traceback" not in result.output
    assert record is None
