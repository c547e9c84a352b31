"""The inputs that the transformers engine makes are those of the checkpoint's own processor."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny_models import FAMILIES, QWEN_TEMPLATE, shared_checkpoint

from depthlm_ros.engines.base import EngineError, Paint, Prompt, PromptImage
from depthlm_ros.engines.hf_checkpoint import check_directory
from depthlm_ros.engines.hf_processor import AssembledEncoder, load_encoder
from depthlm_ros.engines.hf_resample import WindowResampler, pillow_resampler

CPU = torch.device("cpu")
PREFIX = "<think> The point is around"
ARROW = ((-5, 0), (-4, 0), (-3, 0), (-2, 0), (-1, 0), (-2, -1), (-2, 1), (-3, -2), (-3, 2))
# Multiples of the patch, odd sizes, larger than Pixtral's 1024, smaller than Qwen's fewest pixels.
SIZES = ((112, 224), (133, 171), (90, 1100), (31, 45))


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def arrow_at(x: int, y: int) -> Paint:
    return Paint(tuple((x + dx, y + dy) for dx, dy in ARROW), (255, 0, 0))


def encoder_of(family: str, **options: Any) -> AssembledEncoder:
    path = shared_checkpoint(family)
    encoder = load_encoder(
        path, check_directory(path), device=CPU, max_image_pixels=options.get("max_image_pixels")
    )
    assert isinstance(encoder, AssembledEncoder)
    return encoder


def conversations() -> list[Prompt]:
    first, second = image(90, 130), image(60, 100, 1)
    question = "How far is the point pointed by the red arrow from the camera?"
    return [
        Prompt((PromptImage(first),), question, prefix=PREFIX),
        Prompt((PromptImage(second),), question, system="You are a helpful assistant.", prefix=PREFIX),
        Prompt((PromptImage(first), PromptImage(second)), "naïve café\n 東京?", image_first=False),
    ]


def why_no_processor() -> str:
    """Why ``AutoProcessor`` cannot be loaded here, or nothing."""
    if importlib.util.find_spec("torchvision") is None:
        return "AutoProcessor of these models needs torchvision, which is not installed"
    try:
        import torchvision  # noqa: F401
    except Exception as error:  # a build for another torch fails in its own ways
        return f"AutoProcessor needs torchvision, which does not load here: {error}"
    return ""


def own_processor_inputs(path: Path, prompt: Prompt, backend: str) -> dict[str, torch.Tensor]:
    """What the checkpoint's own processor makes of a prompt, by its documented calls alone."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoProcessor

    processor = AutoProcessor.from_pretrained(path)
    processor.image_processor = AutoImageProcessor.from_pretrained(path, backend=backend)
    pictures = [{"type": "image", "image": Image.fromarray(i.pixels())} for i in prompt.images]
    text = {"type": "text", "text": prompt.question, "content": prompt.question}
    content = [*pictures, text] if prompt.image_first else [text, *pictures]
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    rendered = processor.apply_chat_template(
        [*system, {"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    bos = processor.tokenizer.bos_token
    inputs = processor(
        text=[rendered + prompt.prefix],
        images=[picture["image"] for picture in pictures],
        add_special_tokens=not (bos and rendered.startswith(bos)),
        return_tensors="pt",
    )
    return {name: torch.as_tensor(value) for name, value in inputs.items()}


@pytest.mark.skipif(bool(why_no_processor()), reason=why_no_processor())
@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_equal_those_of_auto_processor(family: str) -> None:
    encoder = encoder_of(family)
    for size in SIZES:
        prompts = [*conversations(), Prompt((PromptImage(image(*size), arrow_at(20, 20)),), "How far?")]
        for prompt in prompts:
            ours = encoder.batch([encoder.encode(prompt)])
            theirs = own_processor_inputs(shared_checkpoint(family), prompt, "pil")
            assert {n for n in theirs if n != "token_type_ids"} == set(ours)
            for name, value in ours.items():
                assert torch.equal(value, theirs[name].to(value.dtype)), (name, size)


@pytest.mark.skipif(bool(why_no_processor()), reason=why_no_processor())
@pytest.mark.parametrize("family", FAMILIES)
def test_the_torchvision_variant_differs_by_rounding_only(family: str) -> None:
    encoder = encoder_of(family)
    for size in SIZES:
        prompt = Prompt((PromptImage(image(*size)),), "How far?")
        ours = encoder.batch([encoder.encode(prompt)])
        theirs = own_processor_inputs(shared_checkpoint(family), prompt, "torchvision")
        assert torch.equal(ours["input_ids"], theirs["input_ids"])
        levels = (ours["pixel_values"] - theirs["pixel_values"]).abs() * 0.28 * 255
        assert levels.max() < 1.5, (size, levels.max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES)
def test_repainting_a_prepared_frame_equals_preparing_the_painted_image(
    family: str, size: tuple[int, int]
) -> None:
    from transformers import AutoImageProcessor

    base = image(*size)
    untouched = base.copy()
    encoder = encoder_of(family)
    reference = AutoImageProcessor.from_pretrained(shared_checkpoint(family), backend="pil")
    rng = np.random.default_rng(3)
    places = [(5, 5), (size[1] - 6, size[0] - 6), (5, size[0] - 6)]
    places += [(int(rng.integers(5, size[1] - 5)), int(rng.integers(5, size[0] - 5))) for _ in range(8)]
    paints = [
        None,
        *(arrow_at(x, y) for x, y in places),
        Paint(((0, 0), (size[1] - 1, size[0] - 1)), (0, 9, 255)),
    ]
    for paint in paints:
        shown = PromptImage(base, paint)
        ours = encoder.batch([encoder.encode(Prompt((shown,), "How far?"))])
        theirs = reference(shown.pixels(), return_tensors="pt")
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"]), paint
    assert np.array_equal(base, untouched)


@pytest.mark.parametrize(
    ("size", "out"),
    [
        ((80, 107), (84, 112)),
        ((90, 110), (56, 84)),
        ((64, 64), (64, 84)),
        ((31, 45), (84, 112)),
        ((300, 50), (28, 56)),
    ],
)
def test_a_resampled_window_is_that_of_pillow(size: tuple[int, int], out: tuple[int, int]) -> None:
    from PIL import Image

    shown = image(*size) // 255 * 255  # black and white overshoots and is clipped
    whole = np.asarray(Image.fromarray(shown).resize(out[::-1], Image.Resampling.BICUBIC))
    window = pillow_resampler(size, out)
    assert window is not None
    assert np.array_equal(window.resample(shown, slice(0, out[0]), slice(0, out[1])), whole)
    changed = shown.copy()
    changed[20:23, 30:41] ^= 255
    rows, columns = window.touched(20, 23, 30, 41)
    repainted = whole.copy()
    repainted[rows, columns] = window.resample(changed, rows, columns)
    assert np.array_equal(
        repainted, np.asarray(Image.fromarray(changed).resize(out[::-1], Image.Resampling.BICUBIC))
    )


def test_a_pillow_that_rounds_otherwise_is_noticed_and_used_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    base, encoder = image(134, 172), encoder_of("qwen2_5_vl")
    prompt = Prompt((PromptImage(base, arrow_at(50, 50)),), "How far?")
    expected = encoder.encode(prompt).images[0]
    encoder = encoder_of("qwen2_5_vl")
    pillow_resampler.cache_clear()
    monkeypatch.setattr(WindowResampler, "resample", lambda self, i, r, c: np.zeros((1, 1, 3), np.uint8))
    assert pillow_resampler((134, 172), (140, 168)) is None
    assert torch.equal(encoder.encode(prompt).images[0], expected)
    pillow_resampler.cache_clear()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frame_is_prepared_once_for_all_its_prompts(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(family)
    bases = [image(133, 171), image(90, 130)]
    resized: list[int] = []
    real = encoder._images._resize
    monkeypatch.setattr(encoder._images, "_resize", lambda i: (resized.append(id(i)), real(i))[1])
    for _ in range(2):
        for base in bases:
            for x in (20, 50, 80):
                encoder.encode(Prompt((PromptImage(base, arrow_at(x, 40)),), "How far?"))
    assert resized.count(id(bases[0])) == resized.count(id(bases[1])) == 1
    for base in (image(70, 80), bases[0]):  # a third frame displaces the oldest
        encoder.encode(Prompt((PromptImage(base),), "How far?"))
    assert resized.count(id(bases[0])) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_is_tokenised_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(family)
    base, calls = image(112, 224), []
    real = encoder._chat.adds_special_tokens
    monkeypatch.setattr(encoder._chat, "adds_special_tokens", lambda t: (calls.append(t), real(t))[1])
    for prefix in ("", PREFIX):
        for x in (20, 50, 80):
            encoder.encode(Prompt((PromptImage(base, arrow_at(x, 40)),), "How far?", prefix=prefix))
    assert len(calls) == 2


def test_texts_read_as_the_checkpoints_were_trained() -> None:
    base = PromptImage(image(64, 64))
    qwen, pixtral = encoder_of("qwen2_5_vl"), encoder_of("pixtral")
    prompt = Prompt((base,), "How far?", prefix=PREFIX)
    assert qwen._chat.render(prompt) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|>How far?<|im_end|>\n<|im_start|>assistant\n" + PREFIX
    )
    assert pixtral._chat.render(prompt) == "<s>[INST][IMG]How far?[/INST]" + PREFIX
    assert pixtral._chat.render(replace(prompt, system="Be brief.", image_first=False)) == (
        "<s>[INST]Be brief.\n\nHow far?[IMG][/INST]" + PREFIX
    )
    ids = pixtral.encode(prompt).ids
    assert ids.count(pixtral.tokenizer.bos_token_id) == 1
    assert pixtral.tokenizer.decode(ids).count("[IMG]") == 16
    assert pixtral.tokenizer.decode(ids).count("[IMG_BREAK]") == 3
    assert pixtral.tokenizer.decode(ids).count("[IMG_END]") == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_max_image_pixels_bounds_what_the_model_sees(family: str) -> None:
    encoder = encoder_of(family, max_image_pixels=20_000)
    for size in SIZES:
        height, width = encoder._images.prepare(PromptImage(image(*size))).shape[1:]
        assert height * width <= 20_000
        assert abs(np.log((height / width) / (size[0] / size[1]))) < 0.6


@pytest.mark.parametrize(
    "place", ["chat_template.json", "chat_template.jinja", "processor_config.json", "tokenizer"]
)
def test_the_chat_template_is_found_wherever_checkpoints_keep_it(tmp_path: Path, place: str) -> None:
    path = shutil.copytree(shared_checkpoint("qwen2_5_vl"), tmp_path / "copy")
    (path / "chat_template.json").unlink()
    if place == "chat_template.jinja":
        (path / place).write_text(QWEN_TEMPLATE, encoding="utf-8")
    elif place == "tokenizer":
        record = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        record["chat_template"] = QWEN_TEMPLATE
        (path / "tokenizer_config.json").write_text(json.dumps(record), encoding="utf-8")
    else:
        (path / place).write_text(json.dumps({"chat_template": QWEN_TEMPLATE}), encoding="utf-8")
    encoder = load_encoder(path, check_directory(path), device=CPU, max_image_pixels=None)
    assert isinstance(encoder, AssembledEncoder)
    prompt = conversations()[1]
    assert encoder.encode(prompt).ids == encoder_of("qwen2_5_vl").encode(prompt).ids


def test_a_checkpoint_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    path = shutil.copytree(shared_checkpoint("pixtral"), tmp_path / "copy")
    (path / "chat_template.json").unlink()
    with pytest.raises(EngineError, match="no chat template"):
        load_encoder(path, check_directory(path), device=CPU, max_image_pixels=None)
