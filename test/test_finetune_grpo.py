"""GRPO through TRL on the embedded checkpoint."""

import dataclasses
import os

import pytest
from finetune_recipes import records, small_recipe
from toy_labels import write_toy_set

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402
from tiny_models import shared_checkpoint  # noqa: E402

from depthlm_ros.config import ConfigError  # noqa: E402
from depthlm_ros.engines.base import EngineError  # noqa: E402
from depthlm_ros.engines.factory import CHECKPOINTS  # noqa: E402
from depthlm_ros.profile import load_profile  # noqa: E402
from depthlm_ros.training.finetune.config import GrpoConfig, ModelConfig, SftConfig  # noqa: E402
from depthlm_ros.training.finetune.data import TrainingSamples  # noqa: E402
from depthlm_ros.training.finetune.grpo import train_grpo  # noqa: E402
from depthlm_ros.training.finetune.model import open_base  # noqa: E402
from depthlm_ros.training.finetune.reward import DepthReward  # noqa: E402
from depthlm_ros.training.finetune.rollouts import rollout_processor, rollout_rows  # noqa: E402

EMBEDDED = CHECKPOINTS / "embedded"
END = 258


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy_set(tmp_path_factory.mktemp("toy"), "toy", 8, 4)


def recipe(toy, **sections):
    run = {"steps": 5, "batch": 8, "log_every": 1, "save_every": 2}
    sections["run"] = run | sections.get("run", {})
    return small_recipe(
        GrpoConfig, [toy], **({"group": {"completions": 4}, "optimiser": {"learning_rate": 1e-4}} | sections)
    )


@pytest.mark.parametrize(
    ("text", "complete", "reward"),
    [
        (" 2.42 meters", True, -0.58),
        (" 2.42 meters away and 9 more", False, -0.58),  # the engine stops at the stop string
        (" 3", True, 0.0),
        (" 99.0 meters", True, -10.0),  # no error counts more than no answer
        (" far away meters", True, -10.0),
        (" -2 meters", True, -10.0),
        ("", True, -10.0),
        (" 2.4", False, -10.0),  # cut: the number may go on
    ],
)
def test_the_reward_is_minus_the_error_in_metres(text, complete, reward):
    scorer = DepthReward(load_profile(EMBEDDED), 10.0, frozenset({END}))
    ids = [7, END] if complete else [7, 8]
    conversation = [{"role": "assistant", "content": text}]
    (got,) = scorer(completions=[conversation], completion_ids=[ids], metres=[3.0])
    assert got == pytest.approx(reward)


@pytest.mark.parametrize("family", ["embedded", "qwen2_5_vl", "qwen3_vl"])
def test_rollouts_are_asked_what_the_engine_asks(toy, tmp_path, family):
    if family == "embedded":
        model = ModelConfig()
    else:
        from finetune_recipes import write_profile

        model = ModelConfig(
            checkpoint=str(shared_checkpoint(family)), profile=write_profile(tmp_path / "profile")
        )
    base = open_base(model)
    crops = {"crop_width_px": [70, 128], "crop_height_px": [60, 96]}
    samples = TrainingSamples(recipe(toy, augment=crops), base.profile, 8)
    rows = rollout_rows(samples, 3)
    assert len(rows) == 5
    chosen = [rows[0], rows[1]]
    assert [row["metres"] for row in chosen] == [samples[3].metres, samples[4].metres]
    made = rollout_processor(base).apply_chat_template(
        [row["prompt"] for row in chosen],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        padding=True,
        return_tensors="pt",
    )
    fed = base.encoder.batch([base.encoder.encode(samples[i].prompt) for i in (3, 4)])
    assert set(made) == set(fed)
    for name in fed:
        assert torch.equal(made[name].long() if made[name].dtype == torch.int32 else made[name], fed[name])


def test_five_steps_move_the_weights_and_log_the_reward(toy, tmp_path):
    config = recipe(toy, validation={**toy, "limit": 2, "every": 5}, group={"completions": 4})
    export = train_grpo(config, tmp_path)
    lines = records(tmp_path)
    rewards = [line for line in lines if "reward" in line]
    assert [line["step"] for line in rewards] == [1, 2, 3, 4, 5]
    assert [line["samples"] for line in rewards] == [2, 4, 6, 8, 10]
    assert all(-10.0 <= line["reward"] <= 0.0 for line in rewards)
    assert [line["step"] for line in lines if "delta1" in line] == [0, 5]
    before, after = load_file(EMBEDDED / "model.safetensors"), load_file(export / "model.safetensors")
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert sorted(os.listdir(tmp_path)) == ["curve.png", "export", "metrics.jsonl", "state.safetensors"]


def test_an_interrupted_run_goes_on(toy, tmp_path):
    class InterruptedRunError(Exception):
        pass

    def stop(step):
        if step == 3:
            raise InterruptedRunError

    config = recipe(toy, model={"tune": "lora", "lora_rank": 2})
    straight = load_file(train_grpo(config, tmp_path / "straight") / "model.safetensors")
    with pytest.raises(InterruptedRunError):
        train_grpo(config, tmp_path / "again", on_step=stop)
    taken = []
    again = load_file(train_grpo(config, tmp_path / "again", on_step=taken.append) / "model.safetensors")
    assert taken == [3, 4, 5]
    assert all(torch.equal(straight[key], again[key]) for key in straight)
    kept = ("step", "samples", "reward", "grad_norm")
    one, other = (
        [[line[key] for key in kept] for line in records(tmp_path / name)] for name in ("straight", "again")
    )
    assert one == other


def test_sft_and_grpo_see_the_same_samples(toy):
    profile = load_profile(EMBEDDED)
    grpo, sft = recipe(toy), small_recipe(SftConfig, [toy])
    one, other = TrainingSamples(grpo, profile, 10), TrainingSamples(sft, profile, 10)
    for index in range(10):
        assert one.plan[index] == other.plan[index]
        assert one[index].xy == other[index].xy
        assert dataclasses.replace(one[index].prompt, images=()).question == other[index].prompt.question


def test_what_cannot_be_run_is_refused(toy, tmp_path):
    with pytest.raises(ConfigError, match=r"no multiple of group\.completions"):
        recipe(toy, run={"batch": 6})
    from finetune_recipes import write_profile

    pixtral = {
        "checkpoint": str(shared_checkpoint("pixtral")),
        "profile": write_profile(tmp_path / "profile"),
    }
    with pytest.raises(EngineError, match="use recipe sft"):
        rollout_processor(open_base(ModelConfig(**pixtral)))
