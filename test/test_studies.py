"""``depthlm study``: the rule, the runner, and every study's plumbing on a toy."""

import dataclasses
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from depthlm_ros.cli import app  # noqa: E402
from depthlm_ros.engines.factory import CHECKPOINTS  # noqa: E402
from depthlm_ros.profile import load_profile  # noqa: E402
from depthlm_ros.training.augment import Limits  # noqa: E402
from depthlm_ros.training.config import ModelConfig  # noqa: E402
from depthlm_ros.training.finetune.config import GrpoConfig, SftConfig  # noqa: E402
from depthlm_ros.training.stages import Trainer  # noqa: E402
from depthlm_ros.training.state import Progress, load_state, save_state  # noqa: E402
from depthlm_ros.training.studies import answer, grpo, labels, reference  # noqa: E402
from depthlm_ros.training.studies.cameras import (  # noqa: E402
    CANVAS,
    MixedCameras,
    crop_sizes,
    paired_queries,
)
from depthlm_ros.training.studies.focal import FOCAL  # noqa: E402
from depthlm_ros.training.studies.held_out import read_base, recipe, start_text_stage  # noqa: E402
from depthlm_ros.training.studies.registry import STUDIES  # noqa: E402
from depthlm_ros.training.studies.report import spread, write_results, write_section  # noqa: E402
from depthlm_ros.training.studies.runner import run_study  # noqa: E402
from depthlm_ros.training.studies.study import Options, Study, StudyError  # noqa: E402
from depthlm_ros.training.studies.verdict import Claim, Verdict, judge  # noqa: E402
from depthlm_ros.training.views import ViewCache, ViewSet, render_set  # noqa: E402

TOY = ModelConfig(
    vision_width=32, vision_layers=1, vision_heads=1, vision_mlp=64,
    text_width=64, text_layers=1, text_heads=2, text_mlp=128,
)  # fmt: skip
LIMITS = Limits(0.1, 80.0)


def toy_view(seed, domain):
    """Every pixel has a depth of its own, so that a depth tells which pixel it is of."""
    depth = (1.0 + np.arange(96 * 144, dtype=np.float32).reshape(96, 144) / 1024.0).astype(np.float32)
    grey = np.clip(255.0 / depth, 0, 255)[..., None]
    noise = np.random.default_rng(seed).uniform(-20, 20, (96, 144, 3))
    return np.clip(grey + noise, 0, 255).astype(np.uint8), depth


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    root = tmp_path_factory.mktemp("views")
    for name, seed in (("train", 7), ("validation_robot", 500), ("validation_wide", 900)):
        render_set(ViewSet(name, seed, 200, 0.7, 112.0), root, toy_view, 1, progress=False)
    return root


@pytest.fixture
def options(views, tmp_path):
    return Options(tmp_path / "study", 2, 2, 8, 4, views, model=TOY)


@pytest.fixture
def base(options, views, tmp_path):
    """A state at the end of stage 1."""
    folder = tmp_path / "base"
    folder.mkdir()
    config = dataclasses.replace(
        recipe(options, 99), text=dataclasses.replace(recipe(options, 99).text, steps=0)
    )
    trainer = Trainer(config, folder, ViewCache(views / "train", 200))
    trainer.train()
    _, tensors = load_state(trainer.state_path)
    save_state(trainer.state_path, Progress(stage="text"), tensors, config.as_dict())
    return trainer.state_path


# --- the rule --------------------------------------------------------------------------------------------------

BETTER = Claim("a is better", "a", "b")
NO_WORSE = Claim("a is hardly worse", "a", "b", margin=0.05)


@pytest.mark.parametrize(
    ("claim", "better", "than", "verdict"),
    [
        # Differences 0.10, 0.12, 0.14: mean 0.12, standard error 0.02 / sqrt(3) = 0.0115.
        (BETTER, (0.50, 0.52, 0.54), (0.40, 0.40, 0.40), Verdict.CONFIRMED),
        (BETTER, (0.40, 0.40, 0.40), (0.50, 0.52, 0.54), Verdict.CONTRADICTED),
        # 0.30, 0.30, -0.01: one seed disagrees.
        (BETTER, (0.70, 0.70, 0.39), (0.40, 0.40, 0.40), Verdict.NOT_CONFIRMED),
        # 0.01, 0.01, 0.20: all agree, but the mean 0.073 is below two standard errors of 0.063.
        (BETTER, (0.41, 0.41, 0.60), (0.40, 0.40, 0.40), Verdict.NOT_CONFIRMED),
        (BETTER, (0.90,), (0.10,), Verdict.NOT_CONFIRMED),
        (BETTER, (0.90, math.nan), (0.10, 0.10), Verdict.NOT_CONFIRMED),
        # -0.01, -0.02, -0.03: mean -0.02, standard error 0.0058, so above -0.0316.
        (NO_WORSE, (0.39, 0.38, 0.37), (0.40, 0.40, 0.40), Verdict.CONFIRMED),
        (NO_WORSE, (0.30, 0.31, 0.29), (0.40, 0.40, 0.40), Verdict.CONTRADICTED),
        # 0.00, -0.08: mean -0.04 with a standard error of 0.04 reaches to either side of the margin.
        (NO_WORSE, (0.40, 0.32), (0.40, 0.40), Verdict.NOT_CONFIRMED),
    ],
)
def test_the_rule_judges_by_paired_seeds(claim, better, than, verdict):
    assert judge(claim, better, than).verdict is verdict


