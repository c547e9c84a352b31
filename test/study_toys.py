"""Toy views, a toy base and the options of a toy study."""

import numpy as np
import pytest

from depthlm_ros.training.augment import Limits
from depthlm_ros.training.config import ModelConfig
from depthlm_ros.training.export import export_checkpoint
from depthlm_ros.training.stages import Trainer
from depthlm_ros.training.studies.held_out import recipe, render_views
from depthlm_ros.training.studies.study import Options
from depthlm_ros.training.studies.trivial import PREDICTORS
from depthlm_ros.training.views import ViewCache

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


@pytest.fixture(scope="module", name="views")
def toy_views(tmp_path_factory):
    root = tmp_path_factory.mktemp("views")
    render_views(Options(root, 1, 1, 1, 1, root, train_views=200), sampler=toy_view)
    return root


@pytest.fixture(name="options")
def toy_options(views, tmp_path):
    return Options(tmp_path / "study", 2, 2, 8, 4, views, train_views=200, model=TOY)


@pytest.fixture(name="base")
def toy_base(options, views, tmp_path):
    """A checkpoint of the toy network."""
    config = recipe(options, 99)
    trainer = Trainer(config, tmp_path, ViewCache(views / "train", 200))
    export_checkpoint(trainer.model, trainer.tokenizer, config, tmp_path / "base")
    return tmp_path / "base"


def of_arms(runs):
    return [run for run in runs if run.arm not in PREDICTORS]
