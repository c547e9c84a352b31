"""Checkpoint profiles: the published table, and what a wrong file is told."""

import json
import math

import pytest

from depthlm_ros.config import DepthLMConfig, from_flat
from depthlm_ros.profile import (
    BUILT_IN_PROFILES,
    Calibration,
    CheckpointProfile,
    ProfileError,
    load_profile,
)
from depthlm_ros.profile_fit import foreign_profile
from depthlm_ros.session import open_estimator

KNOTS = {"raw": [0.1, 0.9], "confidence": [0.2, 0.8], "relative_sigma": [0.5, 0.1]}


@pytest.fixture
def checkpoint(tmp_path):
    def to(record):
        text = record if isinstance(record, bytes) else json.dumps(record).encode()
        (tmp_path / "depthlm.json").write_bytes(text)
        return tmp_path

    return to


@pytest.mark.parametrize(
    ("name", "focal", "system"),
    [
        ("depthlm-3b", 1000.0, "You are a helpful assistant."),
        ("depthlm-7b", 1000.0, "You are a helpful assistant."),
        ("depthlm-12b", 750.0, None),
    ],
)
def test_the_published_checkpoints(name, focal, system, tmp_path):
    profile = BUILT_IN_PROFILES[name]
    assert profile.name == name
    assert profile.canonical_focal_px == focal
    assert profile.system == system
    assert profile.pixel_reference == "marker"
    assert profile.image_first is True
    assert profile.depth_convention == "z"
    assert profile.calibration is None  # nobody has measured it
    assert profile.prompt_prefix == "<think> The point is around"
    assert profile.answer.format(depth=2.424) == (
        "<think> The point is around 2.42 meters away from the camera. </think>\n\n<answer> 2.42 </answer>"
    )
    assert load_profile(tmp_path, name) is profile


def test_the_built_in_profiles_are_these_four():
    assert sorted(BUILT_IN_PROFILES) == ["depthlm-12b", "depthlm-3b", "depthlm-7b", "vlm3-depth"]


def test_a_file_says_how_its_checkpoint_is_asked(checkpoint):
    record = {"name": "mine", "canonical_focal_px": 500, "system": None, "stop": [" m"], "calibration": KNOTS}
    profile = load_profile(checkpoint(record))
    assert (profile.name, profile.canonical_focal_px, profile.stop) == ("mine", 500, (" m",))
    assert profile.calibration == Calibration((0.1, 0.9), (0.2, 0.8), (0.5, 0.1))
    assert (
        profile.calibration.score == "probability"
    )  # nothing else could be fitted on before the file said so


def test_a_relative_calibration_may_have_knots_above_one(checkpoint):
    knots = {**KNOTS, "raw": [0.5, 12.0], "score": "relative"}
    profile = load_profile(checkpoint({"name": "mine", "canonical_focal_px": 500, "calibration": knots}))
    assert (profile.calibration.raw, profile.calibration.score) == ((0.5, 12.0), "relative")


def test_a_name_wins_over_the_file(checkpoint):
    path = checkpoint({"name": "mine", "canonical_focal_px": 500})
    assert load_profile(path, "depthlm-12b").name == "depthlm-12b"