def test_a_judgement_tells_its_numbers():
    judged = judge(BETTER, (0.50, 0.52, 0.54), (0.40, 0.40, 0.40))
    assert judged.differences == pytest.approx((0.10, 0.12, 0.14))
    assert judged.mean == pytest.approx(0.12)
    assert judged.error == pytest.approx(0.02 / math.sqrt(3))


def test_every_claim_is_about_arms_and_figures_that_exist():
    for study in STUDIES.values():
        for claim in study.claims:
            assert {claim.better, claim.than} <= set(study.arms)
            assert claim.figure in study.figures


# --- the runner ------------------------------------------------------------------------------------------------


def counting_study(calls, prepared):
    def measure(options, arms, seed, folder):
        calls.append((arms, seed))
        return {arm: {"delta1": 0.5 + 0.1 * seed + (0.2 if arm == "a" else 0.0)} for arm in arms}

    return Study(
        "toy", "Why?", {"a": "this", "b": "that"}, 3, 4, 5, "{steps} steps of {batch}", "none", {"delta1": "hits"},
        (BETTER,), prepared.append, measure,
    )  # fmt: skip


def test_finished_runs_are_kept_and_the_rest_goes_on(options):
    calls, prepared = [], []
    study = counting_study(calls, prepared)
    run_study(study, dataclasses.replace(options, seeds=1), processes=False)
    assert calls == [(("a",), 0), (("b",), 0)]
    (options.run / "runs" / "b_0" / "result.json").unlink()
    runs = run_study(study, options, processes=False)
    assert calls[2:] == [(("b",), 0), (("a",), 1), (("b",), 1)]
    assert [(run.arm, run.seed, run.figures["delta1"]) for run in runs] == [
        ("a", 0, 0.7), ("b", 0, 0.5), ("a", 1, pytest.approx(0.8)), ("b", 1, 0.6),
    ]  # fmt: skip
    assert run_study(study, options, processes=False) == runs
    assert len(calls) == 5
    assert len(prepared) == 2
    with pytest.raises(StudyError, match=r"other options \(steps\)"):
        run_study(study, dataclasses.replace(options, steps=3), processes=False)


def test_results_and_document_come_from_the_runs(options, tmp_path):
    study = counting_study([], [])
    runs = run_study(study, options, processes=False)
    text = write_results(study, options, runs, "depthlm study toy")
    assert "| a | 0.750 (0.700 to 0.800; 0.071) |" in text
    assert "**Confirmed**: a is better" in text
    record = json.loads((options.run / "results.json").read_text())
    assert record["claims"][0]["differences"] == pytest.approx([0.2, 0.2])
    assert len(record["runs"]) == 4
    document = tmp_path / "findings.md"
    document.write_text("before\n<!-- study: toy -->\n(nothing yet)\n<!-- end: toy -->\nafter\n")
    write_section(document, "toy", text)
    written = document.read_text()
    assert "(nothing yet)" not in written
    assert written.startswith("before\n<!-- study: toy -->\n`depthlm study toy`")
    assert written.endswith("<!-- end: toy -->\nafter\n")
    write_section(document, "toy", text)
    assert document.read_text() == written
    with pytest.raises(StudyError, match="study: focal"):
        write_section(document, "focal", text)


def test_what_was_not_measured_is_said():
    assert spread([0.5, math.nan]) == "0.500, 1 not measured"
    assert spread([math.nan]) == "not measured"


