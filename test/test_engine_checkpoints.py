"""Directories that are no usable checkpoint are refused with a sentence that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny_models import shared_checkpoint

from depthlm_ros.engines import hf_checkpoint
from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.transformers import TransformersEngine


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared_checkpoint("qwen2_5_vl"), tmp_path / "checkpoint"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def only_pickles(path: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


def without_a_layer(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path / "model.safetensors")
    name = next(name for name in weights if "layers.1.mlp" in name)
    save_file({k: v for k, v in weights.items() if k != name}, path / "model.safetensors", {"format": "pt"})


def truncated(path: Path) -> None:
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[: len(data) // 2])


def pointer(path: Path) -> None:
    (path / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )


def index(path: Path) -> None:
    shards = {"a": "model-00001-of-00002.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (shutil.rmtree, "does not exist.*hf download"),
        (lambda p: (p / "config.json").unlink(), "no config.json"),
        (lambda p: (p / "config.json").write_text("{"), "cannot be read as JSON"),
        (only_pickles, "only as pickles .pytorch_model.bin.*save_pretrained"),
        (lambda p: (p / "model.safetensors").unlink(), "holds no weights"),
        (index, "lacks model-00001-of-00002.safetensors"),
        (pointer, "git lfs pull"),
        (truncated, "cannot be loaded"),
        (without_a_layer, "1 weights are missing"),
        (lambda p: change(p / "config.json", auto_map={"AutoModel": "m.M"}), "auto_map.*never done"),
        (
            lambda p: change(p / "tokenizer_config.json", auto_map={"AutoTokenizer": "m.M"}),
            "auto_map.*never done",
        ),
        (
            lambda p: change(p / "config.json", model_type="depthlm9"),
            "does not know the architecture.*upgrade",
        ),
        (lambda p: change(p / "config.json", model_type=None), "no model_type"),
        (
            lambda p: (p / "tokenizer.json").write_text("{"),
            "tokenizer or the image processor cannot be loaded",
        ),
        (
            lambda p: (p / "preprocessor_config.json").unlink(),
            "tokenizer or the image processor cannot be loaded",
        ),
    ],
)
def test_an_unusable_directory_is_refused(checkpoint: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(checkpoint)
    with pytest.raises(EngineError, match=says), TransformersEngine(checkpoint, device="cpu"):
        pass


def test_a_text_model_is_refused(checkpoint: Path) -> None:
    from transformers import CONFIG_MAPPING

    (checkpoint / "config.json").write_text(json.dumps(CONFIG_MAPPING["qwen2"]().to_dict()), encoding="utf-8")
    with pytest.raises(EngineError, match="no image-text-to-text model"):
        hf_checkpoint.load_config(checkpoint)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "int4"}, "dtype: expected one of float32"),
        ({"batch_size": 0}, "batch_size: expected 1 or more"),
        ({"threads": -1}, "threads: expected 0 or more"),
        ({"max_image_pixels": 0}, "max_image_pixels: expected 1 or more"),
        ({"device": "gpu"}, "device: expected auto, cpu, cuda"),
        ({"attention": "telepathy"}, "cannot be loaded.*telepathy"),
    ],
)
def test_wrong_options_are_refused_by_name(checkpoint: Path, options: dict[str, object], says: str) -> None:
    with (
        pytest.raises(EngineError, match=says),
        TransformersEngine(checkpoint, **{"device": "cpu"} | options),
    ):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_a_gpu_is_refused(checkpoint: Path, device: str) -> None:
    with pytest.raises(EngineError, match="finds no CUDA GPU"), TransformersEngine(checkpoint, device=device):
        pass


def test_running_out_of_memory_while_loading_says_so(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageTextToText

    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", refuse)
    with pytest.raises(EngineError, match=r"out of memory while loading.*smaller dtype"):
        TransformersEngine(checkpoint, device="cpu").__enter__()


@pytest.mark.parametrize(
    ("origin", "name"),
    [("facebook/DepthLM", "facebook/DepthLM"), ("/home/someone/run3", "checkpoint"), (None, "checkpoint")],
)
def test_the_name_is_the_models_own_or_the_directorys(
    checkpoint: Path, origin: str | None, name: str
) -> None:
    change(checkpoint / "config.json", _name_or_path=origin)
    assert TransformersEngine(checkpoint).model_name == f"{name} (Qwen2_5_VLForConditionalGeneration)"
