"""``depthlm card``: everything in it comes from the files, and all files are of one set of weights."""

import hashlib
import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from card_records import TRAINING
from PIL import Image
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.config import EngineConfig
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.evaluation.card_spatial import spatial_section
from depthlm_ros.evaluation.provenance import made_by, profile_origin, weights_digest
from depthlm_ros.profile import CheckpointProfile


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def answers(monkeypatch):
    engine = FakeEngine(lambda prompt: " 2.50 meters")
    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: engine)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A checkpoint, and two runs with it: `single` of one data set, `several` of two."""
    folder = tmp_path_factory.mktemp("original")
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "depthlm.json").write_text(json.dumps(asdict(CheckpointProfile("small", 123.0))))
    (checkpoint / "config.json").write_text('{"architectures": ["SmallForDepth"]}')
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    line = {
        "image": "image.png", "intrinsics": [60, 60, 32, 24, 64, 48],
        "pixel_coords": [[40, 20], [30, 20], [35, 30]], "depth": [2.5, 2.0, 9.0],
    }  # fmt: skip
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "image.png")
    for name in ("one", "two", "three"):
        (folder / f"{name}.jsonl").write_text(f"{json.dumps(line)}\n" * 2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        answers(monkeypatch)
        # No card shows the pictures, which cost most of the time.
        for drawn in ("draw_report", "draw_comparison"):
            monkeypatch.setattr(f"depthlm_ros.evaluation.plot.{drawn}", lambda *_: None)
        for out, names in {"single": ["one"], "several": ["two", "three"]}.items():
            data = [folder / f"{name}.jsonl" for name in names]
            result = run("eval", *data, "--images", folder, "--out", folder / out, "--checkpoint", checkpoint)
            assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def checkpoint(tmp_path, original, monkeypatch):
    answers(monkeypatch)
    return shutil.copytree(original / "checkpoint", tmp_path / "checkpoint")


@pytest.fixture
def measured(tmp_path, original):
    return [shutil.copytree(original / name, tmp_path / name) for name in ("single", "several")]


def test_a_card_says_what_the_files_say(tmp_path, checkpoint, measured):
    cards = [tmp_path / "docs" / "card.md", checkpoint / "README.md"]
    (checkpoint / "training.json").write_text(json.dumps(TRAINING))
    result = run(
        "card",
        *measured,
        "--out",
        cards[0],
        "--out",
        cards[1],
        "--checkpoint",
        checkpoint,
        "--licence",
        "MIT",
    )
    assert result.exit_code == 0, result.output
    text = cards[0].read_text()
    assert cards[1].read_text() == text
    sections = (
        "What it is", "How to ask it", "Intended use", "How good it is", "How it was made", "Limits", "Licence",
    )  # fmt: skip
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(sections)
    for out in measured:
        record = json.loads((out / "metrics.json").read_text())
        assert record["made_by"]["command"] in text
        for digest in record["made_by"]["labels_sha256"].values():
            assert digest in text
    single = json.loads((measured[0] / "metrics.json").read_text())
    low, high = single["delta1_interval95"]
    row = f"| {single['model']} | {single['delta1']:.3f} ({low:.3f} to {high:.3f}) |"
    assert row in text
    assert "| delta1 | two | three | average |" in text
    for name in ("one", "two", "three"):
        assert f"\n### {name}\n" in text
    assert "| width | 131 |" in text
    assert "`SmallForDepth` of 4.32 million parameters" in text
    assert weights_digest(checkpoint)["sha256"] in text
    assert "| recipe.text.dense_weight | 0.7 |" in text
    assert "Departures from the paper" in text
    assert "0.987" not in text  # measured otherwise than by `depthlm eval`
    assert "focal length is 123 px" in text
    assert text.endswith("## Licence\n\nMIT\n")


def test_a_card_repeats_how_its_data_were_rendered(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr("depthlm_ros.evaluation.plot.draw_report", lambda *_: None)
    made = ["render", "--out", tmp_path / "data", "--scenes", 1, "--seed", 3, "--size", "64x48", "--no-dense"]
    assert run(*made, "--processes", 1).exit_code == 0
    index = tmp_path / "data" / "robot.jsonl"
    command = (
        f"depthlm render --out {tmp_path}/data --scenes 1 --seed 3 --domain robot --size 64x48 --no-dense"
    )
    common = ["--checkpoint", checkpoint]

    def card():
        evaluated = run("eval", index, "--images", tmp_path / "data", "--out", tmp_path / "scores", *common)
        assert evaluated.exit_code == 0, evaluated.output
        assert run("card", tmp_path / "scores", "--out", tmp_path / "card.md", *common).exit_code == 0
        return (tmp_path / "card.md").read_text()

    assert f"```bash\n{command}\ndepthlm eval {index} --images" in card()
    index.write_text(index.read_text() + "\n")  # another file is not what the command gives
    assert "depthlm render" not in card()


def test_labels_without_an_answer_are_told_from_answers_that_are_wrong(
    tmp_path, checkpoint, original, monkeypatch
):
    monkeypatch.setattr("depthlm_ros.evaluation.plot.draw_report", lambda *_: None)
    lines = [json.loads(line) for line in (original / "one.jsonl").read_text().splitlines()]
    for line in lines:
        line["pixel_coords"][2] = [0, 0]  # no room for the arrow
    data = tmp_path / "border.jsonl"
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    common = ["--checkpoint", checkpoint]
    assert run("eval", data, "--images", original, "--out", tmp_path / "out", *common).exit_code == 0
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    rows = record["answered_only"]
    assert record["delta1"] == pytest.approx(1 / 3)  # 2.5 m of 2.5, 2 and an unasked 9 m
    assert (rows[record["model"]]["n"], rows[record["model"]]["delta1"]) == (4, 0.5)
    assert (rows["always_2m"]["n"], rows["always_2m"]["delta1"]) == (4, 0.5)
    assert record["trivial"]["always_2m"]["delta1"] == pytest.approx(1 / 3)
    assert run("card", tmp_path / "out", "--out", tmp_path / "card.md", *common).exit_code == 0
    assert "delta1 on the 4 labels that it answered alone: 0.500 (" in (tmp_path / "card.md").read_text()
    whole = json.loads((original / "single" / "metrics.json").read_text())
    assert whole["answered_only"] is None


def test_the_digest_is_what_sha256sum_prints_of_the_weights(tmp_path):
    assert "absent" in weights_digest(tmp_path)
    (tmp_path / "b.safetensors").write_bytes(b"2")
    (tmp_path / "a.safetensors").write_bytes(b"1")
    (tmp_path / "config.json").write_text("{}")
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"1", b"2"))
    listing = f"{one}  a.safetensors\n{two}  b.safetensors\n"
    assert weights_digest(tmp_path) == {"sha256": hashlib.sha256(listing.encode()).hexdigest()}


def test_what_a_server_answers_is_of_weights_that_are_not_known_here(checkpoint):
    local = made_by("command", EngineConfig(checkpoint=str(checkpoint)))
    assert local["checkpoint"] == weights_digest(checkpoint)
    served = made_by("command", EngineConfig(name="openai", checkpoint=str(checkpoint)))
    assert set(served["checkpoint"]) == {"absent"}
    assert "openai" in served["checkpoint"]["absent"]


def test_figures_of_other_weights_are_refused(tmp_path, checkpoint, measured):
    common = ["--out", tmp_path / "card.md", "--checkpoint", checkpoint]
    other = tmp_path / "other"
    other.mkdir()
    record = json.loads((measured[0] / "metrics.json").read_text())
    record["made_by"]["checkpoint"] = {"sha256": "0" * 64}
    (other / "metrics.json").write_text(json.dumps(record))
    mixed = run("card", measured[0], other, *common)
    assert (mixed.exit_code, mixed.output.count("\n")) == (2, 1)
    assert f"sha256 000000000000 in {other / 'metrics.json'}" in mixed.output
    (checkpoint / "model.safetensors").write_bytes(b"trained on")
    changed = run("card", measured[0], *common)
    assert (changed.exit_code, changed.output.count("\n")) == (2, 1)
    assert "measure again" in changed.output
    del record["made_by"]["checkpoint"]
    (other / "metrics.json").write_text(json.dumps(record))
    unknown = run("card", other, *common)
    assert unknown.exit_code == 2
    assert "the weights that answered; run it again" in unknown.output
    assert not (tmp_path / "card.md").exists()


def test_figures_of_another_profile_are_refused_and_of_an_unknown_one_named(tmp_path, checkpoint, measured):
    common = ["--out", tmp_path / "card.md", "--checkpoint", checkpoint]
    digest = hashlib.sha256((checkpoint / "depthlm.json").read_bytes()).hexdigest()
    path = measured[0] / "metrics.json"
    record = json.loads(path.read_text())
    assert record["made_by"]["profile"] == {"sha256": digest}
    assert profile_origin(checkpoint, "depthlm-3b") == {"built_in": "depthlm-3b"}
    assert run("card", measured[0], *common).exit_code == 0
    assert "is not known" not in (tmp_path / "card.md").read_text()
    changed = CheckpointProfile("small", 123.0, max_new_tokens=40, spatial_tasks=("two_point_distance",))
    (checkpoint / "depthlm.json").write_text(json.dumps(asdict(changed)))
    refused = run("card", measured[0], *common)
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert f"another checkpoint profile (depthlm.json with sha256 {digest[:12]})" in refused.output
    named = run("card", measured[0], *common, "--profile", "depthlm-3b")
    assert "the built-in depthlm-3b" in named.output
    del record["made_by"]["profile"]
    path.write_text(json.dumps(record))
    old = run("card", measured[0], *common)
    assert old.exit_code == 0, old.output
    assert (
        f"is not known, and may not be that of the checkpoint now: `{path}`."
        in (tmp_path / "card.md").read_text()
    )


def test_spatial_answers_stand_beside_each_other(tmp_path, checkpoint, measured):
    profile = CheckpointProfile("small", 123.0, max_new_tokens=40, spatial_tasks=("two_point_distance",))
    (checkpoint / "depthlm.json").write_text(json.dumps(asdict(profile)))
    # Measured anew by this profile: its digest is what the eval would write.
    metrics = json.loads((measured[0] / "metrics.json").read_text())
    metrics["made_by"]["profile"] = profile_origin(checkpoint)
    (measured[0] / "metrics.json").write_text(json.dumps(metrics))
    common = ["--checkpoint", checkpoint]
    tasks = ["--task", "two_point_distance", "--task", "camera_motion"]
    asked = run("ask-eval", *common, "--out", measured[0], "--samples", 2, *tasks)
    assert asked.exit_code == 0, asked.output
    written = run("card", measured[0], "--out", tmp_path / "card.md", *common)
    assert written.exit_code == 0, written.output
    text = (tmp_path / "card.md").read_text()
    record = json.loads((measured[0] / "spatial.json").read_text())
    assert record["made_by"]["command"] in text
    assert "### Spatial questions, robot domain" in text
    rows = [line for line in text.splitlines() if line.startswith("| two_point_distance |")]
    assert [row.split(" | ")[1] for row in rows] == ["direct", "derived", "best_constant"]
    assert "| camera_motion | derived | 2 |" in text
    assert "| camera motion | translation error [m] |" in text
    (measured[0] / "metrics.json").unlink()
    alone = run("card", measured[0], "--out", tmp_path / "alone.md", *common)
    assert alone.exit_code == 2
    assert "needs a run of `depthlm eval`" in alone.output


SHARE = {
    "n": 100,
    "answered": 1.0,
    "median_relative_error": 0.3,
    "median_relative_error_interval95": [0.2, 0.4],
}


def share(low, middle, high):
    return {**SHARE, "within_25": middle, "within_25_interval95": [low, high]}


def moved(low, middle, high):
    turn = {"median_rotation_error_deg": 1.0, "median_rotation_error_deg_interval95": [0.5, 2.0]}
    metres = {"median_translation_error_m": middle, "median_translation_error_m_interval95": [low, high]}
    return {**share(0.0, 0.1, 0.2), **metres, **turn}


def test_a_predictor_without_eyes_that_is_better_is_said_to_be():
    blind = {"best_constant": share(0.27, 0.36, 0.46)}
    still = {"no_motion": moved(0.37, 0.44, 0.56)}
    tasks = {
        "speed": {"direct": share(0.20, 0.29, 0.38), "derived": share(0.69, 0.77, 0.85), "trivial": blind},
        "time": {"direct": share(0.11, 0.18, 0.26), "trivial": blind},
        "camera_motion": {
            "direct": {**moved(0.60, 0.70, 0.80), **still},
            "derived": {**moved(0.03, 0.05, 0.08), **still},
            "trivial": still,
        },
    }
    run = {"domain": "robot", "seed": 1, "made_by": {"command": "c", "version": "1"}, "tasks": tasks}
    plainly = [line for line in spatial_section(run).splitlines() if line.startswith("- ")]
    assert plainly == [
        "- direct answers to speed are **not shown to be better than** `best_constant` (share within 25 %).",
        "- direct answers to time are **worse than** `best_constant` (share within 25 %).",
        "- direct answers to camera_motion are **worse than** `no_motion` (translation error).",
    ]


def test_a_checkpoint_without_a_record_is_not_given_one(tmp_path, checkpoint, measured):
    result = run("card", measured[0], "--out", tmp_path / "card.md", "--checkpoint", checkpoint)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "card.md").read_text()
    assert "without a training record" in text
    assert "Departure" not in text
    assert "rendered scenes only" not in text
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
        {"datasets": 3, "model": "x", "made_by": {"checkpoint": {}}},
    ):
        (old / "metrics.json").write_text(json.dumps(wrong))
        refused = run("card", old, *common)
        assert (refused.exit_code, refused.output.count("\n")) == (2, 1), refused.output
        assert "metrics.json: expected" in refused.output
    other = json.loads((measured[0] / "metrics.json").read_text())
    (old / "metrics.json").write_text(json.dumps({**other, "by_canvas": {"area": [{"n": 3}]}}))
    refused = run("card", old, *common)
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "another version" in refused.output
    (old / "metrics.json").write_text(json.dumps({**other, "model": "another"}))
    two = run("card", measured[0], old, *common)
    assert two.exit_code == 2
    assert "another" in two.output
    assert not (tmp_path / "card.md").exists()