def test_a_failed_process_is_named_and_leaves_no_result(options):
    with pytest.raises(StudyError, match="canonical, seed 0, ended with code 1"):
        run_study(dataclasses.replace(FOCAL, prepare=print), dataclasses.replace(options, views=options.run))
    assert not list(options.run.glob("runs/*/result.json"))


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
    start_text_stage(tmp_path / "arm" / "state.safetensors", read_base(base)[1], fresh)
    trainer = Trainer(config, tmp_path / "arm", cache)
    assert (trainer.progress.stage, trainer.progress.step) == ("text", 0)
    _, wanted = load_state(base)
    own = dict(trainer.model.named_parameters())
    for name, weights in wanted.items():
        if name.startswith("model.model.visual."):
            assert torch.equal(own[name.removeprefix("model.")], weights)
    word = "model.language_model.embed_tokens.weight"
    assert torch.equal(own[word], dict(fresh.model.named_parameters())[word])
    assert not torch.equal(own[word], wanted[f"model.{word}"])


@pytest.mark.parametrize(
    ("progress", "word"),
    [(Progress(stage="done"), "stage 1"), (Progress(stage="text", step=9, done=0.5), "50%")],
)
def test_a_tower_that_text_has_moved_is_refused(tmp_path, progress, word):
    path = tmp_path / "state.safetensors"
    save_state(path, progress, {"heads.x": torch.zeros(1)}, {})
    with pytest.raises(StudyError, match=word):
        read_base(path)
    with pytest.raises(StudyError, match="after its stage 1"):
        read_base(tmp_path / "none.safetensors")


def test_a_base_of_another_shape_is_refused(options, base, views, tmp_path):
    (tmp_path / "arm").mkdir()
    wider = dataclasses.replace(options, model=dataclasses.replace(TOY, vision_width=64, vision_heads=2))
    trainer = Trainer(recipe(wider, 1), tmp_path / "arm", ViewCache(views / "train", 200))
    with pytest.raises(StudyError, match="another network"):
        start_text_stage(tmp_path / "arm" / "state.safetensors", read_base(base)[1], trainer)


def test_reference_compares_arrow_and_coordinates(options, base):
    options = dataclasses.replace(options, seeds=1, base=base)
    marker, text = run_study(reference.REFERENCE, options, processes=False)
    assert (marker.arm, text.arm) == ("marker", "text")
    for run in (marker, text):
        assert set(run.figures) == set(reference.REFERENCE.figures)
    assert text.figures["own_tokens"] < marker.figures["own_tokens"]
    assert text.figures["shared_tokens"] > 48  # the image among them
    assert text.figures["prefill_of_96"] < marker.figures["prefill_of_96"] / 2


def test_labels_render_views_of_their_own_and_teach_by_text_alone(options, base, monkeypatch):
    options = dataclasses.replace(options, seeds=1, base=base, train_views=200)
    stage = labels.sparse_recipe(options, 0, 1).text
    assert (stage.dense_weight, stage.pointed_weight, stage.pointing_weight) == (0.0, 0.0, 0.0)
    study = dataclasses.replace(labels.LABELS, prepare=lambda o: labels._prepare(o, toy_view))
    runs = run_study(study, options, processes=False)
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
    (sentence, prefix, number) = run_study(
        answer.ANSWER, dataclasses.replace(options, seeds=1), processes=False
    )
    assert sentence.figures["equal_numbers"] == 1.0
    # " 1", "2", ".", "4", "2", " meters": at most two digits before the point in these views.
    assert 5 <= number.figures["tokens_per_query"] <= 6
    assert number.figures["tokens_per_query"] < prefix.figures["tokens_per_query"]
    assert prefix.figures["tokens_per_query"] < sentence.figures["tokens_per_query"]
    assert sentence.figures["speed_ratio"] == 1.0
    with pytest.raises(StudyError, match="prompt_prefix"):
        answer.arms_of(dataclasses.replace(arms["number"], prompt_prefix=""))


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


def test_grpo_study_scores_before_and_after(options):
    for name in ("accelerate", "peft", "trl"):
        pytest.importorskip(name)
    small = dataclasses.replace(options, seeds=1, steps=1, batch=2, queries=10, train_views=3)
    runs = run_study(grpo.STUDY_GRPO, small, processes=False)
    assert {run.arm: run.figures["labels"] for run in runs} == {"sft": 2, "grpo": 2, "sft_equal_answers": 16}
    assert len({run.figures["delta1_before"] for run in runs}) == 1
    assert all(set(run.figures) == set(grpo.STUDY_GRPO.figures) for run in runs)


# --- the command -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["colour"], "there is no study 'colour'; expected one of focal"),
        (["focal", "--base", "x"], "focal trains from nothing"),
        (["focal", "--views", "nowhere"], "name the views directory"),
        (["labels", "--base", "nowhere"], "after its stage 1"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, words, message):
    result = CliRunner().invoke(app, ["study", *words, "--run", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
