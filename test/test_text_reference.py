"""The text pixel reference: coordinates in the question instead of an arrow in the image (VLM3)."""

from os.path import commonprefix

import numpy as np
import pytest

from depthlm_ros.answers import AnswerStatus
from depthlm_ros.camera import PinholeCamera
from depthlm_ros.config import DepthLMConfig, SamplingConfig
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import (
    BUILT_IN_PROFILES,
    TEXT_QUESTION,
    CheckpointProfile,
    ProfileError,
    load_profile,
)
from depthlm_ros.prompting import askable, from_text_reference, prompt_for, question_for, text_reference
from depthlm_ros.session import open_estimator
from depthlm_ros.synthetic import Domain, sample_view

VLM3 = BUILT_IN_PROFILES["vlm3-depth"]
HERE = CheckpointProfile("here", 112.0, pixel_reference="text", question=TEXT_QUESTION)

# sample_data/depth_labels.json of facebookresearch/VLM3: pixel_coord_resized and pixel_coord_normalized_2000.
OFFICIAL_SIZE = (1215, 920)
OFFICIAL_PAIRS = {
    (10, 488): (16, 1061), (191, 119): (314, 259), (710, 320): (1169, 696), (1182, 773): (1946, 1680),
    (481, 513): (792, 1115), (0, 410): (0, 891), (1189, 564): (1957, 1226), (1115, 575): (1835, 1250),
    (8, 439): (13, 954), (33, 443): (54, 963), (904, 513): (1488, 1115), (1026, 479): (1689, 1041),
    (148, 113): (244, 246), (645, 447): (1062, 972), (399, 637): (657, 1385), (851, 580): (1401, 1261),
}  # fmt: skip


def test_the_published_labels_are_named_as_their_authors_name_them():
    got = text_reference(list(OFFICIAL_PAIRS), OFFICIAL_SIZE)
    assert got.tolist() == [list(pair) for pair in OFFICIAL_PAIRS.values()]
    assert got.dtype == np.int64


@pytest.mark.parametrize("side", [1, 2, 3, 7, 96, 112, 160, 999, 1215, 1999, 2000])
def test_a_view_of_up_to_as_many_pixels_as_steps_has_a_name_for_each(side):
    pixels = np.stack([np.arange(side)] * 2, axis=-1)
    names = text_reference(pixels, (side, side))
    assert len(np.unique(names[:, 0])) == side
    np.testing.assert_array_equal(np.rint(from_text_reference(names, (side, side))), pixels)


