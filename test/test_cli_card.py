"""``depthlm card``: everything in it comes from the files."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.profile import CheckpointProfile


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "depthlm.json").write_text(json.dumps(asdict(CheckpointProfile("small", 123.0))))
    engine = FakeEngine(lambda prompt: " 2.50 meters")
    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: engine)
    return folder


@pytest.fixture
def measured(tmp_path, checkpoint):
    """Two runs: one of one data set, one of two."""
    line = {
        "image": "image.png", "intrinsics": [60, 60, 32, 24, 64, 48],
        "pixel_coords": [[40, 20], [30, 20], [35, 30]], "depth": [2.5, 2.0, 9.0],
    }  # fmt: skip
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "image.png")
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(line)}\n" * 2)
    runs = {"single": ["one"], "several": ["two", "three"]}
    for out, names in runs.items():
        data = [tmp_path / f"{name}.jsonl" for name in names]
        result = run("eval", *data, "--images", tmp_path, "--out", tmp_path / out, "--checkpoint", checkpoint)
        assert result.exit_code == 0, result.output
    return [tmp_path / out for out in runs]


def test_a_card_says_what_the_files_say(tmp_path, checkpoint, measured):
    card = tmp_path / "docs" / "card.md"
    training = {"parameters": 4321, "recipe": {"vision": {"steps": 7}}, "test": {"robot": {"delta1": 0.987}}}
    (checkpoint / "training.json").write_text(json.dumps(training))
    result = run("card", *measured, "--out", card, "--checkpoint", checkpoint, "--licence", "MIT")
    assert result.exit_code == 0, result.output
    text = card.read_text()
    for section in ("Intended use", "How good it is", "How it was trained", "Limits", "Licence"):
        assert f"\n## {section}\n" in text
    for out in measured:
        record = json.loads((out / "metrics.json").read_text())
        assert record["made_by"]["command"] in text
        for digest in record["made_by"]["data_sha256"].values():
            assert digest in text
    single = json.loads((measured[0] / "metrics.json").read_text())
    low, high = single["delta1_interval95"]
    row = f"| {single['model']} | {single['delta1']:.3f} ({low:.3f} to {high:.3f}) |"
    assert row in text
    assert "| delta1 | two | three | average |" in text
    for name in ("one", "two", "three"):
        assert f"\n### {name}\n" in text
    assert "4321 parameters" in text
    assert "| recipe.vision.steps | 7 |" in text
    assert "departure from the paper" in text
    assert "0.987" not in text  # measured otherwise than by `depthlm eval`
    assert "canonical focal length 123 px" in text
    assert text.endswith("## Licence\n\nMIT\n")


def test_a_checkpoint_without_a_record_is_not_given_one(tmp_path, checkpoint, measured):
    result = run("card", measured[0], "--out", tmp_path / "card.md", "--checkpoint", checkpoint)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "card.md").read_text()
    assert "without a training record" in text
    assert "departure" not in text
    assert "publisher" in text.split("## Licence")[1]


def test_runs_that_are_none_or_of_two_models_are_refused(tmp_path, checkpoint, measured):
    common = ["--out", tmp_path / "card.md", "--checkpoint", checkpoint]
    absent = run("card", tmp_path / "absent", *common)
    assert (absent.exit_code, absent.output.count("\n")) == (2, 1)
    assert "metrics.json" in absent.output
    old = tmp_path / "old"
    old.mkdir()
    for wrong in (
        {"delta1": 0.5, "model": "x"},
        {"delta1": 0.5, "model": "x", "made_by": {}},
        [1],
        {"datasets": 3},
    ):
        (old / "metrics.json").write_text(json.dumps(wrong))
        refused = run("card", old, *common)
        assert refused.exit_code == 2, refused.output
        assert "depthlm eval" in refused.output
    other = json.loads((measured[0] / "metrics.json").read_text())
    (old / "metrics.json").write_text(json.dumps({**other, "by_canvas": [{"n": 3}]}))
    refused = run("card", old, *common)
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "another version" in refused.output
    (old / "metrics.json").write_text(json.dumps({**other, "model": "another"}))
    two = run("card", measured[0], old, *common)
    assert two.exit_code == 2
    assert "another" in two.output
    assert not (tmp_path / "card.md").exists()
