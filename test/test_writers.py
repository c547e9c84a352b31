"""Files that the package writes, read back by other libraries; images that it reads."""

import csv
import math

import numpy as np
import pytest
import trimesh

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.writers import write_csv, write_npz, write_ply


@pytest.fixture
def sparse():
    return SparseDepth(
        pixels=np.array([[10, 20], [30, 5], [63, 47]]),
        depth=np.array([2.5, math.nan, 4.0], np.float32),
        sigma=np.array([0.25, math.nan, math.nan], np.float32),
        confidence=np.array([0.75, math.nan, math.nan], np.float32),
        status=np.array([AnswerStatus.OK, AnswerStatus.NO_NUMBER, AnswerStatus.OK], np.uint8),
        rgb=np.array([[255, 0, 10], [1, 2, 3], [0, 128, 0]], np.uint8),
        camera=PinholeCamera.from_intrinsics(50.0, 40.0, 32.0, 24.0, 64, 48),
        model="test",
    )


def unanswered(sparse):
    nothing = np.full(3, math.nan, np.float32)
    return SparseDepth(
        sparse.pixels, nothing, nothing, nothing, np.full(3, 2, np.uint8), sparse.rgb, sparse.camera, "test"
    )


def test_csv_has_every_asked_pixel(sparse, tmp_path):
    write_csv(sparse, tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["u", "v", "z_m", "sigma_m", "confidence", "status"],
        ["10", "20", "2.5", "0.25", "0.75", "ok"],
        ["30", "5", "nan", "nan", "nan", "no_number"],
        ["63", "47", "4", "nan", "nan", "ok"],
    ]


def test_ply_has_the_answered_points_with_their_colour_and_certainty(sparse, tmp_path):
    assert write_ply(sparse, tmp_path / "c.ply") == 2
    cloud = trimesh.load(tmp_path / "c.ply")
    # x = (u - cx) z / fx, y = (v - cy) z / fy
    want = [[-22 * 2.5 / 50, -4 * 2.5 / 40, 2.5], [31 * 4 / 50, 23 * 4 / 40, 4.0]]
    assert np.allclose(cloud.vertices, want, atol=1e-5)
    assert np.asarray(cloud.colors)[:, :3].tolist() == [[255, 0, 10], [0, 128, 0]]
    header = (tmp_path / "c.ply").read_bytes().split(b"end_header")[0].decode()
    assert [line.split()[-1] for line in header.splitlines() if line.startswith("property")] == [
        "x", "y", "z", "red", "green", "blue", "alpha", "confidence", "sigma",
    ]  # fmt: skip
    raw = cloud.metadata["_ply_raw"]["vertex"]["data"]
    assert np.ravel(raw["confidence"])[0] == pytest.approx(0.75)
    assert np.ravel(raw["sigma"])[0] == pytest.approx(0.25)
    assert np.isnan(np.ravel(raw["sigma"])[1])


def test_without_an_answer_there_is_no_cloud_not_even_an_old_one(sparse, tmp_path):
    write_ply(sparse, tmp_path / "c.ply")
    assert write_ply(unanswered(sparse), tmp_path / "c.ply") == 0
    assert not (tmp_path / "c.ply").exists()


def test_npz_holds_everything(sparse, tmp_path):
    write_npz(sparse, tmp_path / "s.data")
    with np.load(tmp_path / "s.data") as data:
        assert data["pixels"].tolist() == sparse.pixels.tolist()
        assert np.array_equal(data["depth"], sparse.depth, equal_nan=True)
        assert data["k"].tolist() == [[50, 0, 32], [0, 40, 24], [0, 0, 1]]
        assert data["points"].shape == (3, 3)
        assert str(data["model"]) == "test"
