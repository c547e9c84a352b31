"""``depthlm ask`` and ``depthlm ask-eval``: with scripted answers, and with the embedded checkpoint."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.spatial import scoring
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.pairs import sample_pair
from depthlm_ros.spatial.request import SpatialRequest
from depthlm_ros.spatial.scoring import Question, scores, trivial_scores
from depthlm_ros.spatial.tasks import SpatialTask
from depthlm_ros.synthetic import Domain

INTRINSICS = ["--fx", 120, "--fy", 120, "--cx", 31.5, "--cy", 23.5]


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photo(tmp_path):
    return save(tmp_path / "image.png", np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint directory with nothing but a profile, trained for `time`, and an engine with two sentences."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    profile = asdict(CheckpointProfile("test", 120.0, max_new_tokens=20, spatial_tasks=("time",)))
    (folder / "depthlm.json").write_text(json.dumps(profile))

    def says(prompt):
        if "How many seconds" in prompt.question:
            return " 2.50 meters away. </think>\n\n<answer> 5.00 </answer>"
        return " 2.50 meters"

    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: FakeEngine(says))
    return folder


def test_a_two_point_distance_is_printed_with_how_it_came_about(photo, checkpoint):
    result = run(
        "ask", photo, "--task", "two_point_distance", "--pixel", 12, 24, "--pixel", 50, 24, *INTRINSICS,
        "--checkpoint", checkpoint,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    # 38 pixels at 2.5 m and a focal length of 120 px.
    assert f"{2.5 * 38 / 120:.3g} m (derived from depths)" in result.output
    assert "confidence: unknown" in result.output
    assert "sigma: unknown" in result.output


def test_json_holds_everything_and_null_for_what_is_unknown(photo, checkpoint):
    result = run(
        "ask", photo, "--task", "speed", "--seconds", 2, "--pixel", 31, 24, *INTRINSICS, "--json",
        "--checkpoint", checkpoint,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads(result.output)
    assert record["value"] == pytest.approx(1.25, rel=1e-4)
    assert (record["unit"], record["derived"], record["status"]) == ("m/s", True, "ok")
    assert record["sigma"] is record["confidence"] is None
    assert record["depths"][0]["z_m"] == [2.5]
    assert record["depths"][0]["pixels"] == [[31, 24]]


def test_a_task_that_the_checkpoint_was_trained_for_is_asked_in_its_words(photo, checkpoint):
    common = ["ask", photo, "--task", "time", "--speed", 0.5, "--pixel", 31, 24, *INTRINSICS]
    common += ["--checkpoint", checkpoint]
    record = json.loads(run(*common, "--json").output)
    assert (record["value"], record["derived"]) == (5.0, False)
    assert record["text"].startswith("<think> The point is around 2.50 meters away.")
    assert "the model said" in run(*common).output
    assert json.loads(run(*common, "--json", "--way", "derived").output)["derived"] is True


def test_without_an_answer_the_exit_code_is_1_and_the_reason_is_printed(photo, checkpoint):
    result = run(
        "ask", photo, "--task", "speed", "--seconds", 2, "--pixel", 1, 24, *INTRINSICS,
        "--checkpoint", checkpoint,
    )  # fmt: skip
    assert result.exit_code == 1
    assert "no answer: pixel (1, 24) cannot be asked" in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--task", "velocity"], "--task: expected one of principal_axis_distance"),
        (["--task", "speed", "--pixel", 20, 20], "speed: expected seconds from 0.01 to 10000 s, got none"),
        (["--task", "two_point_distance", "--pixel", 20, 20], "expected 2 pixels, got 1"),
        (["--task", "camera_motion"], "expected 2 image(s), got 1"),
        (
            ["--task", "time", "--speed", 1, "--pixel", 20, 20, "--way", "guess"],
            "--way: expected one of auto",
        ),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_in_one_line(arguments, says, photo, checkpoint):
    result = run("ask", photo, *arguments, *INTRINSICS, "--checkpoint", checkpoint)
    assert result.exit_code == 2
    assert says in result.output
    assert "Traceback" not in result.output


def test_missing_calibration_is_refused(photo, checkpoint):
    result = run(
        "ask", photo, "--task", "principal_axis_distance", "--pixel", 20, 20, "--checkpoint", checkpoint
    )
    assert result.exit_code == 2
    assert "give --camera-info FILE" in result.output


def test_the_motion_between_two_rendered_images_with_the_embedded_checkpoint(tmp_path):
    first, second = sample_pair((717171, 1), Domain.ROBOT)
    i = first.intrinsics
    paths = [save(tmp_path / f"{k}.png", view.rgb) for k, view in enumerate((first, second))]
    result = run(
        "ask", *paths, "--task", "camera_motion", "--fx", i.fx, "--fy", i.fy, "--cx", i.cx, "--cy", i.cy,
        "--json", "--set", "engine.threads=1", "--way", "derived",
    )  # fmt: skip
    record = json.loads(result.output)
    assert record["derived"] is True
    assert record["model"].startswith("embedded")
    assert (result.exit_code == 0) == (record["status"] == "ok") == (record["value"] is not None)
    if record["value"] is not None:
        assert record["value"] == pytest.approx(math.hypot(*record["translation_m"]))


def question(value, task=SpatialTask.PRINCIPAL_AXIS_DISTANCE, **given):
    return Question(SpatialRequest(task, ((1, 1),), **given), value)


def test_scores_count_what_is_unanswered_as_missed():
    asked = [question(value) for value in (2.0, 4.0, 1.0, 8.0)]
    record = scores(asked, [2.4, 3.0, math.nan, 8.0])
    assert record["n"] == 4
    assert record["answered"] == 0.75
    assert record["within_25"] == 0.5  # 4 / 3 is more than 1.25
    assert record["median_relative_error"] == pytest.approx(0.2)


def test_the_best_constant_is_one_distance_divided_by_what_is_given():
    asked = [question(3.0 / s, SpatialTask.SPEED, seconds=s) for s in (1.0, 2.0, 5.0)]
    asked.append(question(40.0, SpatialTask.SPEED, seconds=1.0))
    assert trivial_scores(asked)["best_constant"]["within_25"] == 0.75


def test_motion_errors_stand_beside_those_of_standing_still():
    truth = CameraMotion([0.0, 0.0, 0.5], [0.0, 10.0, 0.0])
    asked = [Question(SpatialRequest(SpatialTask.CAMERA_MOTION), 0.5, truth)] * 2
    said = [CameraMotion([0.0, 0.0, 0.6], [0.0, 12.0, 0.0]), CameraMotion.unknown()]
    record = scores(asked, [0.6, math.nan], said)
    assert record["median_translation_error_m"] == pytest.approx(0.1)
    assert record["median_rotation_error_deg"] == pytest.approx(2.0)
    still = trivial_scores(asked)["no_motion"]
    assert still["median_translation_error_m"] == pytest.approx(0.5)
    assert still["median_rotation_error_deg"] == pytest.approx(10.0)
    assert still["within_25"] == 0.0


def test_questions_are_the_same_for_the_same_seed_and_others_for_another():
    with FakeEngine(lambda _: " 1.0 meters") as engine:
        estimator = DepthEstimator(engine, CheckpointProfile("test", 112.0))

        def draw(seed, task=SpatialTask.SPEED):
            return [q for q, _ in scoring.questions(estimator, task, 3, seed, Domain.ROBOT)]

        once, again, other = draw(5), draw(5), draw(6)
    assert [q.request for q in once] == [q.request for q in again]
    assert [q.value for q in once] == [q.value for q in again]
    assert [q.value for q in once] != [q.value for q in other]


def test_ask_eval_writes_scores_per_task_and_way(checkpoint, tmp_path):
    out = tmp_path / "out"
    result = run(
        "ask-eval", "--out", out, "--samples", 3, "--task", "time", "--task", "camera_motion",
        "--checkpoint", checkpoint,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "best_constant" in result.output
    record = json.loads((out / "spatial.json").read_text())
    assert set(record["tasks"]) == {"time", "camera_motion"}
    time, motion = record["tasks"]["time"], record["tasks"]["camera_motion"]
    assert set(time) == {"unit", "direct", "derived", "trivial"}
    assert time["direct"]["status"] == {"ok": 3}
    assert time["derived"]["n"] == 3
    assert "direct" not in motion
    assert motion["trivial"]["no_motion"]["median_rotation_error_deg"] >= 0.0
    assert sum(motion["derived"]["status"].values()) == 3
