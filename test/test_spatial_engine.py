"""Spatial prompts through the transformers engine: two arrows on one image, and two images in one prompt."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny_models import FAMILIES, shared_checkpoint

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.engines.base import Prompt, PromptImage
from depthlm_ros.engines.hf_checkpoint import check_directory
from depthlm_ros.engines.hf_processor import load_encoder
from depthlm_ros.engines.transformers import TransformersEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.spatial.arrows import arrows_paint
from depthlm_ros.spatial.asking import ask_spatial
from depthlm_ros.spatial.request import SpatialRequest, SpatialStatus
from depthlm_ros.spatial.tasks import SpatialTask


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoder_of(family: str):
    path = shared_checkpoint(family)
    return load_encoder(path, check_directory(path), device=torch.device("cpu"), max_image_pixels=None)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(112, 224), (133, 171)])
def test_two_arrows_on_a_prepared_frame_equal_preparing_the_painted_image(family, size):
    base = image(*size)
    encoder = encoder_of(family)
    for targets in ([(5, 5), (160, 100)], [(80, 60), (92, 63)], [(6, 100), (160, 6)]):
        paint = arrows_paint(targets)
        shared = PromptImage(base, paint)
        ours = encoder.encode(Prompt((shared,), "How far?")).images[0]
        fresh = encoder_of(family).encode(Prompt((PromptImage(shared.pixels()),), "How far?")).images[0]
        assert torch.equal(ours, fresh), targets


@pytest.mark.parametrize("family", FAMILIES)
def test_two_frames_in_one_prompt_are_those_of_each_alone(family):
    first, second = image(112, 160), image(90, 131, 1)
    encoder = encoder_of(family)
    both = encoder.encode(Prompt((PromptImage(first), PromptImage(second)), "How far?"))
    alone = [encoder.encode(Prompt((PromptImage(one),), "How far?")) for one in (first, second)]
    assert len(both.images) == 2
    for ours, other in zip(both.images, alone, strict=True):
        assert torch.equal(ours, other.images[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_task_goes_through_a_real_model_and_ends_in_a_status(family):
    camera = PinholeCamera.from_intrinsics(100.0, 100.0, 79.5, 59.5, 160, 120)
    tasks = tuple(task.value for task in SpatialTask)
    profile = CheckpointProfile("tiny", 100.0, spatial_tasks=tasks)
    requests = [
        SpatialRequest(SpatialTask.PRINCIPAL_AXIS_DISTANCE, ((40, 30),)),
        SpatialRequest(SpatialTask.TWO_POINT_DISTANCE, ((40, 30), (100, 90))),
        SpatialRequest(SpatialTask.SPEED, ((40, 30),), seconds=4.0),
        SpatialRequest(SpatialTask.TIME, ((40, 30),), speed=6.0),
        SpatialRequest(SpatialTask.CAMERA_MOTION),
    ]
    with TransformersEngine(shared_checkpoint(family), device="cpu", dtype="float32", threads=1) as engine:
        estimator = DepthEstimator(engine, profile)
        frames = [estimator.prepare(image(120, 160, seed), camera) for seed in (0, 1)]
        for request in requests:
            used = frames if request.task is SpatialTask.CAMERA_MOTION else frames[:1]
            answer = ask_spatial(estimator, used, request)
            assert not answer.derived
            assert answer.status not in (SpatialStatus.ENGINE_ERROR, SpatialStatus.UNDRAWABLE), answer.message
            assert np.isnan(answer.value) == (answer.status is not SpatialStatus.OK)
            assert answer.text.startswith("<think> The ")
