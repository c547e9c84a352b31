import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training_toys import (  # noqa: E402, F401
    LIMITS,
    TOY,
    toy_cache,
    toy_config,
    toy_model,
    toy_pair,
    toy_pairs,
    toy_tokenizer,
    toy_view,
)

from depthlm_ros.canonical import CanonicalView  # noqa: E402
from depthlm_ros.engines.base import PromptImage  # noqa: E402
from depthlm_ros.profile import DEPTHLM_ANSWER, DEPTHLM_PREFIX, DEPTHLM_QUESTION  # noqa: E402
from depthlm_ros.prompting import marker_paint  # noqa: E402
from depthlm_ros.training.answering import make_processor  # noqa: E402
from depthlm_ros.training.augment import (  # noqa: E402
    Variety,
    marked_sample,
    training_batch,
    training_sample,
)
from depthlm_ros.training.losses import DepthHeads, answer_mask, cell_depths, pointed_tokens  # noqa: E402
from depthlm_ros.training.model import answer_logits, tower_tokens  # noqa: E402
from depthlm_ros.training.optim import orthogonalise  # noqa: E402
from depthlm_ros.training.patches import processor_pixel_values  # noqa: E402
from depthlm_ros.training.tokenizer import IMAGE_PAD, prompt_text  # noqa: E402

