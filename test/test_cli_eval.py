"""``depthlm eval``: one data set, several, dense truth, and images that are missing."""

import csv
import json
import math
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.cli_common import InputError
from depthlm_ros.cli_eval import distinct_names
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.synthetic import Domain, RenderSpec, write_dataset

TRIVIAL = ("always_2m", "best_constant", "row_prior", "oracle_image_constant")


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint directory with nothing but a profile, and an engine that answers 2.50 m, or " no" on the left."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "depthlm.json").write_text(json.dumps(asdict(CheckpointProfile("test", 120.0))))
    engine = FakeEngine(lambda prompt: " no" if prompt.images[0].paint.xy[4][0] < 50 else " 2.50 meters")
    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: engine)
    return folder


def benchmark(folder, name="d.jsonl", **changes):
    """A benchmark of two images in a folder, with three labels each."""
    folder.mkdir(exist_ok=True)
    line = {
        "image": "image.png", "intrinsics": [60, 60, 32, 24, 64, 48],
        "pixel_coords": [[40, 20], [10, 20], [45, 30]], "depth": [2.5, 2.0, 9.0], **changes,
    }  # fmt: skip
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "image.png")
    (folder / name).write_text(f"{json.dumps(line)}\n" * 2)
    return folder / name


def test_one_data_set(tmp_path, checkpoint):
    data, out = benchmark(tmp_path / "data"), tmp_path / "out"
    result = run("eval", data, "--images", data.parent, "--checkpoint", checkpoint, "--out", out)
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["delta1"] == pytest.approx(1 / 3)
    assert metrics["answered"] == pytest.approx(2 / 3)
    assert metrics["name"] == "d"
    assert metrics["dense"] is None
    assert metrics["made_by"]["command"].startswith(f"depthlm eval {data} --images {data.parent} --out {out}")
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "per_point.csv", "report.png"]
    for name in TRIVIAL:
        assert name in result.output
    with Image.open(out / "report.png") as picture:
        assert picture.width > 1000


def origin_of(folder, *options):
    """The digest and the pictures' mean level that `depthlm eval` records of a folder's wide domain."""
    data, out = folder / "wide.jsonl", folder / "out"
    result = run("eval", data, "--images", folder, "--out", out, *options)
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    return metrics["made_by"]["labels_sha256"][str(data)], metrics["mean_level"]


