"""``depthlm ask`` with scripted answers."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.spatial.pairs import pair_motion, sample_pair
from depthlm_ros.synthetic import Domain

FOCAL = 120.0
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
    profile = asdict(CheckpointProfile("test", FOCAL, max_new_tokens=20, spatial_tasks=("time",)))
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


SEED = 5
"""Of a rendered pair with enough in common that its motion can be derived from exact depths."""


def test_the_motion_between_two_rendered_images_is_that_of_the_cameras(tmp_path, checkpoint, monkeypatch):
    views = sample_pair((21, SEED), Domain.ROBOT, focal_px=FOCAL)
    truth = pair_motion(*views)

    def knows(prompt):
        x, y = prompt.images[0].paint.xy[4]  # the arrow's tip, one pixel left of its target
        view = next(view for view in views if np.array_equal(view.rgb, prompt.images[0].base))
        return f" {view.z_depth[y, x + 1]:.2f} meters"

    monkeypatch.setattr("depthlm_ros.session.create_engine", lambda config: FakeEngine(knows))
    i = views[0].intrinsics
    paths = [save(tmp_path / f"{k}.png", view.rgb) for k, view in enumerate(views)]
    result = run(
        "ask", *paths, "--task", "camera_motion", "--fx", i.fx, "--fy", i.fy, "--cx", i.cx, "--cy", i.cy,
        "--json", "--checkpoint", checkpoint,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads(result.output)
    assert (record["derived"], record["status"], record["unit"]) == (True, "ok", "m")
    said = CameraMotion(record["translation_m"], record["rotation_deg"])
    assert said.translation_error(truth) < 0.2 * truth.distance
    assert said.rotation_error(truth) < 3.0
    assert record["value"] == pytest.approx(math.hypot(*record["translation_m"]))
    assert record["value"] == pytest.approx(truth.distance, rel=0.2)
