import dataclasses
import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from depthlm_ros.engines.base import PromptImage  # noqa: E402
from depthlm_ros.profile import DEPTHLM_ANSWER, DEPTHLM_PREFIX, DEPTHLM_QUESTION, load_profile  # noqa: E402
from depthlm_ros.prompting import marker_paint  # noqa: E402
from depthlm_ros.spatial.motion import CameraMotion  # noqa: E402
from depthlm_ros.spatial.tasks import SpatialTask  # noqa: E402
from depthlm_ros.synthetic import Domain, Intrinsics, sample_view  # noqa: E402
from depthlm_ros.training import config as training_config  # noqa: E402
from depthlm_ros.training.answering import ask, load_checkpoint, make_processor  # noqa: E402
from depthlm_ros.training.augment import (  # noqa: E402
    Limits,
    Variety,
    marked_sample,
    training_batch,
    training_sample,
)
from depthlm_ros.training.calibrate import (  # noqa: E402
    area_under_curve,
    fit_calibration,
    pool_adjacent_violators,
)
from depthlm_ros.training.config import (  # noqa: E402
    ModelConfig,
    StageConfig,
    TrainingConfig,
    TrainingConfigError,
)
from depthlm_ros.training.curve import draw_curve, read_metrics  # noqa: E402
from depthlm_ros.training.export import embedded_profile, export_checkpoint  # noqa: E402
from depthlm_ros.training.losses import DepthHeads, answer_mask, cell_depths, pointed_tokens  # noqa: E402
from depthlm_ros.training.model import answer_logits, build_model, tower_tokens, whiten_patches  # noqa: E402
from depthlm_ros.training.optim import MuonAdamW, NamedParameters, orthogonalise  # noqa: E402
from depthlm_ros.training.pairs import PairCache, render_pairs  # noqa: E402
from depthlm_ros.training.patches import patch_vectors, processor_pixel_values  # noqa: E402
from depthlm_ros.training.questions import depth_questions, motion_questions, task_questions  # noqa: E402
from depthlm_ros.training.stages import Trainer, share_done  # noqa: E402
from depthlm_ros.training.tokenizer import IMAGE_PAD, build_tokenizer, prompt_text  # noqa: E402
from depthlm_ros.training.validation import held_out_queries  # noqa: E402
from depthlm_ros.training.views import ViewCache, ViewSet, render_set, synthetic_camera  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]
LIMITS = Limits(0.1, 80.0)
TOY = ModelConfig(
    vision_width=32, vision_layers=1, vision_heads=1, vision_mlp=64,
    text_width=64, text_layers=1, text_heads=2, text_mlp=128,
)  # fmt: skip


def toy_view(seed, domain):
    rng = np.random.default_rng(seed)
    depth = np.linspace(6.0, 1.0, 64, dtype=np.float32)[:, None] * np.ones((1, 96), np.float32)
    depth[:8] = np.inf
    grey = np.clip(255.0 / np.minimum(depth, 50.0), 0, 255)[..., None]
    return np.clip(grey + rng.uniform(-20, 20, (64, 96, 3)), 0, 255).astype(np.uint8), depth


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("views")
    return ViewCache(render_set(ViewSet("toy", 7, 200, 0.7), root, toy_view, 1, progress=False), 200)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def toy_config(steps=20, **changes):
    stage = StageConfig(steps, batch=16, warmup_steps=3, evaluate_every=10_000)
    text = dataclasses.replace(stage, frozen_share=0.35, tower_lr_share=0.3)
    return TrainingConfig(vision=stage, text=text, model=TOY, workers=1, **changes)


def losses(run, stage):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [r["loss"] for r in records if r["stage"] == stage and "loss" in r]