@pytest.mark.parametrize("side", [2001, 3840, 4000, 7680])
def test_in_a_larger_view_a_name_is_half_a_step_off_at_most(side):
    pixels = np.stack([np.arange(side)] * 2, axis=-1)
    names = text_reference(pixels, (side, side))
    assert names.min() == 0
    assert names.max() <= 1999
    inner = pixels[: side - side // 2000]  # the last step's pixels are named 1999, never 2000
    off = np.abs(from_text_reference(names, (side, side)) - pixels)[: len(inner)]
    assert off.max() <= 0.5 * side / 2000 + 1e-9


def test_other_checkpoints_may_divide_otherwise():
    assert text_reference((50, 25), (100, 100), 1000).tolist() == [500, 250]
    assert text_reference(np.zeros((4, 5, 2)), (100, 100), 1000).shape == (4, 5, 2)
    mine = CheckpointProfile(
        "mine", 500.0, pixel_reference="text", coordinate_steps=1000, question="Depth at <{x}|{y}> of 1000?"
    )
    assert question_for(mine, 50, 25, (100, 100)) == "Depth at <500|250> of 1000?"


@pytest.mark.parametrize("xy", [(-1, 5), (5, -1), (100, 5), (5, 80), (10**9, 5)])
def test_a_pixel_outside_of_the_view_has_no_name(xy):
    with pytest.raises(ValueError, match=r"100x80"):
        text_reference([(5, 5), xy], (100, 80))


def test_vlm3_is_asked_in_its_authors_words():
    prompt = prompt_for(np.zeros((920, 1215, 3), np.uint8), 191, 119, VLM3)
    assert prompt.question == (
        "Given this image, how far is the point at coordinates (314, 259) from the camera? The coordinates are in "
        "normalised [0, 2000] format relative to image width and height. Output the thinking process in <think> "
        "</think> and final answer (the meter number only, without the unit) in <answer> </answer> tags."
    )
    assert (prompt.system, prompt.image_first, prompt.prefix) == (None, True, "")


def test_the_prompts_of_a_frame_share_all_but_the_coordinates():
    view = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    first, second = (prompt_for(view, x, 40, HERE) for x in (10, 90))
    for prompt in (first, second):
        (image,) = prompt.images
        assert image.base is view
        assert image.paint is None
        assert image.pixels() is view
    assert commonprefix([first.question, second.question]) == TEXT_QUESTION.partition("{x}")[0]
    assert first.question.endswith("(200, 1000)?")
    assert second.question.endswith("(1800, 1000)?")


def test_a_marker_question_is_the_same_for_every_pixel():
    marker = BUILT_IN_PROFILES["depthlm-7b"]
    assert (
        question_for(marker, 10, 20, (100, 80)) == marker.question == question_for(marker, 90, 5, (100, 80))
    )


@pytest.mark.parametrize("xy", [(0, 0), (99, 79), (4, 40), (50, 76)])
def test_no_room_is_needed_where_no_arrow_is_drawn(xy):
    assert bool(askable(xy, (100, 80), HERE))
    assert not askable(xy, (100, 80), BUILT_IN_PROFILES["depthlm-7b"])


@pytest.mark.parametrize("xy", [(-1, 5), (5, -1), (100, 5), (5, 80)])
def test_outside_of_the_view_nothing_is_asked_either_way(xy):
    assert not askable(xy, (100, 80), HERE)
    assert not askable(xy, (100, 80), BUILT_IN_PROFILES["depthlm-7b"])


def estimate(pixels, *, width=160, height=120, focal=200.0):
    """Ask pixels of an image whose fake model answers the x of the coordinates it was told, in hundredths."""

    def told(prompt):
        x = int(prompt.question.rpartition("(")[2].split(",")[0])
        return f" {(x + 1) / 100:.2f} m"

    camera = PinholeCamera.from_intrinsics(focal, focal, width / 2, height / 2, width, height)
    with FakeEngine(told) as engine:
        estimator = DepthEstimator(engine, HERE)
        frame = estimator.prepare(np.zeros((height, width, 3), np.uint8), camera)
        return estimator.ask(frame, pixels), engine, frame


def test_every_visible_pixel_is_asked_and_every_other_one_is_not():
    pixels = [(0, 0), (159, 119), (80, 60), (-1, 5), (160, 5)]
    got, engine, frame = estimate(pixels)
    asked, outside = AnswerStatus.OK, AnswerStatus.UNDRAWABLE
    assert got.status.tolist() == [asked, asked, asked, outside, outside]
    # 160 px at a focal length of 200 are 89 at 112: columns 0, 89 (of 0 to 88) and 44, in steps of 2000 / 89.
    assert frame.view.size == (89, 67)
    np.testing.assert_allclose(got.depth[:3], [0.01, 19.79, 9.90], atol=1e-5)
    assert {id(prompt.images[0].base) for prompt in engine.prompts} == {id(frame.view.image)}


def test_the_sampler_uses_the_whole_image():
    _, _, frame = estimate([(80, 60)])
    grid = np.stack(np.meshgrid(np.arange(160), np.arange(120)), axis=-1)
    assert frame.askable(grid).all()
    with FakeEngine(" 1.00 meters") as engine:
        pixels = DepthEstimator(engine, HERE).sample(frame, SamplingConfig(method="grid", columns=4, rows=3))
    assert len(pixels) == 12


QUESTION_ERRORS = [
    (
        {"pixel_reference": "text"},
        r"must hold \{x\} and \{y\} once each",
    ),  # the default is the marker's question
    ({"pixel_reference": "text", "question": "How far at {x}?"}, r"\{x\} and \{y\} once each"),
    ({"pixel_reference": "text", "question": "({x}, {y}), {z}?"}, r"\{x\} and \{y\} once each"),
    ({"pixel_reference": "text", "question": "({x}, {y}) or {x}?"}, r"\{x\} and \{y\} once each"),
    ({"pixel_reference": "text", "question": "({}, {})?"}, r"\{x\} and \{y\} once each"),
    ({"pixel_reference": "text", "question": "({x}, {y)?"}, "no template"),
    ({"question": "How far at ({x}, {y})?"}, "pixel_reference is 'marker'"),
    (
        {"pixel_reference": "text", "question": TEXT_QUESTION, "coordinate_steps": 1000},
        "does not say that the coordinates go up to 1000",
    ),
    (
        {"pixel_reference": "text", "question": "How far at ({x}, {y}) of 20000?"},
        "does not say that the coordinates go up to 2000;",
    ),
    ({"coordinate_steps": 1}, "coordinate_steps: expected 2"),
    ({"coordinate_steps": 2000.0}, "coordinate_steps: expected 2"),
    ({"coordinate_steps": True}, "coordinate_steps: expected 2"),
]


@pytest.mark.parametrize(("fields", "reason"), QUESTION_ERRORS)
def test_a_question_that_cannot_name_the_pixel_is_refused(fields, reason):
    with pytest.raises(ProfileError, match=reason):
        CheckpointProfile("x", 1000.0, **fields)


def test_the_vlm3_profile_claims_only_what_its_authors_published(tmp_path):
    assert load_profile(tmp_path, "vlm3-depth") is VLM3
    assert (VLM3.canonical_focal_px, VLM3.coordinate_steps, VLM3.max_new_tokens) == (1000.0, 2000, 256)
    assert (VLM3.answer, VLM3.prompt_prefix, VLM3.calibration) == ("", "", None)


def test_questions_of_different_lengths_are_answered_together_as_alone():
    view = sample_view(3, Domain.ROBOT, focal_px=112.0).rgb
    prompts = [prompt_for(view, x, y, HERE) for x, y in ((0, 0), (1, 1), (10, 40), (95, 5))]
    assert len({len(prompt.question) for prompt in prompts}) == 3
    with open_estimator(DepthLMConfig()) as estimator:
        together = estimator.engine.generate(prompts, max_new_tokens=4)
        alone = [estimator.engine.generate([prompt], max_new_tokens=4)[0] for prompt in prompts]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.text == theirs.text
        np.testing.assert_allclose(
            [token.logprob for token in ours.tokens], [token.logprob for token in theirs.tokens], atol=1e-4
        )
