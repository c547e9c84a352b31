"""``depthlm study``: every study on a toy."""

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402
from study_toys import (  # noqa: E402, F401
    LIMITS,
    TOY,
    of_arms,
    toy_base,
    toy_options,
    toy_view,
    toy_views,
)

from depthlm_ros.cli import app  # noqa: E402
from depthlm_ros.engines.base import EngineError  # noqa: E402
from depthlm_ros.engines.factory import CHECKPOINTS  # noqa: E402
from depthlm_ros.profile import load_profile  # noqa: E402
from depthlm_ros.training.finetune.config import GrpoConfig, SftConfig  # noqa: E402
from depthlm_ros.training.stages import Trainer  # noqa: E402
from depthlm_ros.training.studies import answer, grpo, labels, reference, reuse  # noqa: E402
from depthlm_ros.training.studies.cameras import (  # noqa: E402
    CANVAS,
    MixedCameras,
    crop_sizes,
    paired_queries,
)
from depthlm_ros.training.studies.focal import FOCAL  # noqa: E402
from depthlm_ros.training.studies.held_out import (  # noqa: E402
    open_views,
    read_base,
    recipe,
    render_views,
    start_text_stage,
    train_views,
)
from depthlm_ros.training.studies.runner import run_study  # noqa: E402
from depthlm_ros.training.studies.study import StudyError  # noqa: E402
from depthlm_ros.training.studies.trivial import PREDICTORS  # noqa: E402
from depthlm_ros.training.views import ViewCache  # noqa: E402

# --- focal -----------------------------------------------------------------------------------------------------


def test_crops_are_whole_tokens_near_the_canvas_shape_inside_their_views(views):
    sizes = np.array([[96, 144], [96, 128], [128, 176], [144, 208], [96, 208]] * 100)
    crops = crop_sizes(sizes, 3)
    assert (crops % 16 == 0).all()
    assert (crops <= sizes).all()
    assert crops.min() == 48
    shape = crops[:, 1] / crops[:, 0]
    assert shape.min() >= 1.4 / 1.08
    assert shape.max() <= 1.4 * 1.08
    assert len(np.unique(crops[3::5], axis=0)) == 7  # 48 to 144 rows


def test_both_arms_see_the_same_pixels_and_depths(views):
    cache = ViewCache(views / "train", 200)
    canonical, none = (MixedCameras(cache, arm, 5) for arm in ("canonical", "none"))
    assert (none.sizes == CANVAS).all()
    assert none.tokens == 35.0
    assert len(np.unique(canonical.sizes, axis=0)) > 1
    whole_rgb, whole_depth = cache[4]
    rgb, depth = canonical[4]
    height, width = canonical.sizes[4]
    top, left = (96 - height) // 2, (144 - width) // 2
    assert depth.shape == (height, width)
    assert np.array_equal(rgb, whole_rgb[top : top + height, left : left + width])
    assert depth[10, 20] == whole_depth[top + 10, left + 20]
    resized, moved = none[4]
    assert resized.shape == (*CANVAS, 3)
    assert moved[40, 56] == depth[int(40.5 * height / 80), int(56.5 * width / 112)]


def test_both_arms_are_asked_the_same_points(views):
    cache = ViewCache(views / "train", 200)
    canonical, none = (
        paired_queries(MixedCameras(cache, arm, 5), 30, LIMITS, 1) for arm in ("canonical", "none")
    )
    assert np.array_equal(canonical.truth, none.truth)
    for queries in (canonical, none):
        for view, depth, (x, y), truth in queries.samples:
            assert depth[y, x] == truth
            assert 8 <= (view == (255, 0, 0)).all(-1).sum() <= 9
    assert {view.shape for view in none.views} == {(*CANVAS, 3)}


def test_focal_runs_both_arms_and_keeps_no_state(options):
    runs = run_study(FOCAL, options, processes=False)
    blind_runs = [run for run in runs if run.arm in PREDICTORS]
    assert {frozenset(run.figures) for run in blind_runs} == {
        frozenset({"delta1", "delta1_robot", "delta1_wide"})
    }
    runs = of_arms(runs)
    assert [(run.arm, run.seed) for run in runs] == [
        (arm, s) for s in (0, 1) for arm in ("canonical", "none")
    ]
    for run in runs:
        assert set(run.figures) == set(FOCAL.figures)
        assert run.figures["samples"] == 16
        assert 0.0 <= run.figures["delta1"] <= 1.0
    assert {run.figures["image_tokens"] for run in runs if run.arm == "none"} == {35.0}
    assert not list(options.run.rglob("*.safetensors"))