# --- tokenizer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0.1, 2.42, 12.5, 79.99])
def test_official_sentences_survive_the_tokenizer(tokenizer, depth):
    for text in (DEPTHLM_ANSWER.format(depth=depth), prompt_text(DEPTHLM_QUESTION), "Wie weit? ≈ 3 m, ok\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_prefix_number_and_stop_end_where_tokens_end(tokenizer):
    ids = tokenizer(DEPTHLM_ANSWER.format(depth=12.42))["input_ids"]
    pieces = [tokenizer.decode([i]) for i in ids]
    assert pieces[:7] == [DEPTHLM_PREFIX, " 1", "2", ".", "4", "2", " meters"]
    assert tokenizer(DEPTHLM_PREFIX)["input_ids"] == ids[:1]


def test_chat_template_renders_what_was_trained(tokenizer):
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": DEPTHLM_QUESTION}]}
    rendered = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    assert rendered == prompt_text(DEPTHLM_QUESTION)


# --- the image path --------------------------------------------------------------------------------------------


def test_patches_equal_the_image_processor():
    views = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    expected = make_processor(8)(list(views), return_tensors="pt")
    assert expected["image_grid_thw"].tolist() == [[1, 8, 12]] * 3
    assert torch.equal(processor_pixel_values(torch.from_numpy(views), 8), expected["pixel_values"])


def test_marked_sample_is_what_inference_shows_the_model():
    rgb, depth = toy_view(3, "robot")
    rgb, depth = rgb[:57, :90].copy(), depth[:57, :90]
    shown = PromptImage(rgb.copy(), marker_paint(40, 30)).pixels()
    whole = make_processor(8)([shown], return_tensors="pt")
    view, resized_depth, pixel, target = marked_sample(rgb, depth, (40, 30))
    assert view.shape == (64, 96, 3)
    assert resized_depth.shape == (64, 96)
    assert target == depth[30, 40]
    assert pixel == (43, 34)
    ours = processor_pixel_values(torch.from_numpy(view.copy())[None], 8)
    assert torch.allclose(ours, whole["pixel_values"], atol=1e-6)


def test_batched_path_equals_the_models_own_forward(tokenizer):
    model = build_model(TOY, tokenizer, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    views = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    images = make_processor(8)(list(views.numpy()), return_tensors="pt")
    text = prompt_text(DEPTHLM_QUESTION).replace(IMAGE_PAD, IMAGE_PAD * 24) + DEPTHLM_PREFIX
    ids = tokenizer([text] * 2, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        ours = answer_logits(model, tower_tokens(model.model.visual, views), ids, (4, 6), 0)
        theirs = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
            **images,
        ).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


# --- batches and losses ----------------------------------------------------------------------------------------


def test_batches_have_one_size_and_the_pixels_depth(cache):
    batch = training_batch(
        cache, 8, LIMITS, Variety(0.5, 0.5), np.random.default_rng(4), np.random.default_rng(5)
    )
    assert batch.views.shape == (*batch.depth.shape, 3)
    assert all(side % 16 == 0 for side in batch.depth.shape[1:])
    assert torch.isfinite(batch.target).all()
    assert pointed_tokens(batch, 8).max() < batch.depth.shape[1] * batch.depth.shape[2] // 256


def test_views_of_nothing_but_sky_are_skipped():
    rgb, _ = toy_view(0, "wide")
    sky = np.full((64, 96), np.inf, np.float32)
    rng = np.random.default_rng(0)
    assert training_sample(rgb, sky, (64, 96), LIMITS, Variety(1.0, 1.0), rng, rng) is None


def test_only_the_answer_is_learnt(tokenizer):
    prompt = prompt_text(DEPTHLM_QUESTION)
    texts = [prompt + DEPTHLM_ANSWER.format(depth=d) + tokenizer.eos_token for d in (2.42, 12.42)]
    ids = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")["input_ids"]
    start = len(tokenizer(prompt)["input_ids"])
    mask = answer_mask(ids, torch.tensor([start, start]), tokenizer.pad_token_id)
    learnt = [tokenizer.decode(row[keep]) for row, keep in zip(ids, mask, strict=True)]
    assert learnt == [DEPTHLM_ANSWER.format(depth=d) + tokenizer.eos_token for d in (2.42, 12.42)]


def test_bins_keep_the_depth_and_cells_take_the_median():
    heads = DepthHeads(8, 48, LIMITS)
    lower, share = heads.soft_bins(torch.tensor([0.1, 1.0, 3.3, 80.0]))
    log = heads.low + (lower + share) / 47 * (heads.high - heads.low)
    assert torch.allclose(log.exp(), torch.tensor([0.1, 1.0, 3.3, 80.0]), rtol=1e-3)
    depth = torch.ones(1, 16, 32)
    depth[:, :8, 8:16] = 5.0
    depth[:, 0, 0] = math.inf
    assert cell_depths(depth, 8).tolist() == [[[1.0, 5.0, 1.0, 1.0], [1.0] * 4]]


def test_orthogonalised_updates_have_singular_values_near_one():
    values = torch.linalg.svdvals(orthogonalise(torch.randn(2, 24, 16, generator=torch.manual_seed(0))))
    assert values.min() > 0.4
    assert values.max() < 1.4


# --- questions -------------------------------------------------------------------------------------------------


def still_camera(index):
    return Intrinsics(112.0, 112.0, 45.0, 30.0, 96, 64)


def test_few_labels_per_view_are_few(cache):
    asked = set()
    for step in range(40):
        rng = np.random.default_rng(step)
        batch = training_batch(cache, 8, LIMITS, Variety(0.0, 0.0, labels_per_view=1), rng, rng)
        asked |= {tuple(pixel) for pixel in batch.pixel.tolist()}
    assert len(asked) <= 2 * len(cache)  # 320 were drawn; one label each for a view and its mirror image
    repeated = Variety(0.0, 0.0, labels_per_view=1)
    again = [
        training_batch(cache, 8, LIMITS, repeated, np.random.default_rng(1), np.random.default_rng(1))
        for _ in range(2)
    ]
    assert torch.equal(again[0].pixel, again[1].pixel)


def test_text_questions_name_the_pixel_and_paint_nothing(cache):
    rng = np.random.default_rng(8)
    batch = training_batch(cache, 8, LIMITS, Variety(0.0, 0.0, marked=False), rng, rng)
    asked = depth_questions(batch, "text")
    assert asked.views.shape == (8, 1, *batch.views.shape[1:])
    height, width = batch.depth.shape[1:]
    for view, question, answer, (x, y), depth in zip(
        batch.views, asked.questions, asked.answers, batch.pixel.tolist(), batch.depth, strict=True
    ):
        named = [int(word) for word in re.search(r"\((\d+), (\d+)\)", question).groups()]
        assert named == [round(x * 2000 / width), round(y * 2000 / height)]
        assert f"<answer> {depth[y, x]:.2f} </answer>" in answer
        assert not (view == torch.tensor([255, 0, 0])).all(-1).any()


def test_point_tasks_are_asked_about_marked_views_of_one_size(cache):
    kinds = set()
    for step in range(12):
        rng = np.random.default_rng(step)
        asked = task_questions(cache, still_camera, 3, LIMITS, Variety(0.0, 0.5), rng, rng)
        assert asked.views.shape == (3, 1, 64, 96, 3)
        assert asked.depth is None
        red = (asked.views == torch.tensor([255, 0, 0], dtype=torch.uint8)).all(-1)
        arrows = 2 if "2 red arrows" in asked.questions[0] else 1
        assert all(8 <= int(view.sum()) <= 9 * arrows for view in red)
        kinds.add(asked.questions[0].split("?")[0][:60])
    assert len(kinds) >= 3


def toy_pair(seed, domain):
    first, _ = toy_view(seed, domain)
    return first, first[:, ::-1].copy(), CameraMotion([0.1 * (seed % 10), 0.0, 0.5], [0.0, 2.0, 0.0])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    render_pairs(folder, 40, 100, toy_pair, 1)
    return PairCache(folder, 100)


def test_pairs_come_back_as_rendered(pairs, tmp_path):
    first, second, motion = pairs[13]
    expected = toy_pair(53, "wide")
    assert np.array_equal(first, expected[0])
    assert np.array_equal(second, expected[1])
    assert np.allclose(motion.translation, [0.3, 0.0, 0.5])
    asked = motion_questions(pairs, 4, Variety(0.0, 0.0), np.random.default_rng(0), np.random.default_rng(1))
    assert asked.views.shape == (4, 2, 64, 96, 3)
    with pytest.raises(ValueError, match="fewer than 200"):
        PairCache(tmp_path, 200)


def test_two_images_go_through_as_in_the_models_own_forward(tokenizer):
    model = build_model(TOY, tokenizer, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    views = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    images = make_processor(8)(list(views.numpy()), return_tensors="pt")
    text = prompt_text("How far?", 2).replace(IMAGE_PAD, IMAGE_PAD * 24) + DEPTHLM_PREFIX
    ids = tokenizer([text], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        tokens = tower_tokens(model.model.visual, views).reshape(1, 48, -1)
        ours = answer_logits(model, tokens, ids, (4, 6), 0)
        theirs = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
            **images,
        ).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_cameras_of_cached_views_are_those_that_rendered_them():
    for seed, domain in ((3, Domain.ROBOT), (4, Domain.WIDE)):
        view = sample_view(seed, domain, focal_px=112.0)
        assert synthetic_camera(seed, domain.value, 112.0) == view.intrinsics


def test_weights_stay_bounded_however_long_the_training():
    layer = torch.nn.Linear(16, 16)
    stage = StageConfig(steps=10**9, muon_lr=0.05, muon_decay=0.5, warmup_steps=1)
    optimiser = MuonAdamW([NamedParameters(dict(layer.named_parameters()))], stage)
    for step in range(400):
        layer.weight.grad = torch.eye(16)  # always the same way: the worst case
        optimiser.step(step, 0.0)
    # An orthogonalised update has singular values of at most about 1.2.
    assert float(torch.linalg.matrix_norm(layer.weight, 2)) < 1.25 / stage.muon_decay


# --- the stages ------------------------------------------------------------------------------------------------


def test_both_stages_learn_and_the_export_answers(cache, tokenizer, tmp_path):
    config = toy_config(save_every_s=0.0)
    trainer = Trainer(config, tmp_path, cache)
    trainer.train()
    assert trainer.progress.stage == "done"
    for stage in ("vision", "text"):
        first, *_, last = losses(tmp_path, stage)
        assert last < first
    seen = [record["views"] for record in read_metrics(tmp_path, config)]
    assert seen == sorted(seen)
    assert seen[-1] == 16 * (20 + 20)
    draw_curve(tmp_path, config)
    assert cv2.imread(str(tmp_path / "curve.png")).shape[2] == 3
    export_checkpoint(trainer.model.eval(), trainer.tokenizer, config, tmp_path / "export")
    model, loaded, processor = load_checkpoint(tmp_path / "export")
    assert load_profile(tmp_path / "export").canonical_focal_px == 112.0
    assert loaded(DEPTHLM_QUESTION)["input_ids"] == tokenizer(DEPTHLM_QUESTION)["input_ids"]
    assert model.config.text_config.rope_parameters["rope_theta"] == TOY.rope_theta
    queries = held_out_queries(cache, 3, LIMITS, 5)
    answers = ask(model, loaded, processor, queries, load_profile(tmp_path / "export"))
    assert len(answers.texts) == 3
    assert all(answers.texts)


@pytest.mark.parametrize("reference", ["marker", "text"])
def test_every_question_is_trained_in_the_text_stage(cache, pairs, tmp_path, reference):
    config = toy_config(12, pixel_reference=reference)
    data = dataclasses.replace(config.data, task_share=0.3, motion_share=0.2, train_pairs=100)
    trainer = Trainer(dataclasses.replace(config, data=data), tmp_path, cache, pairs=pairs)
    trainer.train()
    assert trainer.progress.stage == "done"
    assert all(math.isfinite(loss) for loss in losses(tmp_path, "text"))
    profile = embedded_profile(trainer.config)
    assert profile.pixel_reference == reference
    assert set(profile.spatial_tasks) == {task.value for task in SpatialTask}
    queries = held_out_queries(cache, 4, LIMITS, 5, marked=reference == "marker")
    answers = ask(trainer.model.eval(), trainer.tokenizer, make_processor(8), queries, profile)
    assert len(answers.texts) == 4
    with pytest.raises(ValueError, match="pairs"):
        Trainer(dataclasses.replace(config, data=data), tmp_path / "none", cache)


def test_whitened_patches_leave_the_embedding_with_unit_variance(cache, tokenizer):
    model = build_model(TOY, tokenizer, 0)
    views = [torch.tensor(cache[k][0])[None] for k in range(60)]
    whiten_patches(model.model.visual, views, 1)
    weight = model.model.visual.patch_embed.proj.weight.sum(2).flatten(1)
    embedded = torch.cat([patch_vectors(view, 8)[0] for view in views]) @ weight.T
    covariance = torch.cov(embedded.T)
    assert covariance.diagonal().max() < 1.1
    off = covariance - torch.diag(covariance.diagonal())
    assert off.abs().max() < 0.6


def test_interrupted_training_goes_on_and_ends_alike(cache, tmp_path):
    config = toy_config(6, save_every_s=0.0)
    config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, evaluate_every=3))
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for run in (straight, broken):
        run.mkdir()
    whole = Trainer(config, straight, cache)
    whole.train()

    def interrupt(trainer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(config, broken, cache, on_interval=interrupt).train()
    resumed = Trainer(config, broken, cache)
    assert (resumed.progress.stage, resumed.progress.step) == ("vision", 3)
    resumed.train()
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_stage_ends_by_steps_or_by_minutes():
    assert share_done(StageConfig(100), 25, 1e6) == 0.25
    assert share_done(StageConfig(100, minutes=1.0), 25, 30.0) == 0.5


# --- configuration ---------------------------------------------------------------------------------------------


def test_the_recipe_keeps_its_seeds_apart():
    config = training_config.load_training_config(REPOSITORY / "config" / "train_embedded.yaml")
    data = config.data
    assert data.train_seed + data.train_views <= data.validation_seed
    assert data.validation_seed + 100_000 + data.validation_views <= data.test_seed


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("vision: {steps: 1}\ntext: {steps: 1}\ncolour: 3\n", "colour"),
        ("vision: {steps: 1, stepz: 2}\ntext: {steps: 1}\n", "stepz"),
        ("vision: {steps: 1}\n", "text"),
        ("vision: {steps: many}\ntext: {steps: 1}\n", "steps"),
        ("- 1\n", "mapping"),
    ],
)
def test_wrong_recipes_are_refused_by_name(tmp_path, text, word):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(TrainingConfigError, match=word):
        training_config.load_training_config(path)


