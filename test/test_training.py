import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training_toys import (  # noqa: E402, F401
    LIMITS,
    TOY,
    toy_cache,
    toy_config,
    toy_pair,
    toy_pairs,
    toy_tokenizer,
    toy_view,
)

from depthlm_ros.profile import DEPTHLM_QUESTION, load_profile  # noqa: E402
from depthlm_ros.spatial.tasks import SpatialTask  # noqa: E402
from depthlm_ros.training import config as training_config  # noqa: E402
from depthlm_ros.training import embedded  # noqa: E402
from depthlm_ros.training.answering import Answers, ask, load_checkpoint, make_processor  # noqa: E402
from depthlm_ros.training.calibrate import (  # noqa: E402
    fit_calibration,
)
from depthlm_ros.training.config import (  # noqa: E402
    StageConfig,
    TrainingConfigError,
)
from depthlm_ros.training.curve import draw_curve, read_metrics  # noqa: E402
from depthlm_ros.training.export import embedded_profile, export_checkpoint  # noqa: E402
from depthlm_ros.training.log import read_log  # noqa: E402
from depthlm_ros.training.model import build_model, whiten_patches  # noqa: E402
from depthlm_ros.training.patches import patch_vectors  # noqa: E402
from depthlm_ros.training.stages import Trainer, share_done  # noqa: E402
from depthlm_ros.training.validation import held_out_queries  # noqa: E402
from depthlm_ros.training.views import ViewCache, ViewSet, render_set  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]


def losses(run, stage):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [r["loss"] for r in records if r["stage"] == stage and "loss" in r]


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


def test_filled_views_are_trained_on_and_the_export_asks_for_them(cache, tmp_path):
    config = toy_config(6)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, fill_grid=True))
    trainer = Trainer(config, tmp_path, cache)
    trainer.train()
    assert all(math.isfinite(loss) for stage in ("vision", "text") for loss in losses(tmp_path, stage))
    assert embedded_profile(config).patch_grid_px == 16
    queries = held_out_queries(cache, 6, LIMITS, 5, filled=True)
    assert any((view[-1] == 0).all() for view in queries.views)  # filled up with black
    assert all(side % 16 == 0 for view in queries.views for side in view.shape[:2])


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
    silent = embedded_profile(dataclasses.replace(trainer.config, direct_tasks=False))
    assert silent == dataclasses.replace(profile, spatial_tasks=())
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
    (broken / "metrics.jsonl").open("a").write('{"stage": "vision", "step": 5, "loss": 1.0}\n')
    slower = dataclasses.replace(config, vision=dataclasses.replace(config.vision, adam_lr=1e-4))
    with pytest.raises(TrainingConfigError, match=r"vision\.adam_lr was"):
        Trainer(slower, broken, cache)
    later = dataclasses.replace(config, text=dataclasses.replace(config.text, adam_lr=1e-4))
    assert Trainer(later, broken, cache).progress.step == 3
    resumed = Trainer(config, broken, cache)
    assert [record["step"] for record in read_log(broken)] == [1]  # the line of step 5 is gone
    assert (resumed.progress.stage, resumed.progress.step) == ("vision", 3)
    resumed.train()
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_recipe_becomes_a_calibrated_checkpoint(tmp_path, monkeypatch):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        "recipe: embedded\nworkers: 1\ncalibration_queries: 80\n"
        "model: {vision_width: 32, vision_layers: 1, vision_heads: 1, vision_mlp: 64, text_width: 64, text_layers: 1,"
        " text_heads: 2, text_mlp: 128}\n"
        "data: {train_views: 200, validation_views: 200, train_pairs: 100, task_share: 0.3, motion_share: 0.3,"
        " render_processes: 1}\n"
        "vision: {steps: 2, batch: 4, evaluate_every: 2}\ntext: {steps: 3, batch: 4, evaluate_every: 3}\n"
    )
    monkeypatch.setattr(embedded, "synthetic_view", lambda seed, domain, focal_px: toy_view(seed, domain))
    monkeypatch.setattr(embedded, "synthetic_pair", lambda seed, domain, focal_px: toy_pair(seed, domain))

    def scripted(model, tokenizer, processor, queries, profile):  # two steps teach no model to answer
        sure = np.linspace(0.1, 0.9, len(queries.truth))
        metres = queries.truth * np.where(sure > 0.5, 1.0, 2.0)
        return Answers(metres, sure / metres, ("",) * len(sure), np.full(len(sure), 0.1))

    monkeypatch.setattr(embedded, "ask", scripted)
    export = embedded.train(recipe, tmp_path / "run")
    profile = load_profile(export)
    assert profile.calibration.confidence[0] < 0.1
    assert profile.calibration.confidence[-1] > 0.9
    # Of "x.x" m: the density per unit of log depth is ten times the certainty of the script.
    assert profile.calibration.score == "relative"
    assert 1.0 <= profile.calibration.raw[0] < profile.calibration.raw[-1] <= 9.0
    assert set(profile.spatial_tasks) == {task.value for task in SpatialTask}
    record = json.loads((export / "training.json").read_text())
    assert record["validation"]["wide"]["delta1"] == pytest.approx(0.5, abs=0.03)
    assert record["recipe"]["text"]["steps"] == 3
    assert (tmp_path / "run" / "curve.png").is_file()
    model, _, _ = load_checkpoint(export)
    assert record["parameters"] == sum(p.numel() for p in model.parameters())


