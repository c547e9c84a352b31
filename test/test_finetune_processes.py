"""Fine-tuning on several processes: two of them on CPUs, through gloo, against one."""

import json
import os
import subprocess
import sys

import pytest
from finetune_recipes import WHOLE, records
from toy_labels import write_toy_set

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import torch.distributed as dist  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402

from depthlm_ros.training.distributed import launch  # noqa: E402
from depthlm_ros.training.finetune.config import load_recipe  # noqa: E402
from depthlm_ros.training.finetune.sft import train_sft  # noqa: E402
from depthlm_ros.training.finetune.state import load_state, save_state  # noqa: E402

RECIPE = {"recipe": "test"}
STEPS = 4


def two_layers():
    """A model with a frozen part, its optimiser, and one batch of eight."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    model[1].requires_grad_(False)
    return model, torch.randn(8, 6), torch.randn(8, 1)


def optimiser_of(model):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)


def step(model, optimiser, inputs, targets):
    loss = ((model(inputs) - targets) ** 2).mean()
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    return loss.detach()


def sharded_run(rank, workers, folder):
    """Steps of one of two processes on its half of the batch; in the middle all is saved and taken up anew."""
    os.environ["RANK"] = str(rank)
    mesh = init_device_mesh("cpu", (workers,))

    def made():
        model, inputs, targets = two_layers()
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        half = slice(4 * rank, 4 * rank + 4)
        return model, optimiser_of(model), inputs[half], targets[half]

    run, losses = made(), []
    for number in range(1, STEPS + 1):
        loss = step(*run)
        dist.all_reduce(loss)
        losses.append(float(loss) / 2)
        save_state(folder / f"{number}.safetensors", run[0], run[1], number, RECIPE)
        if number == 2:
            run = made()
            dist.barrier()
            load_state(folder / "2.safetensors", run[0], run[1])
    if rank == 0:
        (folder / "losses.json").write_text(json.dumps(losses))


def test_a_sharded_model_is_saved_whole_and_taken_up_again(tmp_path):
    launch(2, sharded_run, tmp_path)
    model, inputs, targets = two_layers()
    optimiser = optimiser_of(model)
    losses = [float(step(model, optimiser, inputs, targets)) for _ in range(STEPS)]
    assert json.loads((tmp_path / "losses.json").read_text()) == pytest.approx(losses, rel=1e-5)
    save_state(tmp_path / "whole.safetensors", model, optimiser, STEPS, RECIPE)
    whole, gathered = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / f"{STEPS}.safetensors")
    assert set(whole) == set(gathered)
    assert not [name for name in whole if name.endswith("1.weight")]  # frozen
    for name, tensor in whole.items():
        torch.testing.assert_close(gathered[name], tensor, rtol=1e-4, atol=1e-6)


def test_two_processes_take_the_steps_of_one_with_their_batches_together(tmp_path):
    recipe = {
        "recipe": "sft",
        "data": [write_toy_set(tmp_path, "toy", 4, 2)],
        "augment": WHOLE,
        "model": {"tune": "full", "arithmetic": "float32", "gradient_checkpointing": False},
        "optimiser": {"learning_rate": 1e-3, "max_grad_norm": 1.0},
        "run": {"steps": 3, "device": "cpu", "log_every": 1},
    }
    paths = {}
    for processes, batch in ((1, 4), (2, 2)):
        paths[processes] = tmp_path / f"{processes}.yaml"
        paths[processes].write_text(json.dumps(recipe | {"run": recipe["run"] | {"batch": batch}}))
    train_sft(load_recipe(paths[1]), tmp_path / "1")
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "--"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "depthlm_ros.cli", "train", paths[2], "--run", tmp_path / "2"],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (
        [(line["samples"], line["loss"], line["grad_norm"]) for line in records(tmp_path / name)]
        for name in ("1", "2")
    )
    assert [samples for samples, _, _ in one] == [4, 8, 12]
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-3)
    assert (tmp_path / "2" / "export" / "model.safetensors").is_file()