# --- tokenizer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0.1, 2.42, 12.5, 79.99])
def test_official_sentences_survive_the_tokenizer(tokenizer, depth):
    for text in (DEPTHLM_ANSWER.format(depth=depth), prompt_text(DEPTHLM_QUESTION), "Wie weit? ≈ 3 m, ok\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_prefix_number_and_stop_end_where_tokens_end(tokenizer):
    ids = tokenizer(DEPTHLM_ANSWER.format(depth=12.42))["input_ids"]
    pieces = [tokenizer.decode([i]) for i in ids]
    assert pieces[:7] == [DEPTHLM_PREFIX, " 1", "2", ".", "4", "2", " meters"]
    assert tokenizer(DEPTHLM_PREFIX)["input_ids"] == ids[:1]


def test_chat_template_renders_what_was_trained(tokenizer):
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": DEPTHLM_QUESTION}]}
    rendered = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    assert rendered == prompt_text(DEPTHLM_QUESTION)


# --- the image path --------------------------------------------------------------------------------------------


def test_patches_equal_the_image_processor():
    views = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    expected = make_processor(8)(list(views), return_tensors="pt")
    assert expected["image_grid_thw"].tolist() == [[1, 8, 12]] * 3
    assert torch.equal(processor_pixel_values(torch.from_numpy(views), 8), expected["pixel_values"])


def test_marked_sample_is_what_inference_shows_the_model():
    rgb, depth = toy_view(3, "robot")
    rgb, depth = rgb[:57, :90].copy(), depth[:57, :90]
    shown = PromptImage(rgb.copy(), marker_paint(40, 30)).pixels()
    whole = make_processor(8)([shown], return_tensors="pt")
    view, resized_depth, pixel, target = marked_sample(rgb, depth, (40, 30))
    assert view.shape == (64, 96, 3)
    assert resized_depth.shape == (64, 96)
    assert target == depth[30, 40]
    assert pixel == (43, 34)
    ours = processor_pixel_values(torch.from_numpy(view.copy())[None], 8)
    assert torch.allclose(ours, whole["pixel_values"], atol=1e-6)


def test_filled_sample_is_what_inference_shows_the_model_with_a_patch_grid():
    rgb, depth = toy_view(3, "robot")
    rgb, depth = rgb[:57, :90].copy(), depth[:57, :90]
    seen = CanonicalView(rgb, 112.0, 112.0, 112.0, patch_grid_px=16).image
    shown = PromptImage(seen.copy(), marker_paint(40, 30)).pixels()
    whole = make_processor(8)([shown], return_tensors="pt")
    view, filled_depth, pixel, target = marked_sample(rgb, depth, (40, 30), filled=True)
    assert (pixel, target) == ((40, 30), depth[30, 40])
    assert np.array_equal(filled_depth[:57, :90], depth)
    assert np.isinf(filled_depth[57:]).all()
    assert np.isinf(filled_depth[:, 90:]).all()
    ours = processor_pixel_values(torch.from_numpy(view.copy())[None], 8)
    assert torch.equal(ours, whole["pixel_values"])


def test_batched_path_equals_the_models_own_forward(tokenizer):
    model = toy_model(tokenizer)
    views = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    images = make_processor(8)(list(views.numpy()), return_tensors="pt")
    text = prompt_text(DEPTHLM_QUESTION).replace(IMAGE_PAD, IMAGE_PAD * 24) + DEPTHLM_PREFIX
    ids = tokenizer([text] * 2, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        ours = answer_logits(model, tower_tokens(model.model.visual, views), ids, (4, 6), 0)
        theirs = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
            **images,
        ).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


# --- batches and losses ----------------------------------------------------------------------------------------


def test_batches_have_one_size_and_the_pixels_depth(cache):
    batch = training_batch(
        cache, 8, LIMITS, Variety(0.5, 0.5), np.random.default_rng(4), np.random.default_rng(5)
    )
    assert batch.views.shape == (*batch.depth.shape, 3)
    assert all(side % 16 == 0 for side in batch.depth.shape[1:])
    assert torch.isfinite(batch.target).all()
    assert pointed_tokens(batch, 8).max() < batch.depth.shape[1] * batch.depth.shape[2] // 256


def test_filled_batches_hold_views_of_many_sizes_on_one_canvas(cache):
    sizes = set()
    for crop_share in (0.0, 1.0):
        batch = training_batch(
            cache,
            24,
            LIMITS,
            Variety(crop_share, 0.0, marked=False, filled=True),
            np.random.default_rng(4),
            np.random.default_rng(5),
        )
        rows, columns = batch.views.shape[1:3]
        assert (rows % 16, columns % 16) == (0, 0)
        black = (batch.views == 0).all(-1)
        heights, widths = rows - black.all(2).sum(1), columns - black.all(1).sum(1)
        assert heights.min() > rows - 16
        assert widths.min() > columns - 16
        assert (batch.pixel[:, 0] < widths).all()
        assert (batch.pixel[:, 1] < heights).all()
        sizes |= set(zip(heights.tolist(), widths.tolist(), strict=True))
    assert len(sizes) > 12


def test_views_of_nothing_but_sky_are_skipped():
    rgb, _ = toy_view(0, "wide")
    sky = np.full((64, 96), np.inf, np.float32)
    rng = np.random.default_rng(0)
    assert training_sample(rgb, sky, (64, 96), LIMITS, Variety(1.0, 1.0), rng, rng) is None


def test_only_the_answer_is_learnt(tokenizer):
    prompt = prompt_text(DEPTHLM_QUESTION)
    texts = [prompt + DEPTHLM_ANSWER.format(depth=d) + tokenizer.eos_token for d in (2.42, 12.42)]
    ids = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")["input_ids"]
    start = len(tokenizer(prompt)["input_ids"])
    mask = answer_mask(ids, torch.tensor([start, start]), tokenizer.pad_token_id)
    learnt = [tokenizer.decode(row[keep]) for row, keep in zip(ids, mask, strict=True)]
    assert learnt == [DEPTHLM_ANSWER.format(depth=d) + tokenizer.eos_token for d in (2.42, 12.42)]


def test_bins_keep_the_depth_and_cells_take_the_median():
    heads = DepthHeads(8, 48, LIMITS)
    lower, share = heads.soft_bins(torch.tensor([0.1, 1.0, 3.3, 80.0]))
    log = heads.low + (lower + share) / 47 * (heads.high - heads.low)
    assert torch.allclose(log.exp(), torch.tensor([0.1, 1.0, 3.3, 80.0]), rtol=1e-3)
    depth = torch.ones(1, 16, 32)
    depth[:, :8, 8:16] = 5.0
    depth[:, 0, 0] = math.inf
    assert cell_depths(depth, 8).tolist() == [[[1.0, 5.0, 1.0, 1.0], [1.0] * 4]]


def test_orthogonalised_updates_have_singular_values_near_one():
    values = torch.linalg.svdvals(orthogonalise(torch.randn(2, 24, 16, generator=torch.manual_seed(0))))
    assert values.min() > 0.4
    assert values.max() < 1.4
