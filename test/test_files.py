"""Files that are absent, unreadable or something else: what was expected, what came, what to do, and no errno."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.evaluation import BenchmarkError, read_benchmark
from depthlm_ros.evaluation.dense import read_dense
from depthlm_ros.files import what_came, with_path
from depthlm_ros.images import ImageError, decode_image
from depthlm_ros.profile import ProfileError, load_profile

CAMERA = "--fx 60 --fy 60 --cx 32 --cy 24"
COMMANDS = [
    (f"estimate FILE {CAMERA} --out OUT", "expected an image as PNG, JPEG, "),
    ("estimate PICTURE --camera-info FILE --out OUT", "expected a camera calibration as YAML, "),
    (f"estimate PICTURE {CAMERA} --config FILE --out OUT", "expected options as YAML, "),
    (f"ask FILE --task principal_axis_distance --pixel 9 9 {CAMERA}", "expected an image as PNG, "),
    ("mark FILE --fx 60 --fy 60 --focal 60 --pixel 9 9 --out OUT", "expected an image as PNG, "),
    ("eval FILE --images . --out OUT", "expected one JSON object a line, "),
    ("ask-eval --config FILE --out OUT", "expected options as YAML, "),
    ("train FILE --run OUT", "expected a recipe as YAML, "),
]  # fmt: skip


@pytest.fixture
def files(tmp_path):
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "picture.png")
    (tmp_path / "directory").mkdir()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "text").write_text("{[\n")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["absent", "absent/below", "picture.png/below", "directory", "bytes", "text"]
)
@pytest.mark.parametrize(("command", "expected"), COMMANDS, ids=[c.split(" --out")[0] for c, _ in COMMANDS])
def test_a_command_says_what_it_expected_what_came_and_what_to_do(files, command, expected, name):
    places = {"FILE": files / name, "PICTURE": files / "picture.png", "OUT": files / "out"}
    result = CliRunner().invoke(app, [str(places.get(word, word)) for word in command.split()])
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    what, _, advice = result.output.rpartition(": ")
    assert expected in what
    assert str(files / name) in what
    assert advice.split()[0] in ("check", "name", "mend")
    for inside in ("Errno", "<unicode string>", "codec", "Traceback", "<byte string>"):
        assert inside not in result.output
    assert not (files / "out").exists()


def test_a_directory_that_cannot_be_made_is_named(files):
    render = ["render", "--scenes", "1", "--size", "64x48", "--processes", "1", "--out"]
    result = CliRunner().invoke(app, [*render, str(files / "text")])
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    below = CliRunner().invoke(app, [*render, str(files / "text" / "below")])
    assert below.output.startswith(f"depthlm: {files / 'text'}")
    assert "a part of the path is a file" in below.output


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, "access is denied: change its permissions"),
        (errno.ENOSPC, "the disk is full: make room"),
        (errno.EEXIST, "in the way: name another directory"),
        (errno.EIO, "the system says 'Input/output error': check"),
    ],
)
def test_what_the_system_refuses_is_said_in_words(number, says):
    told = with_path(OSError(number, os.strerror(number), "some/file"))
    assert told.startswith("some/file: ")
    assert says in told
    assert says in with_path(OSError(number, os.strerror(number)))
    assert with_path(OSError("a library's own sentence")) == "a library's own sentence"


def test_where_a_text_breaks_off_is_said():
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads('{"a": 1,\n "b" 2}')
    assert "(line 2, column 6: Expecting ':' delimiter): mend it" in what_came(caught.value)


def test_a_broken_line_of_a_benchmark_is_named_once(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"image": }\n')
    with pytest.raises(BenchmarkError, match=r"d\.jsonl line 1: .*\(column 11: Expecting value\): mend it"):
        read_benchmark(tmp_path / "d.jsonl", tmp_path)


def test_dense_truth_and_profiles_say_the_same(files):
    line = {
        "image": "picture.png",
        "intrinsics": [60, 60, 32, 24, 64, 48],
        "pixel_coords": [[9, 9]],
        "depth": [1.0],
    }
    (files / "d.jsonl").write_text(json.dumps(line) + "\n")
    (sample,) = read_benchmark(files / "d.jsonl", files)
    for name, came in (
        ("absent", "there is no such file"),
        ("directory", "it is a directory"),
        ("text", "else"),
    ):
        with pytest.raises(
            BenchmarkError, match=f"{name}: expected NPZ with an array z_depth, but .*{came}"
        ) as caught:
            read_dense(files / name, sample)
        assert "Errno" not in str(caught.value)
    (files / "depthlm.json").write_bytes(b"\xff")
    with pytest.raises(
        ProfileError, match=r"depthlm\.json: expected a checkpoint profile as JSON, but it holds bytes"
    ):
        load_profile(files)


def test_a_picture_of_a_topic_is_no_file_to_be_named(files):
    cut = (files / "picture.png").read_bytes()[:60]
    with pytest.raises(
        ImageError, match=r"60 bytes: expected an image as JPEG or PNG, but .*: check what sends it"
    ):
        decode_image(cut, max_megapixels=1.0)