# --- text from one tower ---------------------------------------------------------------------------------------


def test_arms_start_from_the_tower_of_the_base_with_new_words(options, base, views, tmp_path):
    (tmp_path / "arm").mkdir()
    config, cache = recipe(options, 5), ViewCache(views / "train", 200)
    fresh = Trainer(config, tmp_path / "arm", cache)
    start_text_stage(tmp_path / "arm" / "state.safetensors", read_base(base), fresh)
    trainer = Trainer(config, tmp_path / "arm", cache)
    assert (trainer.progress.stage, trainer.progress.step) == ("text", 0)
    wanted = load_file(str(base / "model.safetensors"))
    own = dict(trainer.model.named_parameters())
    tower = [name for name in own if name.startswith("model.visual.")]
    assert tower
    for name in tower:
        assert torch.equal(own[name], wanted[name.replace("model.visual", "visual", 1)].float()), name
    word = "model.language_model.embed_tokens.weight"
    assert torch.equal(own[word], dict(fresh.model.named_parameters())[word])
    assert not torch.equal(own[word], wanted["model.embed_tokens.weight"].float())


def test_a_base_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(EngineError, match="nowhere is not a directory"):
        read_base(tmp_path / "nowhere")


def test_the_packaged_checkpoint_is_the_base_unless_another_is_named():
    weights = load_file(str(CHECKPOINTS / "embedded" / "model.safetensors"))
    tower = read_base(None)
    assert len(tower) == sum("visual." in name for name in weights)
    norm = "visual.merger.ln_q.weight"
    assert torch.equal(tower[f"model.model.{norm}"], weights[norm].float())


def test_a_base_of_another_shape_is_refused(options, base, views, tmp_path):
    (tmp_path / "arm").mkdir()
    wider = dataclasses.replace(options, model=dataclasses.replace(TOY, vision_width=64, vision_heads=2))
    trainer = Trainer(recipe(wider, 1), tmp_path / "arm", ViewCache(views / "train", 200))
    with pytest.raises(StudyError, match="another network"):
        start_text_stage(tmp_path / "arm" / "state.safetensors", read_base(base), trainer)


def test_missing_views_are_rendered_and_other_ones_refused(options, tmp_path):
    small = dataclasses.replace(options, views=tmp_path / "fresh", train_views=200)
    render_views(small, sampler=toy_view)
    assert len(train_views(small)) == 200
    assert len(open_views(tmp_path / "fresh" / "validation_wide")) == 800
    manifest = tmp_path / "fresh" / "train" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"seed": 5}))
    with pytest.raises(StudyError, match="--views"):
        render_views(small, sampler=toy_view)
    with pytest.raises(StudyError, match="holds 200 views, 300 are needed"):
        open_views(tmp_path / "fresh" / "train", 300)


def test_reference_compares_arrow_and_coordinates(options, base):
    options = dataclasses.replace(options, seeds=1, base=base)
    marker, text = of_arms(run_study(reference.REFERENCE, options, processes=False))
    assert (marker.arm, text.arm) == ("marker", "text")
    for run in (marker, text):
        assert set(run.figures) == set(reference.REFERENCE.figures)
    assert text.figures["own_tokens"] < marker.figures["own_tokens"]
    assert text.figures["shared_tokens"] > 48  # the image among them
    assert text.figures["prefill_of_96"] < marker.figures["prefill_of_96"] / 2


def test_labels_render_views_of_their_own_and_teach_by_text_alone(options, base):
    options = dataclasses.replace(options, seeds=1, base=base, train_views=200)
    # A tower that moved would be taught by every pixel's depth, as in stage 1.
    assert recipe(options, 0, labels_per_view=1).text.frozen_share == 1.0
    study = dataclasses.replace(labels.LABELS, prepare=lambda o: labels._prepare(o, toy_view))
    runs = of_arms(run_study(study, options, processes=False))
    assert [run.arm for run in runs] == ["1", "4", "all"]
    for run in runs:
        assert set(run.figures) == set(labels.LABELS.figures)
        assert (run.figures["views"], run.figures["passes"]) == (200, 0.08)
    manifest = json.loads((options.run / "views" / "labels" / "manifest.json").read_text())
    assert manifest["seed"] == labels.LABELS_SEED


# --- the embedded checkpoint -----------------------------------------------------------------------------------


