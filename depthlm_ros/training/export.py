"""Write a checkpoint as a standard Hugging Face directory with its DepthLM profile."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from depthlm_ros.profile import (
    DEPTHLM_QUESTION,
    PROFILE_FILE,
    TEXT_QUESTION,
    Calibration,
    CheckpointProfile,
)
from depthlm_ros.spatial.samples import POINT_TASKS
from depthlm_ros.spatial.tasks import SpatialTask
from depthlm_ros.training.config import TrainingConfig
from depthlm_ros.training.patches import MERGE, image_processor_config
from depthlm_ros.training.questions import MARKER

EMBEDDED_NAME = "embedded"
RECORD_FILE = "training.json"
"""Holds how a checkpoint came to be."""


def embedded_profile(config: TrainingConfig, calibration: Calibration | None = None) -> CheckpointProfile:
    """How the checkpoint is asked: the official sentences at its own focal length, and what else it was taught."""
    data = config.data
    tasks = POINT_TASKS if config.direct_tasks and data.task_share > 0.0 else ()
    if config.direct_tasks and data.motion_share > 0.0:
        tasks = (*tasks, SpatialTask.CAMERA_MOTION)
    return CheckpointProfile(
        EMBEDDED_NAME,
        data.canonical_focal_px,
        pixel_reference=config.pixel_reference,
        system=None,
        question=DEPTHLM_QUESTION if config.pixel_reference == MARKER else TEXT_QUESTION,
        stop=(" meters",),
        max_new_tokens=12,
        max_depth_m=100.0,
        patch_grid_px=MERGE * config.model.patch_px if data.fill_grid else 0,
        spatial_tasks=tuple(task.value for task in tasks),
        calibration=calibration,
    )


def export_checkpoint(model: Any, tokenizer: Any, config: TrainingConfig, directory: Path) -> None:
    """Write weights (bfloat16), configuration, tokenizer, processor and profile (not yet calibrated).

    Args:
        model: The trained model in float32; it is left as it is.
        tokenizer: Its tokenizer.
        config: The recipe.
        directory: Where to; made if missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rounded = copy.deepcopy(model).to(torch.bfloat16)
    rounded.config._attn_implementation = "sdpa"
    rounded.generation_config.update(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    rounded.save_pretrained(str(directory))
    tokenizer.save_pretrained(str(directory))
    _spell_like_published_checkpoints(directory)
    _write_json(directory / "preprocessor_config.json", image_processor_config(config.model.patch_px))
    write_profile(embedded_profile(config), directory)


def _spell_like_published_checkpoints(directory: Path) -> None:
    # Readers older than transformers 5 know neither "rope_parameters" nor its tokenizer class.
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    rope = config["text_config"]["rope_parameters"]
    config["text_config"]["rope_theta"] = rope["rope_theta"]
    config["text_config"]["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    _write_json(path, config)
    path = directory / "tokenizer_config.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    _write_json(path, tokenizer)


def write_profile(profile: CheckpointProfile, directory: Path) -> None:
    """Write ``depthlm.json``."""
    _write_json(directory / PROFILE_FILE, dataclasses.asdict(profile))


def write_record(record: dict[str, Any], directory: Path) -> None:
    """Write how the checkpoint came to be."""
    _write_json(directory / RECORD_FILE, record)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