def test_stage_ends_by_steps_or_by_minutes():
    assert share_done(StageConfig(100), 25, 1e6) == 0.25
    assert share_done(StageConfig(100, minutes=1.0), 25, 30.0) == 0.5


# --- configuration ---------------------------------------------------------------------------------------------


def test_the_recipe_keeps_its_seeds_apart():
    config = training_config.load_training_config(REPOSITORY / "config" / "train_embedded.yaml")
    data = config.data
    assert data.train_seed + data.train_views <= data.validation_seed
    assert data.pairs_seed + data.train_pairs <= data.validation_seed


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("vision: {steps: 1}\ntext: {steps: 1}\ncolour: 3\n", "colour"),
        ("vision: {steps: 1, stepz: 2}\ntext: {steps: 1}\n", "stepz"),
        ("vision: {steps: 1}\n", "text"),
        ("vision: {steps: many}\ntext: {steps: 1}\n", "steps"),
        ("- 1\n", "mapping"),
        ("vision: {steps: 1}\ntext: {steps: 1}\ndata: {labels_per_view: 2}\n", "crop_share"),
        ("vision: {steps: 1}\ntext: {steps: 1}\npixel_reference: arrow\n", "marker or text"),
        ("vision: {steps: 1}\ntext: {steps: 1}\ncompile: 1\n", "true or false"),
        ("vision: {steps: -5}\ntext: {steps: 1}\n", "steps: expected 0 or more, got -5"),
        ("vision: {steps: 1}\ntext: {steps: 1, median_share: 2}\n", "median_share: expected 0 to 1"),
        ("vision: {steps: 1}\ntext: {steps: 1, dense_weight: -1}\n", "dense_weight: expected 0 or more"),
        ("vision: {steps: 1}\ntext: {steps: 1}\nworkers: 0\n", "workers: expected more than 0"),
        ("vision: {steps: 1, batch: 9}\ntext: {steps: 1}\n", "vision.batch: expected a multiple of workers"),
        ("vision: {steps: 1}\ntext: {steps: 1}\ndata: {robot_share: 7}\n", "robot_share"),
    ],
)
def test_wrong_recipes_are_refused_by_name(tmp_path, text, word):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(TrainingConfigError, match=word):
        training_config.load_training_config(path)


def test_cache_of_other_seeds_is_refused(tmp_path):
    render_set(ViewSet("toy", 1, 200, 0.5, 112.0), tmp_path, toy_view, 1, progress=False)
    for other in (ViewSet("toy", 2, 200, 0.5, 112.0), ViewSet("toy", 1, 200, 0.5, 100.0)):
        with pytest.raises(TrainingConfigError, match="another folder"):
            render_set(other, tmp_path, toy_view, 1, progress=False)
    with pytest.raises(ValueError, match="400"):
        ViewCache(tmp_path / "toy", 400)


# --- calibration -----------------------------------------------------------------------------------------------


def test_calibration_finds_what_the_certainty_means():
    rng = np.random.default_rng(0)
    certainty = rng.uniform(0.0, 1.0, 4000)
    truth = rng.uniform(1.0, 10.0, 4000)
    answered = truth * np.exp(rng.normal(0.0, 0.5 * (1.05 - certainty)))
    probability = certainty * 0.01 / answered  # of two decimals
    fitted = fit_calibration(probability, answered, truth, "a simulation")
    assert len(fitted.raw) <= 12 + 2 * 3  # the first and the last bin of 333 answers are cut three times
    assert all(b >= a for a, b in zip(fitted.confidence, fitted.confidence[1:], strict=False))
    assert all(b <= a for a, b in zip(fitted.relative_sigma, fitted.relative_sigma[1:], strict=False))
    assert fitted.confidence[-1] > 0.95
    with pytest.raises(ValueError, match="40 answers"):
        fit_calibration(probability[:10], answered[:10], truth[:10], "")
