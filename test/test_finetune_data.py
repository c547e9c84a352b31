"""The data of a fine-tuning run: which labels, which pixels, which tokens."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from tiny_models import shared_checkpoint
from toy_labels import FOCAL_PX, toy_depth, write_toy_set

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from depthlm_ros.canonical import CanonicalView  # noqa: E402
from depthlm_ros.config import ConfigError  # noqa: E402
from depthlm_ros.engines.factory import CHECKPOINTS  # noqa: E402
from depthlm_ros.engines.hf_processor import load_encoder  # noqa: E402
from depthlm_ros.evaluation.benchmark import read_benchmark  # noqa: E402
from depthlm_ros.profile import TEXT_QUESTION, CheckpointProfile, load_profile  # noqa: E402
from depthlm_ros.prompting import MARKER_OFFSETS, prompt_for  # noqa: E402
from depthlm_ros.training.finetune.config import AugmentConfig, SftConfig  # noqa: E402
from depthlm_ros.training.finetune.data import TrainingSamples  # noqa: E402
from depthlm_ros.training.finetune.options import build  # noqa: E402
from depthlm_ros.training.finetune.plan import SamplePlan  # noqa: E402
from depthlm_ros.training.finetune.tokens import IGNORED, AnswerTokens, answer_loss  # noqa: E402
from depthlm_ros.training.finetune.views import make_sample  # noqa: E402

EMBEDDED = CHECKPOINTS / "embedded"
WHOLE = AugmentConfig(crop_width_px=(0, 0), crop_height_px=(0, 0))


def encoder_of(checkpoint):
    record = json.loads((checkpoint / "config.json").read_text())
    return load_encoder(checkpoint, record, device=torch.device("cpu"), max_image_pixels=None)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    return write_toy_set(folder, "toy", 5, 7)


@pytest.fixture(scope="module")
def images(toy):
    from pathlib import Path

    return read_benchmark(Path(toy["labels"]), Path(toy["images"]))


def test_sets_are_drawn_by_their_weights():
    plan = SamplePlan([[5] * 40, [5] * 40, [5] * 40], [6.0, 3.0, 1.0], [1] * 3, [False] * 3, 20_000, seed=3)
    drawn = np.bincount([plan[i].set for i in range(len(plan))], minlength=3) / len(plan)
    # Three standard deviations of a share of 20,000 draws are at most 0.0106.
    assert np.abs(drawn - [0.6, 0.3, 0.1]).max() < 0.0106


COUNTS = [6, 2, 6, 6]


def passes(most, *, redraw=False, seed=1, counts=COUNTS, number=2):
    """The places of each of the first passes over one set."""
    per_pass = sum(min(most, count) for count in counts)
    plan = SamplePlan([counts], [1.0], [most], [redraw], number * per_pass, seed)
    return [[plan[k * per_pass + i] for i in range(per_pass)] for k in range(number)]


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("redraw", [False, True])
def test_a_pass_takes_the_wanted_labels_of_every_image(most, redraw):
    first, second = passes(most, redraw=redraw)
    for taken in (first, second):
        assert len(set(taken)) == len(taken)
        assert np.bincount([p.image for p in taken]).tolist() == [min(most, count) for count in COUNTS]
    assert first != second  # the order
    assert (set(first) == set(second)) is not redraw


def test_the_labels_of_an_image_are_the_same_in_every_pass_unless_they_are_redrawn():
    counts = [50] * 20
    fixed, anew = (set().union(*passes(2, redraw=r, counts=counts, number=30)) for r in (False, True))
    assert len(fixed) == 2 * 20
    # 30 draws of 2 of 50 labels leave a label out with probability 0.96^30 = 0.29: about 706 of 1000 are seen.
    assert len(anew) > 600


def test_the_choice_follows_from_image_and_seed_and_more_labels_hold_fewer():
    few, more, other = (set(passes(most, seed=seed)[0]) for most, seed in ((1, 1), (3, 1), (1, 2)))
    assert few < more
    assert few != other
    assert few < set(passes(1, counts=[*COUNTS, 9])[0])  # an image more changes nothing for the others


def test_a_later_place_is_of_the_same_set_and_goes_around():
    plan = SamplePlan([[4], [4]], [1.0, 1.0], [0, 0], [False, False], 20, seed=0)
    of_first = [i for i in range(20) if plan[i].set == 0]
    walked = [plan.later(of_first[1], k) for k in range(len(of_first))]
    assert walked == [plan[i] for i in [*of_first[1:], of_first[0]]]


def test_zero_labels_per_image_means_all_and_the_seed_fixes_the_order():
    first, same, other = (SamplePlan([[3, 4]], [1.0], [0], [False], 7, seed) for seed in (1, 1, 2))
    assert {(p.image, p.label) for p in map(first.__getitem__, range(7))} == {
        (image, label) for image, count in enumerate([3, 4]) for label in range(count)
    }
    assert [first[i] for i in range(7)] == [same[i] for i in range(7)]
    assert [first[i] for i in range(7)] != [other[i] for i in range(7)]


def test_a_set_without_labels_is_refused():
    with pytest.raises(ConfigError, match=r"data\.1.*no labels"):
        SamplePlan([[1], [0, 0]], [1.0, 1.0], [1, 1], [False, False], 100, seed=0)


@pytest.fixture
def ramp(tmp_path):
    """A labelled image whose every pixel has its own colour, and its canonical view at 120 px."""
    width, height, focal = 160, 120, 80.0
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(width)[None, :], np.arange(height)[:, None]
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    label = {
        "image": "ramp.png",
        "intrinsics": [focal, focal, 80, 60, width, height],
        "pixel_coords": [[70, 50]],
        "depth": [3.25],
    }
    (tmp_path / "ramp.jsonl").write_text(json.dumps(label))
    (image,) = read_benchmark(tmp_path / "ramp.jsonl", tmp_path)
    return image, CanonicalView(ramp, focal, focal, 120.0).image


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("place", ["centre", "anywhere"])
def test_a_crop_keeps_focal_length_pixel_and_depth(ramp, flip, place):
    """What lies around the query says where the window was cut."""
    image, whole = ramp
    profile = CheckpointProfile("test", 120.0)
    at = (105, 75)  # 70 and 50 times 120 / 80
    places = set()
    for seed in range(40):
        augment = AugmentConfig(
            crop_width_px=(60, 100), crop_height_px=(40, 90), crop_place=place, flip_share=flip
        )
        sample = make_sample(image, 0, profile, augment, np.random.default_rng(seed))
        base = sample.prompt.images[0].base
        x, y = sample.xy
        if flip:
            base, x = base[:, ::-1], base.shape[1] - 1 - x
        left, top = at[0] - x, at[1] - y
        assert np.array_equal(base, whole[top : top + base.shape[0], left : left + base.shape[1]])
        assert 60 <= base.shape[1] <= 100
        assert 40 <= base.shape[0] <= 90
        assert sample.metres == 3.25
        painted = sample.prompt.images[0].pixels()
        red = {(sample.xy[0] + dx, sample.xy[1] + dy) for dx, dy in MARKER_OFFSETS}
        changed = np.argwhere((painted != sample.prompt.images[0].base).any(axis=-1))
        assert {(int(c), int(r)) for r, c in changed} == red
        places.add((left, top))
        if place == "centre":
            assert (left, top) == ((240 - base.shape[1]) // 2, (180 - base.shape[0]) // 2)
    assert len(places) > 20


@pytest.mark.parametrize(
    ("width", "reference", "kept"),
    # The middle 40 columns of 240 are 100 .. 139: the pixel at 105 has just the 5 to its left that the arrow needs.
    [(40, "marker", True), (38, "marker", False), (38, "text", True), (28, "text", False)],
)
def test_a_label_that_a_crop_in_the_middle_does_not_hold_is_left_out(ramp, width, reference, kept):
    image, _ = ramp
    profile = CheckpointProfile("test", 120.0)
    if reference == "text":
        profile = dataclasses.replace(profile, pixel_reference="text", question=TEXT_QUESTION)
    augment = AugmentConfig(crop_width_px=(width, width), crop_height_px=(60, 60))
    sample = make_sample(image, 0, profile, augment, np.random.default_rng(0))
    assert (sample is not None) is kept
    anywhere = dataclasses.replace(augment, crop_place="anywhere")
    held = make_sample(image, 0, profile, anywhere, np.random.default_rng(0))
    assert held is not None
    assert held.prompt.images[0].base.shape[:2] == (60, width)


def test_range_labels_are_the_length_of_the_ray(images):
    profile = CheckpointProfile("range", FOCAL_PX, depth_convention="range")
    image = images[0]
    sample = make_sample(image, 0, profile, WHOLE, np.random.default_rng(0))
    fx, fy, cx, cy = image.intrinsics[:4]
    u, v = image.pixels[0]
    ray = ((u - cx) / fx, (v - cy) / fy, 1.0)
    assert sample.metres == pytest.approx(image.depth[0] * np.linalg.norm(ray), rel=1e-12)


def test_a_label_that_cannot_be_asked_gives_way_to_the_next_that_is_planned(tmp_path):
    entry = write_toy_set(tmp_path, "toy", 2, 1)
    lines = [json.loads(line) for line in (tmp_path / "toy.jsonl").read_text().splitlines()]
    lines[0]["pixel_coords"], lines[0]["depth"] = [[1, 1], [50, 50]], [1.0, 2.5]
    lines[1]["pixel_coords"] = [[2, 2]]
    (tmp_path / "toy.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = build(SftConfig, {"data": [entry | {"labels_per_image": 0}]}, "test")
    samples = TrainingSamples(config, load_profile(EMBEDDED), 6)
    assert [samples[i].metres for i in range(6)] == [2.5] * 6
    # Of the first image, 1 label is used; that the other one could be asked makes no difference.
    fixed = build(SftConfig, {"data": [entry | {"labels_per_image": 1}]}, "test")
    place = SamplePlan([[2, 1]], [1.0], [1], [False], 6, seed=0)
    used = {place[i].label for i in range(6) if place[i].image == 0}
    assert len(used) == 1
    lines[0]["pixel_coords"] = [[1, 1], [1, 1]]
    lines[0]["pixel_coords"][1 - used.pop()] = [50, 50]
    (tmp_path / "toy.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match="can be asked about"):
        TrainingSamples(fixed, load_profile(EMBEDDED), 6)[0]
    lines[0]["pixel_coords"][1] = lines[0]["pixel_coords"][0] = [0, 0]
    (tmp_path / "toy.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match="can be asked about"):
        TrainingSamples(config, load_profile(EMBEDDED), 6)[0]


@pytest.mark.parametrize("family", ["embedded", "qwen2_5_vl", "qwen3_vl", "pixtral"])
@pytest.mark.parametrize("reference", ["marker", "text"])
def test_training_sees_what_the_engine_feeds_and_then_the_answer(images, family, reference):
    checkpoint = EMBEDDED if family == "embedded" else shared_checkpoint(family)
    profile = CheckpointProfile("test", FOCAL_PX, system=None if family == "embedded" else "You help.")
    if reference == "text":
        question = "How far is ({x}, {y}) of 2000?"
        profile = dataclasses.replace(profile, pixel_reference="text", question=question)
    encoder = encoder_of(checkpoint)
    tokens = AnswerTokens(encoder, profile)
    rng = np.random.default_rng(0)
    crops = AugmentConfig(crop_width_px=(70, 128), crop_height_px=(60, 96), crop_place="anywhere")
    samples = [make_sample(images[i], i, profile, crops, rng) for i in range(3)]
    batch = tokens.collate([tokens.encode(sample) for sample in samples])
    served = encoder.batch([encoder.encode(sample.prompt) for sample in samples])
    bare = dataclasses.replace(profile, prompt_prefix="")
    for row, sample in enumerate(samples):
        x, y = sample.xy
        asked = prompt_for(sample.prompt.images[0].base, x, y, profile)
        prompt = encoder.encode(asked).ids
        unbegun = encoder.encode(prompt_for(sample.prompt.images[0].base, x, y, bare)).ids
        real = batch["input_ids"][row][batch["attention_mask"][row] == 1].tolist()
        assert real[: len(prompt)] == prompt
        said = real[len(prompt) :]
        answer = profile.answer.format(depth=sample.metres)
        assert encoder.tokenizer.decode(said[:-1]) == answer[len(profile.prompt_prefix) :]
        assert said[-1] == encoder.tokenizer.eos_token_id
        learnt = batch["labels"][row] != IGNORED
        assert batch["input_ids"][row][learnt].tolist() == real[len(unbegun) :]
        assert batch["labels"][row][learnt].tolist() == real[len(unbegun) :]
        assert int(learnt.sum()) == len(real) - len(unbegun)
    assert torch.equal(batch["pixel_values"], served["pixel_values"])
    for name in set(served) - {"input_ids", "attention_mask", "mm_token_type_ids", "pixel_values"}:
        assert torch.equal(batch[name], served[name])


def test_the_loss_is_the_cross_entropy_of_the_answer_alone(images):
    from transformers import AutoModelForImageTextToText

    profile = load_profile(EMBEDDED)
    tokens = AnswerTokens(encoder_of(EMBEDDED), profile)
    model = AutoModelForImageTextToText.from_pretrained(EMBEDDED, dtype=torch.float32).eval()
    rng = np.random.default_rng(0)
    crops = AugmentConfig(crop_width_px=(70, 128), crop_height_px=(60, 96), crop_place="anywhere")
    sequences = [tokens.encode(make_sample(images[i], 0, profile, crops, rng)) for i in range(3)]
    with torch.no_grad():
        together = answer_loss(model, tokens.collate(sequences))
        alone = 0.0
        for sequence in sequences:
            batch = tokens.collate([sequence])
            ids = batch.pop("labels"), batch["input_ids"][0]
            logp = model(**batch).logits[0].log_softmax(-1)
            for place in range(len(ids[1]) - sequence.learnt, len(ids[1])):
                alone -= float(logp[place - 1, ids[1][place]])
    assert float(together) == pytest.approx(alone, rel=1e-4)


def test_the_toy_floor_is_nearer_below():
    depth = toy_depth(96, 128)
    assert depth[0, 0] == pytest.approx(8.0)
    assert depth[-1, -1] == pytest.approx(1.0)