def test_cache_of_other_seeds_is_refused(tmp_path):
    render_set(ViewSet("toy", 1, 200, 0.5), tmp_path, toy_view, 1, progress=False)
    with pytest.raises(ValueError, match="other views"):
        render_set(ViewSet("toy", 2, 200, 0.5), tmp_path, toy_view, 1, progress=False)
    with pytest.raises(ValueError, match="400"):
        ViewCache(tmp_path / "toy", 400)


# --- calibration -----------------------------------------------------------------------------------------------


def test_isotonic_fit():
    fit = pool_adjacent_violators(np.array([1.0, 3.0, 2.0, 4.0, 0.0]), np.ones(5))
    assert np.allclose(fit, [1.0, 2.25, 2.25, 2.25, 2.25])


def test_calibration_finds_what_the_probability_means():
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.0, 1.0, 4000)
    truth = rng.uniform(1.0, 10.0, 4000)
    answered = truth * np.exp(rng.normal(0.0, 0.5 * (1.05 - probability)))
    fitted = fit_calibration(probability, answered, truth, "a simulation")
    assert len(fitted.raw) <= 12
    assert all(b >= a for a, b in zip(fitted.confidence, fitted.confidence[1:], strict=False))
    assert all(b <= a for a, b in zip(fitted.relative_sigma, fitted.relative_sigma[1:], strict=False))
    assert fitted.confidence[-1] > 0.95
    with pytest.raises(ValueError, match="40 answers"):
        fit_calibration(probability[:10], answered[:10], truth[:10], "")


def test_area_under_curve():
    assert area_under_curve(np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, False, True, True])) == 1.0
    assert area_under_curve(np.ones(4), np.array([False, False, True, True])) == 0.5
