"""``depthlm train``: which recipe runs, and what is refused."""

import importlib.util
from pathlib import Path

import pytest
import yaml
from toy_labels import write_toy_set
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.config import ConfigError
from depthlm_ros.training.finetune.config import GrpoConfig, SftConfig, load_recipe

CONFIG = Path(__file__).parents[1] / "config"
RUNNER = CliRunner()


def refused(*arguments):
    result = RUNNER.invoke(app, ["train", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


@pytest.fixture
def recipe(tmp_path):
    record = {
        "recipe": "sft",
        "data": [write_toy_set(tmp_path, "toy", 2, 2)],
        "augment": {"crop_width_px": [0, 0], "crop_height_px": [0, 0]},
        "model": {"tune": "full", "arithmetic": "float32", "gradient_checkpointing": False},
        "run": {"steps": 2, "batch": 1, "device": "cpu", "log_every": 1},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(record))
    return path


@pytest.mark.parametrize(
    "path", sorted(CONFIG.glob("train_sft_*.yaml")) + sorted(CONFIG.glob("train_grpo_*.yaml"))
)
def test_the_recipes_of_the_repository_are_valid(path):
    assert isinstance(load_recipe(path), SftConfig if "_sft_" in path.name else GrpoConfig)


def test_there_are_recipes_for_what_the_documentation_names():
    names = {path.name for path in CONFIG.glob("*.yaml")}
    text = (CONFIG.parent / "docs" / "training.md").read_text(encoding="utf-8")
    for name in ("train_sft_3b.yaml", "train_sft_3b_lora.yaml", "train_sft_7b.yaml", "accelerate_fsdp.yaml"):
        assert name in names
        assert name in text


def test_sft_and_grpo_of_the_embedded_checkpoint_see_equal_labels():
    sft, grpo = (load_recipe(CONFIG / f"train_{kind}_embedded.yaml") for kind in ("sft", "grpo"))
    labels = grpo.run.steps * grpo.run.batch * grpo.run.accumulate // grpo.group.completions
    assert labels == sft.run.steps * sft.run.batch * sft.run.accumulate
    assert (sft.data, sft.augment, sft.run.seed) == (grpo.data, grpo.augment, grpo.run.seed)
    assert sft.model == grpo.model


def test_unknown_keys_are_refused_by_name(recipe):
    assert "optimiser: unknown keys ['lr']" in refused(recipe, "--set", "optimiser.lr=1")
    assert "unknown keys ['modell']" in refused(recipe, "--set", "modell.tune=full")
    assert "data.0: unknown keys ['wait']" in refused(recipe, "--set", "data.0.wait=1")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("recipe=dpo", "expected one of embedded, sft, grpo, got 'dpo'"),
        ("run.steps=0", "run: steps: expected a number from 1"),
        ("run.steps=many", "steps: expected a whole number"),
        ("model.tune=half", "expected one of lora, full"),
        ("model.weights=bfloat16", "too coarse"),
        ("model={tune: lora, weights: bfloat16, arithmetic: float32}", "needs float32 weights"),
        ("augment.crop_width_px=[9,3]", "least, most"),
        ("data=[]", "list of one data set or more"),
        ("data.3.weight=2", "expected a number below 1"),
        ("data.0.weight=0", "weight: expected a number from"),
        ("validation.labels=x", "give both labels and images"),
        ("run", "expected key=value"),
    ],
)
def test_what_does_not_fit_is_refused(recipe, setting, said):
    assert said in refused(recipe, "--set", setting)


def test_a_file_without_a_recipe_and_no_file_are_refused(tmp_path):
    (tmp_path / "none.yaml").write_text("data: []\n")
    assert "recipe: expected one of" in refused(tmp_path / "none.yaml")
    assert "expected a recipe as YAML, but there is no" in refused(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("[1]\n")
    assert "expected a mapping" in refused(tmp_path / "list.yaml")


def test_settings_go_over_the_file(recipe):
    config = load_recipe(recipe, ["optimiser.learning_rate=2e-5", "data.0.weight=3", "run.seed=7"])
    assert config.optimiser.learning_rate == 2e-5
    assert config.data[0].weight == 3.0
    assert config.run.seed == 7
    with pytest.raises(ConfigError, match="is a value, not a section"):
        load_recipe(recipe, ["run.steps.more=1"])


def test_what_is_not_installed_is_named(recipe, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "depthlm_ros.cli_train.find_spec", lambda name: None if name == "peft" else real(name)
    )
    said = refused(recipe)
    assert "needs peft" in said
    assert "depthlm_ros[train]" in said


def test_an_embedded_recipe_goes_to_its_own_training(tmp_path, monkeypatch):
    embedded = pytest.importorskip("depthlm_ros.training.embedded")
    called = []
    monkeypatch.setattr(embedded, "train", lambda *arguments: called.append(arguments) or Path("made"))
    path = tmp_path / "scratch.yaml"
    path.write_text("recipe: embedded\n")
    result = RUNNER.invoke(app, ["train", str(path), "--run", str(tmp_path / "run"), "--views", "cache"])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == "made"
    assert called == [(path, tmp_path / "run", Path("cache"), None)]
    assert "write the option into the file" in refused(path, "--set", "seed=1")


def test_views_are_for_the_embedded_recipe(recipe):
    assert "--views is for recipe embedded" in refused(recipe, "--views", "cache")


def test_a_run_from_the_command_line_leaves_a_checkpoint(recipe, tmp_path):
    pytest.importorskip("accelerate")
    pytest.importorskip("peft")
    result = RUNNER.invoke(app, ["train", str(recipe), "--run", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "run" / "export") in result.output
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()
