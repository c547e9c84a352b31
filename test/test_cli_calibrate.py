"""``depthlm calibrate``: from labelled images to a calibrated depthlm.json, with an engine that answers by script."""

import json
import math
import re
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.engines.base import Answer, Token
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.profile import Calibration, CheckpointProfile, load_profile

SURE, UNSURE = 4.0, 0.5
"""Densities per unit of log depth that the scripted engine has on the right and on the left."""


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def said(prompt):
    """2.50 m or, in the lower half, 7.5 m: surely right of the middle of the view, unsurely left of it."""
    x, y = prompt.images[0].paint.xy[4]
    metres, step, text = (2.5, 0.01, " 2.50") if y < 48 else (7.5, 0.1, " 7.5")
    density = (SURE if x > 64 else UNSURE) + x / 1000  # no two columns are equally sure
    return Answer(f"{text} meters", (Token(text, math.log(density * step / metres)), Token(" meters", 0.0)))


@pytest.fixture
def engine(monkeypatch):
    made = FakeEngine(said)
    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: made)
    return made


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    record = asdict(CheckpointProfile("test", 120.0))
    del record["coordinate_steps"]  # what a file leaves to its default stays so
    (folder / "depthlm.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def data(tmp_path):
    """Thirty images with twenty labels each: right of the middle all true, left of it every second one far off."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    lines = []
    for index in range(30):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / f"{index}.png")
        uv = [
            [int(u), int(v)] for u, v in zip(rng.integers(8, 56, 20), rng.choice([10, 40], 20), strict=True)
        ]
        answers = np.array([2.5 if v == 10 else 7.5 for _, v in uv])
        off = np.where([u < 31 for u, _ in uv], rng.choice([1.05, 2.0], 20), 1.05)
        lines.append({"image": f"{index}.png", "intrinsics": [60, 60, 32, 24, 64, 48], "pixel_coords": uv,
                      "depth": (answers * off).tolist()})  # fmt: skip
    (folder / "d.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder / "d.jsonl"


def calibrate(data, checkpoint, *more):
    return run("calibrate", data, "--images", data.parent, "--checkpoint", checkpoint, *more)


def test_a_checkpoint_is_calibrated_and_scored_by_what_it_was_told(data, checkpoint, engine, tmp_path):
    before = json.loads((checkpoint / "depthlm.json").read_text())
    result = calibrate(data, checkpoint, "--write")
    assert result.exit_code == 0, result.output
    assert "600 answers, 30 images" in result.output
    assert "before: no calibration" in result.output
    error, auroc = re.search(r"after \(by fits to other images\): calibration error ([\d.]+) .* AUROC ([\d.]+)",
                             result.output).groups()  # fmt: skip
    # About half of the answers are all right, the others every second time: a perfect order has 5 in 6.
    assert float(error) < 0.1
    assert float(auroc) > 0.75
    after = json.loads((checkpoint / "depthlm.json").read_text())
    knots = after.pop("calibration")
    before.pop("calibration")
    assert after == before
    assert knots["score"] == "relative"
    assert knots["confidence"][0] == pytest.approx(0.5, abs=0.15)
    assert knots["confidence"][-1] == 1.0
    assert knots["relative_sigma"][-1] == pytest.approx(0.05, abs=1e-3)
    assert knots["raw"][0] == pytest.approx(UNSURE + 0.03, abs=0.03)
    for word in ("600 answers to labels of d (labels SHA-256 ", "engine transformers", "fake", "dtype"):
        assert word in knots["fitted_on"]

    scored = run("eval", data, "--images", data.parent, "--checkpoint", checkpoint, "--out", tmp_path / "out")
    assert scored.exit_code == 0, scored.output
    confidence = json.loads((tmp_path / "out" / "metrics.json").read_text())["confidence"]
    assert confidence["n"] == 600
    assert confidence["calibration_error"]["equal_mass"] < 0.1

    again = calibrate(data, checkpoint)
    assert again.exit_code == 0, again.output
    assert re.search(r"before: calibration error 0\.0\d\d", again.output)
    assert "nothing is written: --write" in again.output
    assert json.loads((checkpoint / "depthlm.json").read_text())["calibration"] == knots


def test_a_new_file_takes_the_profile_and_the_old_one_stays(data, checkpoint, engine, tmp_path):
    own = (checkpoint / "depthlm.json").read_bytes()
    out = tmp_path / "made" / "depthlm.json"
    result = calibrate(data, checkpoint, "--out", out)
    assert result.exit_code == 0, result.output
    assert load_profile(out.parent).calibration.score == "relative"
    assert (checkpoint / "depthlm.json").read_bytes() == own
    whole = out.read_bytes()
    asked = engine.generate_calls
    again = calibrate(data, checkpoint, "--out", out)
    assert again.exit_code == 2
    assert "exists and is not replaced" in again.output
    assert out.read_bytes() == whole
    both = calibrate(data, checkpoint, "--out", tmp_path / "other.json", "--write")
    assert both.exit_code == 2
    assert "expected one of them" in both.output
    assert engine.generate_calls == asked  # refused before anything is asked


def test_a_built_in_profile_becomes_a_file_only_where_there_is_none(data, checkpoint, engine):
    own = (checkpoint / "depthlm.json").read_bytes()
    refused = calibrate(data, checkpoint, "--profile", "depthlm-12b", "--write")
    assert refused.exit_code == 2
    assert "would replace the file's" in " ".join(refused.output.split())
    assert (checkpoint / "depthlm.json").read_bytes() == own
    assert engine.generate_calls == 0


def test_calibrating_with_a_built_in_profile_writes_all_of_it(data, tmp_path, monkeypatch):
    scripted = FakeEngine(lambda prompt: Answer(" 2.50 meters", (
        Token(" 2.50", -1.0 - prompt.images[0].paint.xy[4][0] / 1000), Token(" meters", 0.0))))  # fmt: skip
    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: scripted)
    folder = tmp_path / "weights"
    folder.mkdir()
    result = calibrate(data, folder, "--profile", "depthlm-12b", "--write", "--limit", 12)
    assert result.exit_code == 0, result.output
    assert "leave --profile depthlm-12b out" in result.output
    profile = load_profile(folder)
    assert (profile.name, profile.canonical_focal_px) == ("depthlm-12b", 750.0)
    assert profile.calibration.fitted_on.startswith("240 answers to labels of d")


def test_one_image_is_said_to_be_in_sample(data, checkpoint, engine):
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    record = {**lines[0], "pixel_coords": [p for line in lines for p in line["pixel_coords"]],
              "depth": [z for line in lines for z in line["depth"]]}  # fmt: skip
    data.write_text(json.dumps(record))
    result = calibrate(data, checkpoint)
    assert result.exit_code == 0, result.output
    assert "in-sample" in result.output
    data.write_text(f"{json.dumps(record)}\n" * 2)  # the same picture on two lines is no second one
    assert "in-sample" in calibrate(data, checkpoint).output


@pytest.mark.parametrize(
    ("script", "more", "reason"),
    [
        (
            said,
            ("--limit", 9),
            r"needs 200 answers .* got 180 to 180 labels \(ok 180\): name DATA with more labels",
        ),
        (lambda prompt: " nothing", (), r"needs 200 answers .* got 0 to 600 labels \(no_number 600\)"),
        (
            lambda prompt: Answer(" 2.50 meters"),
            (),
            r"log-probabilities .* gave none: use a server that .*--engine",
        ),
        (lambda prompt: " 2.50 meters", (), "needs answers of different certainty: name more DATA"),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_nothing_is_written(
    data, checkpoint, monkeypatch, script, more, reason
):
    own = (checkpoint / "depthlm.json").read_bytes()
    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: FakeEngine(script))
    result = calibrate(data, checkpoint, "--write", *more)
    assert result.exit_code == 2, result.output
    assert re.search(reason, " ".join(result.output.split()))
    assert (checkpoint / "depthlm.json").read_bytes() == own


def test_a_calibration_of_before_is_replaced_and_was_measured_with_its_own_score(data, checkpoint, engine):
    record = json.loads((checkpoint / "depthlm.json").read_text())
    record["calibration"] = asdict(Calibration((0.0, 1.0), (0.6, 0.6), (0.1, 0.1), "old"))
    del record["calibration"]["score"]
    (checkpoint / "depthlm.json").write_text(json.dumps(record))
    result = calibrate(data, checkpoint, "--write")
    assert result.exit_code == 0, result.output
    # It says 0.6 of everything: as good as a coin.
    assert re.search(r"before: calibration error .* AUROC 0\.500", result.output)
    assert load_profile(checkpoint).calibration.score == "relative"


def test_an_image_that_is_missing_is_named(data, checkpoint, engine):
    (data.parent / "3.png").unlink()
    result = calibrate(data, checkpoint, "--write")
    assert result.exit_code == 1
    assert "580 answers, 29 images" in result.output
    assert "1 images with 20 labels were left out; the fit is without them" in result.output
    assert load_profile(checkpoint).calibration is not None
