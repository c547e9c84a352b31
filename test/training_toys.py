"""A toy view, a toy model and a cache of toy views, for the tests of the embedded checkpoint's training."""

import dataclasses

import numpy as np
import pytest
import torch

from depthlm_ros.spatial.motion import CameraMotion
from depthlm_ros.training.augment import Limits
from depthlm_ros.training.config import ModelConfig, StageConfig, TrainingConfig
from depthlm_ros.training.model import build_model
from depthlm_ros.training.pairs import PairCache, render_pairs
from depthlm_ros.training.tokenizer import build_tokenizer
from depthlm_ros.training.views import ViewCache, ViewSet, render_set

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


@pytest.fixture(scope="module", name="cache")
def toy_cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("views")
    return ViewCache(render_set(ViewSet("toy", 7, 200, 0.7, 112.0), root, toy_view, 1, progress=False), 200)


@pytest.fixture(scope="module", name="tokenizer")
def toy_tokenizer():
    return build_tokenizer()


def toy_model(tokenizer):
    """An untrained model in which no weight is left at zero, so that every part of it shows in the outcome."""
    model = build_model(TOY, tokenizer, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    return model


def toy_config(steps=20, **changes):
    stage = StageConfig(steps, batch=16, warmup_steps=3, evaluate_every=10_000)
    text = dataclasses.replace(stage, frozen_share=0.35, tower_lr_share=0.3)
    return TrainingConfig(vision=stage, text=text, model=TOY, workers=1, **changes)


def toy_pair(seed, domain):
    first, _ = toy_view(seed, domain)
    return first, first[:, ::-1].copy(), CameraMotion([0.1 * (seed % 10), 0.0, 0.5], [0.0, 2.0, 0.0])


@pytest.fixture(scope="module", name="pairs")
def toy_pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    render_pairs(folder, 40, 100, 112.0, toy_pair, 1)
    return PairCache(folder, 100)
