"""Training that goes on from a checkpoint, and in the arithmetic of bfloat16."""

import dataclasses
import hashlib
import itertools
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training_toys import (  # noqa: E402, F401
    TOY,
    toy_cache,
    toy_config,
    toy_model,
    toy_tokenizer,
    toy_view,
)

from depthlm_ros.training import config as training_config  # noqa: E402
from depthlm_ros.training import stages  # noqa: E402
from depthlm_ros.training.answering import load_checkpoint  # noqa: E402
from depthlm_ros.training.augment import Limits  # noqa: E402
from depthlm_ros.training.base import base_record  # noqa: E402
from depthlm_ros.training.config import ModelConfig, TrainingConfigError  # noqa: E402
from depthlm_ros.training.embedded import prepare, view_sets, work  # noqa: E402
from depthlm_ros.training.export import export_checkpoint  # noqa: E402
from depthlm_ros.training.log import read_log  # noqa: E402
from depthlm_ros.training.losses import DepthHeads, answer_loss  # noqa: E402
from depthlm_ros.training.model import build_model  # noqa: E402
from depthlm_ros.training.stages import Trainer  # noqa: E402
from depthlm_ros.training.state import Progress, save_state  # noqa: E402
from depthlm_ros.training.studies import labels  # noqa: E402

RENDERED = {
    "held out, robot": 910_001,
    "held out, wide": 910_002,
    "static scenes": 910_003,
    "spatial questions": 717_171,
    "reference, robot": 515_151,
    "reference, wide": 616_161,
    "calibration, robot": 828_201,
    "calibration, wide": 828_202,
    "check of the calibration, robot": 828_301,
    "check of the calibration, wide": 828_302,
    "test of the shipped checkpoint, robot": 828_401,
    "test of the shipped checkpoint, wide": 828_402,
    "fine-tuning, training": 500_000,
    "fine-tuning, validation": 700_000,
    "fine-tuning, calibration": 900_000,
    "study of SFT and GRPO, training": 510_000,
    "study of SFT and GRPO, validation": 710_000,
    "example of the renderer's page": 424_242,
}
"""Seeds of `depthlm render` and `ask-eval`: scene i draws from (seed, i), so that other seeds are other scenes."""

DEPTHLM_NUMBER = re.compile(r"around (\S+) meters")
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(name="base")
def exported(tmp_path, tokenizer):
    export_checkpoint(toy_model(tokenizer), tokenizer, toy_config(), tmp_path / "base")
    return tmp_path / "base"


def test_a_run_starts_from_the_weights_of_its_base(cache, base, tmp_path):
    trainer = Trainer(toy_config(base=str(base)), tmp_path / "run", cache)
    expected = dict(load_checkpoint(base)[0].named_parameters())
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, expected[name])
    digest = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    assert base_record(str(base))["sha256"] == digest
    assert base_record("") is None


def test_a_base_that_is_missing_or_of_another_shape_is_refused(cache, base, tmp_path, tokenizer):
    with pytest.raises(TrainingConfigError, match="exported checkpoint"):
        Trainer(toy_config(base=str(tmp_path / "nowhere")), tmp_path / "run", cache)
    with pytest.raises(TrainingConfigError, match="exported checkpoint"):
        base_record(str(tmp_path / "nowhere"))
    wide = dataclasses.replace(toy_config(base=str(base)), model=dataclasses.replace(TOY, text_mlp=256))
    with pytest.raises(TrainingConfigError, match=r"holds .*mlp.*make `model`"):
        Trainer(wide, tmp_path / "run", cache)
    with torch.no_grad():
        deeper = dataclasses.replace(TOY, text_layers=2)
        export_checkpoint(build_model(deeper, tokenizer, 0), tokenizer, toy_config(), tmp_path / "deeper")
    with pytest.raises(TrainingConfigError, match=r"holds .*layers\.1.*place for"):
        Trainer(toy_config(base=str(tmp_path / "deeper")), tmp_path / "run", cache)


def test_bfloat16_arithmetic_learns_the_same_with_float32_weights(cache, tmp_path):
    losses = {}
    for arithmetic in ("float32", "bfloat16"):
        run = tmp_path / arithmetic
        run.mkdir()
        trainer = Trainer(toy_config(8, arithmetic=arithmetic), run, cache)
        trainer.train()
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
        losses[arithmetic] = [record["loss"] for record in read_log(run) if "loss" in record]
    exact, rounded = (torch.tensor(losses[name]) for name in ("float32", "bfloat16"))
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, rtol=0.03)


