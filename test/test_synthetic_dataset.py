"""Rendered data sets: what the files hold, that a specification always gives the same ones, and what is refused."""

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.synthetic import (
    Domain,
    RenderSpec,
    sample_intrinsics,
    sample_repeats,
    sample_view,
    write_dataset,
)
from depthlm_ros.synthetic.sheet import FAR_M, NEAR_M, contact_sheet, tile

SMALL = {"seed": 9, "domain": Domain.WIDE, "size": (80, 60)}


def records_of(index):
    return [json.loads(line) for line in index.read_text().splitlines()]


def test_the_files_hold_what_the_index_says(tmp_path):
    spec = RenderSpec(scenes=5, seed=9, domain=Domain.WIDE, points_per_image=7, focal_px=112.0)
    index = write_dataset(tmp_path / "a", spec, processes=2, progress=False)
    assert index == tmp_path / "a" / "wide.jsonl"
    records = records_of(index)
    assert len(records) == 5
    for record in records:
        image = cv2.imread(str(index.parent / record["image"]))
        fx, fy, _, _, width, height = record["intrinsics"]
        assert image.shape == (height, width, 3)
        assert fx == fy == 112
        assert "static" not in record
        dense = np.load(index.parent / record["dense"])
        assert dense["z_depth"].dtype == dense["range"].dtype == np.float32
        assert dense["z_depth"].shape == dense["range"].shape == (height, width)
        assert 1 <= len(record["pixel_coords"]) == len(record["depth"]) <= 7
        for (u, v), depth in zip(record["pixel_coords"], record["depth"], strict=True):
            assert 12 <= u < width - 12
            assert 12 <= v < height - 12
            assert depth == pytest.approx(float(dense["z_depth"][v, u]))
    assert not list(tmp_path.rglob("*.part*"))


def test_range_is_the_length_of_the_ray_whose_z_is_the_depth(tmp_path):
    index = write_dataset(tmp_path, RenderSpec(scenes=1, **SMALL), processes=1, progress=False)
    (record,) = records_of(index)
    fx, fy, cx, cy, width, height = record["intrinsics"]
    dense = np.load(tmp_path / record["dense"])
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)]) * dense["z_depth"]
    np.testing.assert_allclose(dense["range"], np.linalg.norm(points, axis=0), rtol=1e-5)


