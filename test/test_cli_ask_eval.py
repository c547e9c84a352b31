"""``depthlm ask-eval``: the scores on hand-made answers, and the command with a scripted model."""

import json
import math
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from depthlm_ros import __version__
from depthlm_ros.cli import app
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.evaluation.provenance import weights_digest
from depthlm_ros.profile import Calibration, CheckpointProfile
from depthlm_ros.spatial import scoring
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.request import SpatialRequest
from depthlm_ros.spatial.scoring import Question, scores, trivial_scores
from depthlm_ros.spatial.tasks import SpatialTask
from depthlm_ros.synthetic import Domain


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A calibrated checkpoint without weights, trained for `time`, and an engine with two sentences."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    tenth = Calibration((0.0, 1.0), (0.9, 0.9), (0.1, 0.1))
    profile = CheckpointProfile("test", 120.0, max_new_tokens=20, spatial_tasks=("time",), calibration=tenth)
    (folder / "depthlm.json").write_text(json.dumps(asdict(profile)))

    def says(prompt):
        if "How many seconds" in prompt.question:
            return " 2.50 meters away. </think>\n\n<answer> 5.00 </answer>"
        return " 2.50 meters"

    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: FakeEngine(says))
    return folder


def question(value, task=SpatialTask.PRINCIPAL_AXIS_DISTANCE, **given):
    return Question(SpatialRequest(task, ((1, 1),), **given), value)


def test_scores_count_what_is_unanswered_as_missed():
    asked = [question(value) for value in (2.0, 4.0, 1.0, 8.0)]
    record = scores(asked, [2.4, 3.0, math.nan, 8.0])
    assert record["n"] == 4
    assert record["answered"] == 0.75
    assert record["within_25"] == 0.5  # 4 / 3 is more than 1.25
    assert record["median_relative_error"] == pytest.approx(0.2)
    # Two of four hit: drawn again, all four miss with probability 1 / 16, which is more than 2.5 %.
    assert record["within_25_interval95"] == [0.0, 1.0]
    # The errors 0, 0.2 and 0.25: their least or their greatest alone is drawn with probability 1 / 27.
    assert record["median_relative_error_interval95"] == pytest.approx([0.0, 0.25])


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


def test_a_turn_on_the_spot_counts_by_its_errors_and_in_no_ratio():
    asked = [
        Question(
            SpatialRequest(SpatialTask.CAMERA_MOTION), metres, CameraMotion([0.0, 0.0, metres], [0.0] * 3)
        )
        for metres in (0.0, 1.0)
    ]
    record = scores(asked, [0.1, 1.1], [CameraMotion([0.0, 0.0, z], [0.0] * 3) for z in (0.1, 1.1)])
    assert (record["n"], record["n_above_0"], record["answered"]) == (2, 1, 1.0)
    assert record["within_25"] == 1.0
    assert record["median_relative_error"] == pytest.approx(0.1)
    assert record["median_translation_error_m"] == pytest.approx(0.1)


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
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    arguments = [
        "ask-eval", "--out", out, "--samples", 3, "--task", "time", "--task", "camera_motion",
        "--checkpoint", checkpoint,
    ]  # fmt: skip
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "best_constant" in result.output
    record = json.loads((out / "spatial.json").read_text())
    assert set(record["tasks"]) == {"time", "camera_motion"}
    time, motion = record["tasks"]["time"], record["tasks"]["camera_motion"]
    assert set(time) == {"unit", "direct", "derived", "trivial"}
    assert time["direct"]["status"] == {"ok": 3}
    assert time["derived"]["n"] == time["derived"]["sigma"]["n"] == 3
    assert 0.0 <= time["derived"]["sigma"]["coverage"] <= 1.0
    assert time["direct"]["sigma"] == {"n": 0, "without_sigma": 3}
    low, high = time["derived"]["within_25_interval95"]
    assert low <= time["derived"]["within_25"] <= high
    origin = record["made_by"]
    assert origin["command"].startswith(
        f"depthlm ask-eval --out {out} --samples 3 --seed 717171 --domain robot "
    )
    assert origin["version"] == __version__
    assert origin["checkpoint"] == weights_digest(checkpoint)
    assert "sha256" in origin["checkpoint"]
    assert "direct" not in motion
    assert motion["trivial"]["no_motion"]["median_rotation_error_deg"] >= 0.0
    assert sum(motion["derived"]["status"].values()) == 3