def test_three_ways_to_answer_differ_in_what_is_decoded(options):
    arms = answer.arms_of(load_profile(CHECKPOINTS / "embedded"))
    assert (arms["sentence"].prompt_prefix, arms["sentence"].stop) == ("", ())
    assert (arms["prefix"].prompt_prefix, arms["prefix"].stop) == (arms["number"].prompt_prefix, ())
    runs = run_study(answer.ANSWER, dataclasses.replace(options, seeds=1), processes=False)
    sentence, prefix, number = of_arms(runs)
    assert runs[3].figures.keys() == {"delta1"}
    assert sentence.figures["equal_numbers"] == 1.0
    # " 1", "2", ".", "4", "2", " meters": at most two digits before the point in these views.
    assert 5 <= number.figures["tokens_per_query"] <= 6
    assert number.figures["tokens_per_query"] < prefix.figures["tokens_per_query"]
    assert prefix.figures["tokens_per_query"] < sentence.figures["tokens_per_query"]
    assert sentence.figures["speed_ratio"] == 1.0
    with pytest.raises(StudyError, match="prompt_prefix"):
        answer.arms_of(dataclasses.replace(arms["number"], prompt_prefix=""))


def test_marker_reuse_is_compared_with_the_exact_way_on_the_same_pixels(options):
    study = dataclasses.replace(options, seeds=1)
    exact, near = of_arms(run_study(reuse.REUSE_STUDY, study, processes=False))
    assert exact.figures.keys() == near.figures.keys() == reuse.REUSE_STUDY.figures.keys()
    same = ("equal_numbers", "hits_lost", "hits_won", "largest_ratio", "speed_ratio")
    assert [exact.figures[name] for name in same] == [1.0, 0.0, 0.0, 1.0, 1.0]
    assert near.figures["largest_ratio"] >= 1.0
    assert (
        near.figures["speed_ratio"] == near.figures["queries_per_s"] / exact.figures["queries_per_s"] != 1.0
    )


def test_sft_and_grpo_see_equal_labels(options):
    arms = {arm: grpo.tuning(options, arm, 3) for arm in ("sft", "sft_equal_answers", "grpo")}
    assert isinstance(arms["sft"], SftConfig)
    assert isinstance(arms["grpo"], GrpoConfig)
    samples = {arm: config.run.steps * config.run.batch for arm, config in arms.items()}
    assert samples == {"sft": 16, "sft_equal_answers": 128, "grpo": 128}
    assert samples["grpo"] // arms["grpo"].group.completions == samples["sft"]
    for config in arms.values():
        assert config.data == arms["sft"].data
        assert config.augment == arms["sft"].augment
        assert config.run.seed == 3


def test_grpo_study_teaches_a_start_and_scores_before_and_after(options, base, monkeypatch):
    for name in ("accelerate", "peft", "trl"):
        pytest.importorskip(name)
    monkeypatch.setattr(grpo, "START_STEPS", 2)
    monkeypatch.setattr(grpo, "_TRAIN_IMAGES", 3)
    small = dataclasses.replace(options, seeds=1, steps=1, batch=2, queries=10, base=base)
    runs = run_study(grpo.STUDY_GRPO, small, processes=False)
    assert [run.figures.keys() for run in runs if run.arm in PREDICTORS] == [{"delta1"}] * 2
    runs = of_arms(runs)
    assert {run.arm: run.figures["labels"] for run in runs} == {"sft": 2, "grpo": 2, "sft_equal_answers": 16}
    assert len({run.figures["delta1_before"] for run in runs}) == 1
    assert all(set(run.figures) == set(grpo.STUDY_GRPO.figures) for run in runs)
    taught, tower = (load_file(folder / "model.safetensors") for folder in (grpo.start(small), base))
    moved = {name for name in tower if not torch.equal(taught[name], tower[name])}
    assert moved
    assert not [name for name in moved if "visual" in name]
    written = (grpo.start(small) / "model.safetensors").stat().st_mtime_ns
    grpo.STUDY_GRPO.prepare(dataclasses.replace(small, seeds=2))
    assert (grpo.start(small) / "model.safetensors").stat().st_mtime_ns == written
    monkeypatch.setattr(grpo, "START_STEPS", 3)
    grpo.STUDY_GRPO.prepare(small)
    assert (grpo.start(small) / "model.safetensors").stat().st_mtime_ns > written


# --- the command -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["colour"], "there is no study 'colour'; expected one of focal"),
        (["focal", "--base", "x"], "focal trains from nothing"),
        (["focal", "--views", "/dev/null"], "/dev/null/train: a part of the path is a file"),
        (["labels", "--base", "nowhere"], "nowhere"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, words, message):
    result = CliRunner().invoke(app, ["study", *words, "--run", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