def test_the_files_do_not_depend_on_the_number_of_processes(tmp_path):
    spec = RenderSpec(scenes=4, repeats=2, **SMALL)
    one = write_dataset(tmp_path / "one", spec, processes=1, progress=False).parent
    two = write_dataset(tmp_path / "two", spec, processes=2, progress=False).parent
    files = sorted(path.relative_to(one) for path in one.rglob("*.*"))
    assert len(files) == 4 * 2 + 4 + 2
    assert files == sorted(path.relative_to(two) for path in two.rglob("*.*"))
    for name in files:
        if name.suffix == ".npz":  # a zip holds the time at which it was written
            ours, theirs = np.load(one / name), np.load(two / name)
            assert all(ours[key].tobytes() == theirs[key].tobytes() for key in ("z_depth", "range"))
        else:
            assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_picture_is_that_of_its_seed(tmp_path):
    index = write_dataset(tmp_path, RenderSpec(scenes=2, **SMALL), processes=1, progress=False)
    second = records_of(index)[1]
    view = sample_view((9, 1), Domain.WIDE, size=(80, 60))
    stored = cv2.cvtColor(cv2.imread(str(tmp_path / second["image"])), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(stored, view.rgb)
    assert second["seed"] == [9, 1]
    assert second["kind"] == view.kind


def test_the_pictures_of_a_static_scene_share_geometry_and_labels_but_no_noise(tmp_path):
    index = write_dataset(tmp_path, RenderSpec(scenes=2, repeats=3, **SMALL), processes=1, progress=False)
    records = records_of(index)
    assert [record["static"] for record in records] == ["wide_9_000000"] * 3 + ["wide_9_000001"] * 3
    assert len({record["image"] for record in records}) == 6
    for first, *others in (records[:3], records[3:]):
        for other in others:
            assert {**other, "image": ""} == {**first, "image": ""}
    assert len(list((tmp_path / "dense").iterdir())) == 2


@pytest.mark.parametrize("domain", Domain)
def test_repeats_differ_like_moments_of_one_scene(domain):
    views = sample_repeats(4, domain, 6, size=(160, 120))
    single = sample_view(4, domain, size=(160, 120))
    assert views[0].rgb.tobytes() == single.rgb.tobytes()
    assert len({view.rgb.tobytes() for view in views}) == 6
    assert {view.z_depth.tobytes() for view in views} == {single.z_depth.tobytes()}
    brightness = np.array([view.rgb.mean() for view in views])
    assert np.ptp(brightness) > 0.5
    assert np.ptp(brightness) < 60
    soft = [cv2.GaussianBlur(view.rgb, (0, 0), 3).astype(float) for view in views]
    alike = [np.corrcoef(soft[0].ravel(), other.ravel())[0, 1] for other in soft[1:]]
    assert min(alike) > 0.98


def test_dense_truth_can_be_left_out(tmp_path):
    index = write_dataset(tmp_path, RenderSpec(scenes=1, dense=False, **SMALL), processes=1, progress=False)
    (record,) = records_of(index)
    assert "dense" not in record
    assert not (tmp_path / "dense").exists()


def test_what_is_asked_of_the_camera_is_kept_and_the_scene_stays():
    plain = sample_view(8, Domain.ROBOT)
    asked = sample_view(8, Domain.ROBOT, size=(160, 120), fov_deg=60.0)
    camera = asked.intrinsics
    assert (camera.width, camera.height) == (160, 120)
    assert np.degrees(2 * np.arctan(80 / camera.fx)) == pytest.approx(60.0)
    assert camera.cx / 159 == pytest.approx(plain.intrinsics.cx / (plain.intrinsics.width - 1), abs=0.01)
    canonical = sample_intrinsics(np.random.default_rng(0), Domain.ROBOT, focal_px=112.0, size=(96, 80))
    assert (canonical.fx, canonical.fy, canonical.width, canonical.height) == (112.0, 112.0, 96, 80)
    with pytest.raises(ValueError, match="focal_px or fov_deg"):
        sample_intrinsics(np.random.default_rng(0), Domain.ROBOT, focal_px=112.0, fov_deg=60.0)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"scenes": 0}, "scenes: expected at least 1, got 0"),
        ({"repeats": 0}, "repeats: expected at least 1"),
        ({"points_per_image": 0}, "points_per_image: expected"),
        ({"supersample": 0}, "supersample: expected"),
        ({"size": (16, 120)}, "size: expected 32 to 4096 pixels a side, got 16x120"),
        ({"size": (160, 5000)}, "160x5000"),
        ({"fov_deg": 180.0}, "fov_deg: expected 10 to 150 degrees, got 180"),
        ({"fov_deg": float("nan")}, "fov_deg"),
        ({"focal_px": 0.0}, "focal_px: expected a number above 0"),
        ({"focal_px": 112.0, "fov_deg": 60.0}, "no fov_deg"),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        RenderSpec(**{"scenes": 1, "seed": 0, "domain": Domain.ROBOT, **wrong})


def test_no_processes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="processes: expected at least 1, got 0"):
        write_dataset(tmp_path, RenderSpec(scenes=1, **SMALL), processes=0)


def test_the_sheet_shows_image_and_depth_with_a_scale(tmp_path):
    write_dataset(tmp_path, RenderSpec(scenes=2, **SMALL), processes=1, progress=False)
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "wide_sheet.png")), cv2.COLOR_BGR2RGB)
    views = [sample_view((9, k), Domain.WIDE, size=(80, 60)) for k in range(2)]
    np.testing.assert_array_equal(sheet, contact_sheet([tile(view) for view in views]))
    bar = sheet[-28].astype(int)  # red (near) on the left, blue (far) on the right
    left, right = sheet.shape[1] // 4 + 2, 3 * sheet.shape[1] // 4 - 3
    assert bar[left, 0] > bar[left, 2]
    assert bar[right, 2] > bar[right, 0]
    assert NEAR_M < FAR_M


def test_two_domains_in_one_directory_leave_each_others_files(tmp_path):
    write_dataset(tmp_path, RenderSpec(scenes=1, **SMALL), processes=1, progress=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    robot = RenderSpec(scenes=1, **{**SMALL, "domain": Domain.ROBOT})
    write_dataset(tmp_path, robot, processes=1, progress=False)
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(tmp_path.rglob("*.*"))) == 2 * len(before)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_takes_size_repeats_and_no_dense(tmp_path):
    result = run(
        "render", "--out", tmp_path, "--scenes", 1, "--domain", "wide", "--size", "96x64", "--fov", 70, "--points", 3,
        "--repeats", 2, "--no-dense", "--processes", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    records = records_of(tmp_path / "wide.jsonl")
    assert [record["static"] for record in records] == ["wide_0_000000"] * 2
    assert all(record["intrinsics"][4:] == [96, 64] for record in records)
    assert all(len(record["depth"]) == 3 for record in records)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--size", "160", "expected WIDTHxHEIGHT"),
        ("--size", "8x8", "32 to 4096"),
        ("--fov", "200", "10 to 150"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, option, value, reason):
    result = run("render", "--out", tmp_path / "none", option, value)
    assert result.exit_code == 2
    assert reason in result.output
    assert not (tmp_path / "none").exists()