def test_a_missing_file_says_what_to_do(tmp_path):
    folder = tmp_path / "depthlm-7b"  # the path is no hint
    folder.mkdir()
    with pytest.raises(ProfileError, match=r"has no depthlm\.json.*depthlm-12b.*--profile.*engine\.profile"):
        load_profile(folder)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(ProfileError, match=r"'depthlm-70b' is unknown.*depthlm-12b"):
        load_profile(tmp_path, "depthlm-70b")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"{", "expected a checkpoint profile as JSON, but"),
        (b"\xff\xfe", "expected a checkpoint profile as JSON, but"),
        ([1], "expected a JSON object, got list"),
        ({}, "'name'"),
        ({"name": "x"}, "canonical_focal_px"),
        ({"focal": 3}, r"unknown keys \['focal'\]"),
        ({"canonical_focal_px": 0}, "canonical_focal_px"),
        ({"canonical_focal_px": -1.0}, "canonical_focal_px"),
        ({"canonical_focal_px": "1000"}, "canonical_focal_px"),
        ({"canonical_focal_px": True}, "canonical_focal_px"),
        ({"canonical_focal_px": math.nan}, "canonical_focal_px"),
        ({"max_depth_m": math.inf}, "max_depth_m"),
        ({"pixel_reference": "arrow"}, "pixel_reference: expected one of"),
        ({"depth_convention": "inverse"}, "depth_convention: expected one of"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 1.5}, "max_new_tokens"),
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"stop": " meters"}, "stop: expected a list"),  # else each of its letters would stop
        ({"stop": [""]}, "stop: expected a list"),
        ({"stop": [3]}, "stop: expected a list"),
        ({"name": 3}, "name: expected a string"),
        ({"question": None}, "question: expected a string"),
        ({"answer": None}, "answer: expected a string"),
        ({"prompt_prefix": None}, "prompt_prefix: expected a string"),
        ({"prompt_prefix": "<answer>"}, "is not how the answer template starts"),
        ({"system": ["x"]}, "system: expected a string or null"),
        ({"image_first": "no"}, "image_first: expected true or false"),
        ({"calibration": []}, "calibration: expected an object"),
        ({"calibration": {}}, "calibration: .*raw"),
        ({"calibration": {**KNOTS, "extra": 1}}, r"calibration: unknown keys \['extra'\]"),
        ({"calibration": {**KNOTS, "raw": [0.1]}}, "one equal number"),
        ({"calibration": {"raw": [0.1], "confidence": [0.1], "relative_sigma": [0.1]}}, "two or more"),
        ({"calibration": {**KNOTS, "raw": [0.9, 0.1]}}, "raw must increase strictly"),
        ({"calibration": {**KNOTS, "raw": [0.5, 0.5]}}, "raw must increase strictly"),
        ({"calibration": {**KNOTS, "raw": [0.1, 1.5]}}, "lie in"),
        ({"calibration": {**KNOTS, "raw": [math.nan, 0.5]}}, "lie in"),
        ({"calibration": {**KNOTS, "confidence": [-0.1, 0.5]}}, "lie in"),
        ({"calibration": {**KNOTS, "relative_sigma": [-0.1, 0.5]}}, "not negative"),
        ({"calibration": {**KNOTS, "relative_sigma": [math.inf, 0.5]}}, "finite"),
        ({"calibration": {**KNOTS, "raw": ["a", "b"]}}, "raw: expected a list of numbers"),
        ({"calibration": {**KNOTS, "raw": [-0.1, 5.0], "score": "relative"}}, "raw must lie in"),
        ({"calibration": {**KNOTS, "raw": [0.1, math.inf], "score": "relative"}}, "be finite"),
        (
            {"calibration": {**KNOTS, "score": "logit"}},
            "score: expected 'relative' or 'probability', got 'logit'",
        ),
        ({"calibration": {**KNOTS, "score": None}}, "score: expected"),
        ({"calibration": {**KNOTS, "raw": 5}}, "raw: expected a list of numbers"),
        ({"calibration": {**KNOTS, "raw": None}}, "raw: expected a list of numbers"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_reason(checkpoint, record, reason):
    if isinstance(record, dict) and not record.keys() & {"focal"} and record not in ({}, {"name": "x"}):
        record = {"name": "mine", "canonical_focal_px": 1000.0, **record}
    with pytest.raises(ProfileError, match=reason) as caught:
        load_profile(checkpoint(record))
    assert "depthlm.json" in str(caught.value)


def test_a_profile_made_in_code_is_checked_too():
    with pytest.raises(ProfileError, match="canonical_focal_px"):
        CheckpointProfile("x", 0.0)
    assert CheckpointProfile("x", 1.0, prompt_prefix="").prompt_prefix == ""
    assert CheckpointProfile("x", 1.0, stop=[" m"]).stop == (" m",)


@pytest.mark.parametrize(
    ("kind", "name", "fits"),
    [
        ("qwen2_5_vl", "depthlm-3b", True), ("qwen2_5_vl", "depthlm-7b", True), ("llava", "depthlm-12b", True),
        ("pixtral", "depthlm-12b", True), ("qwen3_vl", "vlm3-depth", True), ("qwen2_5_vl", "", True),
        ("qwen2_5_vl", "depthlm-12b", False), ("llava", "depthlm-3b", False), ("qwen2_5_vl", "vlm3-depth", False),
    ],
)  # fmt: skip
def test_a_built_in_profile_of_another_kind_of_model_is_said(tmp_path, kind, name, fits):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    said = foreign_profile(tmp_path, name)
    assert (said == "") == fits
    if not fits:
        assert name in said
        assert f"is a {kind} model" in said
        assert "depthlm.json" in said


def test_without_a_known_kind_of_model_nothing_is_said(tmp_path):
    assert foreign_profile(tmp_path, "depthlm-3b") == ""
    for text in ("no JSON", "[]", '{"model_type": 3}'):
        (tmp_path / "config.json").write_text(text)
        assert foreign_profile(tmp_path, "depthlm-3b") == ""


def test_a_session_with_a_foreign_profile_warns(caplog):
    config = from_flat({"engine.profile": "depthlm-12b"}, DepthLMConfig())
    with caplog.at_level("WARNING"), open_estimator(config):
        pass
    assert "'depthlm-12b' describes a pixtral or llava model" in caplog.text
