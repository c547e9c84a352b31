"""Supervised fine-tuning from end to end on tiny models."""

import json

import numpy as np
import pytest
from finetune_recipes import records, small_recipe, write_profile
from tiny_models import shared_checkpoint
from toy_labels import write_toy_set

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytest.importorskip("peft")

from safetensors import safe_open  # noqa: E402

from depthlm_ros.config import ConfigError, DepthLMConfig, EngineConfig  # noqa: E402
from depthlm_ros.engines.factory import CHECKPOINTS  # noqa: E402
from depthlm_ros.evaluation import evaluate, read_benchmark  # noqa: E402
from depthlm_ros.evaluation.benchmark import BenchmarkError  # noqa: E402
from depthlm_ros.profile import Calibration, load_profile  # noqa: E402
from depthlm_ros.session import open_estimator  # noqa: E402
from depthlm_ros.training.finetune.config import SftConfig  # noqa: E402
from depthlm_ros.training.finetune.sft import train_sft  # noqa: E402


class InterruptedRunError(Exception):
    pass


def interrupt_at(last):
    def on_step(step):
        if step == last:
            raise InterruptedRunError

    return on_step


def tensors(path):
    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy_set(tmp_path_factory.mktemp("toy"), "toy", 12, 6)


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """Fifty steps on the embedded checkpoint."""
    run = tmp_path_factory.mktemp("sft")
    config = small_recipe(
        SftConfig,
        [toy | {"labels_per_image": 4}],
        augment={"crop_width_px": [80, 128], "crop_height_px": [64, 96]},
        validation={**toy, "limit": 3, "every": 50},
        run={"steps": 50, "batch": 8, "log_every": 5, "save_every": 50},
    )
    return run, train_sft(config, run)


def test_fifty_steps_lower_the_loss_and_raise_delta1(trained):
    run, _ = trained
    lines = records(run)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    before, after = (line["delta1"] for line in lines if "delta1" in line)
    assert after > before
    assert [line["samples"] for line in lines if "loss" in line] == list(range(40, 401, 40))
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_export_is_a_checkpoint_and_answers_as_validation_said(trained, toy):
    from pathlib import Path

    run, export = trained
    options = DepthLMConfig(engine=EngineConfig(checkpoint=str(export), device="cpu", dtype="float32"))
    samples = read_benchmark(Path(toy["labels"]), Path(toy["images"]), limit=3)
    with open_estimator(options) as estimator:
        assert estimator.profile.calibration is None
        measured = evaluate(estimator, samples, max_megapixels=1.0).metrics()
    # The export is rounded to bfloat16, which may change a digit of one of the 18 answers.
    (_, after) = (line["delta1"] for line in records(run) if "delta1" in line)
    assert measured["delta1"] == pytest.approx(after, abs=1.01 / 18)
    assert json.loads((export / "training.json").read_text())["recipe"]["recipe"] == "sft"
    base = json.loads((CHECKPOINTS / "embedded" / "config.json").read_text())
    assert json.loads((export / "config.json").read_text()) == base


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_run_that_was_interrupted_ends_bit_for_bit_as_one_that_was_not(toy, tmp_path, tune):
    profile = write_profile(tmp_path / "profile")
    config = small_recipe(
        SftConfig,
        [toy],
        model={
            "checkpoint": str(shared_checkpoint("qwen2_5_vl")),
            "profile": profile,
            "tune": tune,
            "lora_rank": 4,
            "lora_dropout": 0.2 if tune == "lora" else 0.0,
            "gradient_checkpointing": True,
        },
        run={"steps": 20, "batch": 1, "accumulate": 2, "save_every": 5, "log_every": 5},
    )
    straight = train_sft(config, tmp_path / "straight")
    # The last state before the interruption is that of step 10; steps 11 and 12 are taken again.
    with pytest.raises(InterruptedRunError):
        train_sft(config, tmp_path / "again", on_step=interrupt_at(12))
    taken = []
    again = train_sft(config, tmp_path / "again", on_step=taken.append)
    assert taken == list(range(11, 21))
    for name in ("state.safetensors", "export/model.safetensors"):
        one, other = tensors(tmp_path / "straight" / name), tensors(tmp_path / "again" / name)
        assert set(one) == set(other)
        assert all(torch.equal(one[key], other[key]) for key in one)
    stripped = [
        [{k: v for k, v in line.items() if k != "seconds_per_step"} for line in records(path.parent)]
        for path in (straight, again)
    ]
    assert stripped[0] == stripped[1]
    changed = tensors(straight / "model.safetensors")
    before = tensors(shared_checkpoint("qwen2_5_vl") / "model.safetensors")
    assert set(changed) == set(before)
    assert any(not torch.equal(changed[key].float(), before[key].bfloat16().float()) for key in before)


def test_a_finished_run_is_only_exported_again(toy, tmp_path):
    knots = Calibration((0.1, 0.9), (0.2, 0.8), (0.5, 0.1))
    profile = write_profile(tmp_path / "profile", spatial_tasks=("speed",), calibration=knots)
    config = small_recipe(SftConfig, [toy], model={"profile": profile}, run={"steps": 2})
    export = train_sft(config, tmp_path)
    # Neither was measured on, nor trained with, the new weights.
    made = load_profile(export)
    assert (made.name, made.spatial_tasks, made.calibration) == ("tiny", (), None)
    first = tensors(export / "model.safetensors")
    taken = []
    second = tensors(train_sft(config, tmp_path, on_step=taken.append) / "model.safetensors")
    assert taken == []
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_does_not_go_on_with_other_options(toy, tmp_path):
    train_sft(small_recipe(SftConfig, [toy], run={"steps": 2}), tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"other options \(optimiser\.learning_rate was 0\.001 and is 0\.002\).*another --run",
    ):
        train_sft(
            small_recipe(SftConfig, [toy], run={"steps": 2}, optimiser={"learning_rate": 2e-3}), tmp_path
        )


def test_a_validation_image_that_cannot_be_used_is_named(toy, tmp_path):
    held = write_toy_set(tmp_path, "held", 3, 1)
    (tmp_path / "held" / "1.png").write_bytes(b"no picture")
    config = small_recipe(SftConfig, [toy], validation=held, run={"steps": 1})
    with pytest.raises(
        BenchmarkError, match=r"1 of 3 images cannot be used.*held/1\.png.*take their lines out"
    ):
        train_sft(config, tmp_path / "run")


def test_a_frozen_tower_stays_and_the_rest_moves(toy, tmp_path):
    config = small_recipe(SftConfig, [toy], model={"freeze_vision": True}, run={"steps": 2})
    after = tensors(train_sft(config, tmp_path) / "model.safetensors")
    before = tensors(CHECKPOINTS / "embedded" / "model.safetensors")
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert not {key for key in moved if "visual" in key}
    assert {key for key in moved if "layers" in key}


@pytest.mark.parametrize("family", ["qwen3_vl", "pixtral"])
def test_other_families_train_too(toy, tmp_path, family):
    config = small_recipe(
        SftConfig,
        [toy],
        model={
            "checkpoint": str(shared_checkpoint(family)),
            "profile": write_profile(tmp_path / "profile"),
            "tune": "lora",
            "lora_rank": 2,
        },
        run={"steps": 2},
    )
    export = train_sft(config, tmp_path / "run")
    assert all(np.isfinite(line["loss"]) for line in records(tmp_path / "run"))
    before = tensors(shared_checkpoint(family) / "model.safetensors")
    assert set(tensors(export / "model.safetensors")) == set(before)
