"""Canonical views filled up to the model's patch grid: no second resize, and every pixel where it was."""

from dataclasses import replace

import numpy as np
import pytest

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.canonical import CanonicalView, fill_grid
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import BUILT_IN_PROFILES, TEXT_QUESTION, CheckpointProfile, ProfileError

GRID = 32
PLAIN = CheckpointProfile("plain", 150.0)
FILLED = replace(PLAIN, patch_grid_px=GRID)


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(1, 256, (height, width, 3), dtype=np.uint8)  # no black in it


def test_the_view_is_kept_and_black_is_added_at_the_right_and_the_bottom():
    source = image(75, 100)
    plain = CanonicalView(source, 100.0, 100.0, 150.0)
    filled = CanonicalView(source, 100.0, 100.0, 150.0, patch_grid_px=GRID)
    assert plain.image.shape == (112, 150, 3)
    assert filled.image.shape == (128, 160, 3)
    assert filled.size == plain.size == (150, 112)
    np.testing.assert_array_equal(filled.image[:112, :150], plain.image)
    assert not filled.image[112:].any()
    assert not filled.image[:, 150:].any()
    pixels = np.stack(np.meshgrid(np.arange(100), np.arange(75)), axis=-1)
    np.testing.assert_array_equal(filled.to_canonical(pixels), plain.to_canonical(pixels))
    np.testing.assert_array_equal(
        filled.to_source([[0, 0], [149, 111]]), plain.to_source([[0, 0], [149, 111]])
    )


@pytest.mark.parametrize("size", [(96, 160), (32, 32)])
def test_whole_squares_are_left_alone(size):
    whole = image(*size)
    assert fill_grid(whole, GRID) is whole
    assert fill_grid(whole, 0) is whole


@pytest.mark.parametrize("size", [(95, 161), (1, 1), (33, 31), (64, 65)])
def test_less_than_a_square_is_added_on_each_side(size):
    filled = fill_grid(image(*size), GRID)
    more = np.subtract(filled.shape[:2], size)
    assert not any(side % GRID for side in filled.shape[:2])
    assert (more >= 0).all()
    assert (more < GRID).all()


def test_the_same_pixels_can_be_asked_and_none_of_the_black():
    camera = PinholeCamera.from_intrinsics(100.0, 100.0, 50.0, 37.0, 100, 75)
    pixels = np.stack(np.meshgrid(np.arange(-2, 104), np.arange(-2, 80)), axis=-1).reshape(-1, 2)
    text = replace(PLAIN, pixel_reference="text", question=TEXT_QUESTION)
    for profile in (PLAIN, text):
        frames = [
            DepthEstimator(FakeEngine(lambda prompt: " 2.00 meters"), chosen).prepare(image(75, 100), camera)
            for chosen in (profile, replace(profile, patch_grid_px=GRID))
        ]
        asked = [frame.askable(pixels) for frame in frames]
        np.testing.assert_array_equal(*asked)
        assert asked[0].any()
    assert asked[0].sum() == 100 * 75  # with coordinates, every pixel


def test_the_engine_is_given_the_filled_view_and_coordinates_within_it():
    camera = PinholeCamera.from_intrinsics(100.0, 100.0, 50.0, 37.0, 100, 75)
    engine = FakeEngine(lambda prompt: " 2.00 meters")
    profile = replace(FILLED, pixel_reference="text", question=TEXT_QUESTION)
    with engine:
        estimator = DepthEstimator(engine, profile)
        frame = estimator.prepare(image(75, 100), camera)
        result = estimator.ask(frame, [(50, 40), (99, 74), (100, 74)])
    assert [prompt.images[0].base.shape for prompt in engine.prompts] == [(128, 160, 3)] * 2
    # Canonical pixel (75, 60) of a view that the model sees as 160x128: 75 * 2000 / 160, 60 * 2000 / 128.
    assert "(938, 938)" in engine.prompts[0].question
    assert result.status[2] == AnswerStatus.UNDRAWABLE


def test_the_image_processor_does_not_resize_a_filled_view():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import torch
    from tiny_models import shared_checkpoint

    from depthlm_ros.engines.hf_checkpoint import check_directory
    from depthlm_ros.engines.hf_processor import load_encoder
    from depthlm_ros.prompting import prompt_for

    for family, grid in (("qwen2_5_vl", 28), ("qwen3_vl", 32), ("pixtral", 16)):
        path = shared_checkpoint(family)
        encoder = load_encoder(path, check_directory(path), device=torch.device("cpu"), max_image_pixels=None)
        seen = []
        for step in (0, grid):
            view = CanonicalView(image(75, 100), 100.0, 100.0, 150.0, patch_grid_px=step)
            (prepared,) = encoder.encode(prompt_for(view.image, 60, 60, PLAIN)).images
            seen.append((view.image.shape[:2], tuple(prepared.shape[1:])))
        assert seen[0][0] != seen[0][1]  # 150x112 is no whole number of squares of any of the three
        assert seen[1][0] == seen[1][1]


def test_it_is_off_for_the_published_checkpoints_and_bad_values_are_refused():
    assert {profile.patch_grid_px for profile in BUILT_IN_PROFILES.values()} == {0}
    for bad in (-1, 1.5, True, "28", 1025):
        with pytest.raises(ProfileError, match="patch_grid_px"):
            replace(PLAIN, patch_grid_px=bad)


def test_training_shows_crops_filled_as_the_engine_will_show_views(tmp_path):
    pytest.importorskip("torch")
    import json

    from PIL import Image

    from depthlm_ros.evaluation.benchmark import read_benchmark
    from depthlm_ros.training.finetune.config import AugmentConfig
    from depthlm_ros.training.finetune.views import make_sample

    Image.fromarray(image(75, 100)).save(tmp_path / "a.png")
    label = {
        "image": "a.png",
        "intrinsics": [100, 100, 50, 37, 100, 75],
        "pixel_coords": [[50, 40]],
        "depth": [3.25],
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(label))
    (labelled,) = read_benchmark(tmp_path / "a.jsonl", tmp_path)
    augment = AugmentConfig(crop_width_px=(60, 100), crop_height_px=(40, 90), flip_share=0.0)
    plain, filled = (
        make_sample(labelled, 0, profile, augment, np.random.default_rng(1)) for profile in (PLAIN, FILLED)
    )
    small, large = (sample.prompt.images[0].base for sample in (plain, filled))
    np.testing.assert_array_equal(large[: small.shape[0], : small.shape[1]], small)
    assert not any(side % GRID for side in large.shape[:2])
    assert filled.xy == plain.xy