def test_no_scene_is_used_twice():
    """Scene seeds of every recipe and study, and of what is measured, lie apart."""
    ranges = {"labels study": (labels.LABELS_SEED, labels.LABELS_SEED + 400)}
    for name in ("train_embedded", "train_embedded_longer", "train_embedded_text"):
        config = training_config.load_training_config(REPOSITORY / "config" / f"{name}.yaml")
        assert config.model == ModelConfig()
        data = config.data
        ranges[f"{name}, training"] = (data.train_seed, data.train_seed + data.train_views)
        for view_set in view_sets(data).values():
            if view_set.name != "train":  # the recipes' common one
                ranges[view_set.name] = (view_set.seed, view_set.seed + view_set.count)
        if data.train_pairs:
            ranges["pairs"] = (data.pairs_seed, data.pairs_seed + data.train_pairs)
    names = sorted(ranges, key=lambda name: ranges[name])
    assert len(names) == 7
    for first, second in itertools.pairwise(names):
        assert ranges[first][1] <= ranges[second][0], (first, second)
    assert len(set(RENDERED.values())) == len(RENDERED)
    # A view of the training draws from its seed alone, which NumPy takes for (seed, 0).
    for rendered, seed in RENDERED.items():
        for trained, (start, end) in ranges.items():
            assert not start <= seed < end, (rendered, trained)


def test_the_seeds_that_the_pages_name_are_among_those_that_lie_apart():
    pages = [REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("config/*.yaml")]
    named = (re.findall(r"--seed (\d{4,})", page.read_text(encoding="utf-8")) for page in pages)
    assert {int(seed) for of_page in named for seed in of_page} <= set(RENDERED.values())


def test_without_a_first_stage_its_readouts_are_not_scored(tmp_path, base):
    """A base brings a tower and words: what reads the tower in training is random, and its score would be noise."""
    root = tmp_path / "views"
    config = toy_config(2, base=str(base), pixel_reference="text")
    config = dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, steps=0),
        text=dataclasses.replace(config.text, frozen_share=1.0),
        data=dataclasses.replace(config.data, train_views=200, validation_views=200, crop_share=0.0),
    )
    prepare(config, root, toy_view)
    run = tmp_path / "run"
    run.mkdir()
    work(0, 1, config, run, root)
    scored = [line for line in read_log(run) if "robot_text_delta1" in line]
    assert [line["step"] for line in scored] == [2]
    assert not [name for line in read_log(run) for name in line if "tower" in name or "pointing" in name]


def test_an_unknown_arithmetic_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("vision: {steps: 1}\ntext: {steps: 1}\narithmetic: int8\n")
    with pytest.raises(TrainingConfigError, match="float32 or bfloat16"):
        training_config.load_training_config(path)


def test_the_median_of_a_distribution_lies_within_its_bin():
    heads = DepthHeads(4, 5, Limits(1.0, 16.0))  # bins at 1, 2, 4, 8 and 16 m, each an octave wide
    even = torch.log(torch.tensor([1e-9, 0.5, 0.5, 1e-9, 1e-9]))
    assert float(heads.metres(even)) == pytest.approx(2.0 * 2.0**0.5, rel=1e-4)
    sure = torch.tensor([0.0, 0.0, 0.0, 50.0, 0.0])
    assert float(heads.metres(sure)) == pytest.approx(8.0, rel=1e-4)
    quarter = torch.log(torch.tensor([0.25, 0.5, 0.25, 1e-9, 1e-9]))
    assert float(heads.metres(quarter)) == pytest.approx(2.0, rel=1e-4)
    first = torch.tensor([50.0, 0.0, 0.0, 0.0, 0.0])
    assert float(heads.metres(first)) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_answers_teach_the_towers_median_in_their_share(cache, tmp_path, monkeypatch, share):
    taught, labels = [], []

    def watched(model, tokenizer, tokens, asked, patch_px):
        taught.extend(float(DEPTHLM_NUMBER.search(answer)[1]) for answer in asked.answers)
        labels.extend(asked.depth.target.tolist())
        return answer_loss(model, tokenizer, tokens, asked, patch_px)

    monkeypatch.setattr(stages, "answer_loss", watched)
    monkeypatch.setattr(DepthHeads, "metres", lambda self, logits: torch.full(logits.shape[:-1], 77.0))
    config = toy_config(10)
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, median_share=share))
    Trainer(config, tmp_path, cache).train()
    medians = [a for a in taught if a == 77.0]
    assert len(medians) == pytest.approx(share * len(taught), abs=0.15 * len(taught) * (share == 0.5))
    assert all(a in (77.0, pytest.approx(b, abs=0.006)) for a, b in zip(taught, labels, strict=True))


def test_a_state_older_than_an_option_counts_as_made_with_its_default(cache, tmp_path):
    config = toy_config(2)
    trainer = Trainer(config, tmp_path, cache)
    older = config.as_dict()
    del older["vision"]["median_share"], older["arithmetic"]
    tensors = {f"model.{n}": p for n, p in trainer.model.named_parameters()}
    tensors |= {f"heads.{n}": p for n, p in trainer.heads.named_parameters()}
    save_state(trainer.state_path, Progress(step=1, done=0.5), tensors, older)
    assert Trainer(config, tmp_path, cache).progress.step == 1
    with pytest.raises(TrainingConfigError, match="arithmetic was 'float32' and is 'bfloat16'"):
        Trainer(dataclasses.replace(config, arithmetic="bfloat16"), tmp_path, cache)