def test_what_the_figures_rest_on_is_known_again_after_a_fresh_rendering(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr("depthlm_ros.evaluation.plot.draw_report", lambda *_: None)
    common = {"scenes": 2, "seed": 5, "domain": Domain.WIDE, "size": (96, 72)}
    first, again, last_place, label, other = (tmp_path / name for name in "abcde")
    write_dataset(first, RenderSpec(**common), processes=1, progress=False)
    write_dataset(again, RenderSpec(**common, dense=False), processes=1, progress=False)
    digest, level = origin_of(first, "--checkpoint", checkpoint)
    pictures = [np.asarray(Image.open(path)) for path in (first / "rgb").iterdir()]
    assert level == pytest.approx(np.mean(pictures))
    assert origin_of(again, "--checkpoint", checkpoint) == (digest, level)
    assert (first / "wide.jsonl").read_bytes() != (again / "wide.jsonl").read_bytes()

    def changed(folder, change):
        shutil.copytree(first, folder)
        records = [json.loads(line) for line in (first / "wide.jsonl").read_text().splitlines()]
        change(records[1])
        (folder / "wide.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
        return origin_of(folder, "--checkpoint", checkpoint)

    # What another kind of processor makes of a tangent.
    def next_number(record):
        record["intrinsics"][0] = math.nextafter(record["intrinsics"][0], math.inf)

    assert changed(last_place, next_number) == (digest, level)
    assert changed(label, lambda record: record["depth"].reverse())[0] != digest
    assert changed(other, lambda record: record.update(image="rgb/wide_5_000000.png"))[0] != digest
    assert origin_of(first, "--checkpoint", checkpoint, "--limit", 1)[0] != digest
    picture = first / "rgb" / "wide_5_000001.png"
    Image.fromarray(np.asarray(Image.open(picture)) // 2).save(picture)
    same, darker = origin_of(first, "--checkpoint", checkpoint)
    assert same == digest
    assert darker < level - 1.0


def test_several_data_sets_make_the_papers_table(tmp_path, checkpoint):
    first = benchmark(tmp_path / "a", "near.jsonl")
    second = benchmark(tmp_path / "b", "far.jsonl", depth=[2.5, 2.0, 2.6])
    common = ["eval", first, second, "--checkpoint", checkpoint, "--out", tmp_path / "out"]
    result = run(*common, "--images", tmp_path / "a", "--images", tmp_path / "b")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    model, *others = record["table"]
    assert record["model"] == model
    assert tuple(others) == TRIVIAL
    delta1 = {name: cell["delta1"] for name, cell in record["table"][model].items()}
    assert delta1 == pytest.approx({"near": 1 / 3, "far": 2 / 3, "average": 1 / 2})
    for name in ("near", "far"):
        alone = json.loads((tmp_path / "out" / name / "metrics.json").read_text())
        assert record["datasets"][name] == alone
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.splitlines()[0] == "| delta1 | near | far | average |"
    assert "0.333 (0.333 to 0.333) | 0.667 (0.667 to 0.667) | 0.500 (0.500 to 0.500) |" in table
    refused = run(*common, "--images", tmp_path, "--images", tmp_path, "--images", tmp_path)
    assert refused.exit_code == 2
    assert "--images" in refused.output


def test_names_tell_files_apart(tmp_path):
    a, b = tmp_path / "a" / "robot.jsonl", tmp_path / "b" / "robot.jsonl"
    assert distinct_names([a]) == ["robot"]
    assert distinct_names([a, b]) == ["a_robot", "b_robot"]
    with pytest.raises(InputError, match="twice"):
        distinct_names([a, a.parent / ".." / "a" / "robot.jsonl"])
    with pytest.raises(InputError, match="ending"):
        distinct_names([a, a.with_suffix(".json")])


def test_a_missing_image_is_named_and_the_rest_is_measured(tmp_path, checkpoint):
    data = benchmark(tmp_path / "data")
    lines = data.read_text().splitlines()
    data.write_text("\n".join([lines[0].replace("image.png", "absent.png"), lines[1]]) + "\n")
    common = ["eval", data, "--images", data.parent, "--checkpoint", checkpoint, "--out", tmp_path / "out"]
    result = run(*common)
    assert result.exit_code == 1
    assert "absent.png: expected an image as PNG" in result.output
    assert "there is no such file" in result.output
    assert "1 images with 3 labels were left out" in result.output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["images"], metrics["n"]) == (1, 3)
    (data.parent / "image.png").unlink()
    nothing = run(*common)
    assert nothing.exit_code == 2
    assert "none of the 2 images" in nothing.output


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    out = tmp_path_factory.mktemp("rendered")
    result = run("render", "--out", out, "--scenes", 3, "--seed", 11)
    assert result.exit_code == 0, result.output
    return out / "robot.jsonl"


def test_dense_truth_end_to_end(tmp_path, checkpoint, rendered):
    out = tmp_path / "out"
    common = ["eval", rendered, "--images", rendered.parent, "--checkpoint", checkpoint, "--out", out]
    result = run(*common, "--dense", 32)
    assert result.exit_code == 0, result.output
    dense = json.loads((out / "metrics.json").read_text())["dense"]
    with (out / "dense.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert dense["queries"] == len(rows) <= 3 * 32
    kinds = [row["kind"] for row in rows]
    assert kinds.count("edge_near") == kinds.count("edge_far") == dense["boundary"]["pairs"] > 0
    assert kinds.count("plane") > 0
    # Whoever always says the same tells no two surfaces apart, and its answers are not in order.
    assert (dense["boundary"]["order"], dense["boundary"]["accuracy"]) == (0.0, 0.0)
    assert dense["planes"]["truth_flatness"] < 1e-3
    again = run(*common)
    assert again.exit_code == 0
    assert not (out / "dense.csv").exists()
    few = run(*common, "--dense", 5)
    assert few.exit_code == 2
    assert "24" in few.output


def test_the_embedded_checkpoint_is_measured(tmp_path, rendered):
    pytest.importorskip("torch", reason="torch is absent: the embedded checkpoint cannot run")
    result = run(
        "eval", rendered, "--images", rendered.parent, "--out", tmp_path, "--limit", 2, "--dense", 24
    )
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["n"] == 20
    assert metrics["confidence"]["n"] == metrics["status"]["ok"]
    assert 0.0 <= metrics["confidence"]["calibration_error"]["equal_mass"] <= 1.0
    assert metrics["sigma"]["n"] == metrics["status"]["ok"]
