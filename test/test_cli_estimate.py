"""``depthlm estimate``: with scripted answers, and with the embedded checkpoint."""

import csv
import json
from dataclasses import asdict

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.profile import CheckpointProfile

INTRINSICS = ["--fx", 60, "--fy", 60, "--cx", 32, "--cy", 24]


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint directory with nothing but a profile, and an engine that answers 2.50 m, or " no" on the left."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    profile = asdict(CheckpointProfile("test", 120.0))
    (folder / "depthlm.json").write_text(json.dumps(profile))
    engine = FakeEngine(lambda prompt: " no" if prompt.images[0].paint.xy[4][0] < 50 else " 2.50 meters")
    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: engine)
    return folder


def rows_of(out):
    with (out / "sparse.csv").open() as file:
        return list(csv.DictReader(file))


def test_pixels_into_files(photo, checkpoint, tmp_path):
    out = tmp_path / "out"
    result = run(
        "estimate", photo, *INTRINSICS, "--pixel", 40, 20, "--pixel", 10, 20, "--pixel", 0, 0,
        "--checkpoint", checkpoint, "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "2.5" in result.output
    assert "undrawable 1" in result.output
    rows = rows_of(out)
    assert list(rows[0]) == ["u", "v", "z_m", "sigma_m", "confidence", "status"]
    assert [(r["u"], r["v"], r["z_m"], r["status"]) for r in rows] == [
        ("40", "20", "2.5", "ok"), ("10", "20", "nan", "no_number"), ("0", "0", "nan", "undrawable"),
    ]  # fmt: skip
    assert b"element vertex 1\n" in (out / "cloud.ply").read_bytes()
    with Image.open(out / "overlay.png") as overlay:
        assert overlay.size == (64, 48)


def test_a_grid_and_the_configured_sampling(photo, checkpoint, tmp_path):
    common = ["estimate", photo, *INTRINSICS, "--checkpoint", checkpoint, "--out", tmp_path / "out"]
    assert run(*common, "--grid", "4x3").exit_code == 0
    assert len(rows_of(tmp_path / "out")) == 12
    config = tmp_path / "c.yaml"
    config.write_text("sampling: {columns: 5, rows: 2}\n")
    assert run(*common, "--config", config).exit_code == 0
    assert len(rows_of(tmp_path / "out")) == 10
    settings = ["--set", "sampling.method=gradient", "--set", "sampling.points=7"]
    assert run(*common, "--config", config, *settings).exit_code == 0
    assert len(rows_of(tmp_path / "out")) == 7


def test_a_calibration_file_tells_raw_from_rectified(photo, checkpoint, tmp_path):
    info = {
        "width": 64, "height": 48, "distortion_model": "plumb_bob", "d": [-0.3, 0.1, 0.0, 0.0, 0.0],
        "k": [60, 0, 32, 0, 60, 24, 0, 0, 1], "r": [1, 0, 0, 0, 1, 0, 0, 0, 1],
        "p": [50, 0, 32, 0, 0, 50, 24, 0, 0, 0, 1, 0],
    }  # fmt: skip
    calibration = tmp_path / "info.yaml"
    calibration.write_text(yaml.safe_dump(info))
    common = ["estimate", photo, "--camera-info", calibration, "--checkpoint", checkpoint, "--pixel", 40, 20]
    source = np.asarray(Image.open(photo))
    # Above the point and the legend, which is left out of so small a picture.
    assert run(*common, "--rectified", "--out", tmp_path / "rectified").exit_code == 0
    assert (np.asarray(Image.open(tmp_path / "rectified" / "overlay.png"))[:10] == source[:10]).all()
    assert run(*common, "--raw", "--out", tmp_path / "raw").exit_code == 0
    assert (np.asarray(Image.open(tmp_path / "raw" / "overlay.png"))[:10] != source[:10]).any()


OUTSIDE = (
    "pixel (64, 3) cannot be asked: it lies outside of the image of 64x48: name one from (0, 0) to (63, 47)"
)
BLACK = "pixel (6, 6) cannot be asked: it lies in the black border that undistortion left: name one where"
NO_ROOM = (
    "pixel (1, 24) cannot be asked: there is no room for the arrow: name one 5 pixels of the canonical view"
)


def test_why_a_pixel_is_undrawable_is_said_in_the_same_words_everywhere(photo, checkpoint, tmp_path):
    zoomed_out = {
        "width": 64, "height": 48, "distortion_model": "plumb_bob", "d": [0.0] * 5,
        "k": [60, 0, 32, 0, 60, 24, 0, 0, 1], "p": [30, 0, 32, 0, 0, 30, 24, 0, 0, 0, 1, 0],
    }  # fmt: skip
    (tmp_path / "info.yaml").write_text(yaml.safe_dump(zoomed_out))
    calibration = ["--camera-info", tmp_path / "info.yaml", "--checkpoint", checkpoint]
    plain = [*INTRINSICS, "--checkpoint", checkpoint]
    task = ["--task", "principal_axis_distance"]
    for pixel, camera, says in (
        ((64, 3), plain, OUTSIDE),
        ((6, 6), calibration, BLACK),
        ((1, 24), plain, NO_ROOM),
    ):
        asked = run("ask", photo, *task, "--pixel", *pixel, *camera)
        assert f"no answer: {says}" in asked.output
        out = tmp_path / "out"
        estimated = run("estimate", photo, "--pixel", *pixel, "--pixel", 40, 24, *camera, "--out", out)
        assert estimated.exit_code == 0, estimated.output
        assert f"undrawable: {says}" in estimated.output
    focal = ["--fx", 60, "--fy", 60, "--focal", 120, "--out", tmp_path / "out"]
    marked = run("mark", photo, "--pixel", 64, 3, "--pixel", 1, 24, "--pixel", 40, 24, *focal)
    assert f"undrawable: {OUTSIDE}" in marked.output
    assert f"undrawable: {NO_ROOM}" in marked.output
    reasons = [q["reason"] for q in json.loads((tmp_path / "out" / "mark.json").read_text())["queries"]]
    assert reasons[0] == OUTSIDE
    assert reasons[1].startswith(NO_ROOM)
    assert reasons[2] is None


def test_many_undrawable_pixels_are_not_all_listed(photo, checkpoint, tmp_path):
    pixels = [word for v in range(8) for word in ("--pixel", 0, v)]
    result = run(
        "estimate", photo, *pixels, *INTRINSICS, "--checkpoint", checkpoint, "--out", tmp_path / "out"
    )
    assert result.output.count("cannot be asked") == 5
    assert "... and 3 more" in result.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--camera-info"),
        (INTRINSICS[:6], "--camera-info"),
        ([*INTRINSICS, "--camera-info", "x.yaml"], "not both"),
        (["--camera-info", "absent.yaml"], "absent.yaml"),
        (["--fx", 0, "--fy", 60, "--cx", 32, "--cy", 24], "fx must be above 0"),
        ([*INTRINSICS, "--grid", "4by3"], "--grid"),
        ([*INTRINSICS, "--grid", "0x3"], "sampling.columns"),
        ([*INTRINSICS, "--grid", "4x3", "--pixel", 3, 3], "not both"),
        ([*INTRINSICS, "--device", "tpu"], "engine.device"),
        ([*INTRINSICS, "--profile", "gpt"], "profile 'gpt' is unknown"),
        ([*INTRINSICS, "--set", "engin.name=transformers"], "did you mean"),
        ([*INTRINSICS, "--checkpoint", "absent"], "is not a directory"),
        ([*INTRINSICS, "--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(photo, checkpoint, tmp_path, options, says):
    result = run("estimate", photo, "--checkpoint", checkpoint, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert says in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out" / "sparse.csv").exists()


def test_a_failing_engine_leaves_no_files_and_no_traceback(photo, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "depthlm_ros.session.create_engine",
        lambda config: FakeEngine(lambda _: EngineError("the GPU is gone")),
    )
    result = run("estimate", photo, *INTRINSICS, "--checkpoint", checkpoint, "--out", tmp_path / "out")
    assert (result.exit_code, result.output) == (2, "depthlm: the GPU is gone\n")
    assert not list((tmp_path / "out").glob("*"))


def test_the_embedded_checkpoint_answers(tmp_path):
    pytest.importorskip("torch", reason="torch is absent: the embedded checkpoint cannot run")
    result = run("render", "--out", tmp_path, "--scenes", 1, "--seed", 5)
    assert result.exit_code == 0, result.output
    line = json.loads((tmp_path / "robot.jsonl").read_text().splitlines()[0])
    fx, fy, cx, cy = line["intrinsics"][:4]
    out = tmp_path / "out"
    result = run(
        "estimate", tmp_path / line["image"], "--fx", fx, "--fy", fy, "--cx", cx, "--cy", cy,
        "--grid", "4x3", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = rows_of(out)
    answered = [float(row["z_m"]) for row in rows if row["status"] == "ok"]
    assert len(rows) == 12
    assert len(answered) >= 10
    assert all(0.05 < z < 100.0 for z in answered)
    assert (out / "cloud.ply").exists()
