import re

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

from depthlm_ros.profile import DEPTHLM_PREFIX  # noqa: E402
from depthlm_ros.synthetic import Domain, Intrinsics, sample_view  # noqa: E402
from depthlm_ros.training.answering import make_processor  # noqa: E402
from depthlm_ros.training.augment import (  # noqa: E402
    Variety,
    training_batch,
)
from depthlm_ros.training.config import (  # noqa: E402
    StageConfig,
)
from depthlm_ros.training.model import answer_logits, tower_tokens  # noqa: E402
from depthlm_ros.training.optim import MuonAdamW, NamedParameters  # noqa: E402
from depthlm_ros.training.pairs import PairCache, render_pairs  # noqa: E402
from depthlm_ros.training.questions import depth_questions, motion_questions, task_questions  # noqa: E402
from depthlm_ros.training.tokenizer import IMAGE_PAD, prompt_text  # noqa: E402
from depthlm_ros.training.views import synthetic_camera  # noqa: E402

# --- questions -------------------------------------------------------------------------------------------------


def still_camera(index):
    return Intrinsics(112.0, 112.0, 45.0, 30.0, 96, 64)


def test_few_labels_per_view_are_few(cache):
    asked = set()
    for step in range(40):
        rng = np.random.default_rng(step)
        batch = training_batch(cache, 8, LIMITS, Variety(0.0, 0.0, labels_per_view=1), rng, rng)
        asked |= {tuple(pixel) for pixel in batch.pixel.tolist()}
    assert len(asked) <= 2 * len(cache)  # 320 were drawn; one label each for a view and its mirror image
    repeated = Variety(0.0, 0.0, labels_per_view=1)
    again = [
        training_batch(cache, 8, LIMITS, repeated, np.random.default_rng(1), np.random.default_rng(1))
        for _ in range(2)
    ]
    assert torch.equal(again[0].pixel, again[1].pixel)


def test_text_questions_name_the_pixel_and_paint_nothing(cache):
    rng = np.random.default_rng(8)
    batch = training_batch(cache, 8, LIMITS, Variety(0.0, 0.0, marked=False), rng, rng)
    asked = depth_questions(batch, "text")
    assert asked.views.shape == (8, 1, *batch.views.shape[1:])
    height, width = batch.depth.shape[1:]
    for view, question, answer, (x, y), depth in zip(
        batch.views, asked.questions, asked.answers, batch.pixel.tolist(), batch.depth, strict=True
    ):
        named = [int(word) for word in re.search(r"\((\d+), (\d+)\)", question).groups()]
        assert named == [round(x * 2000 / width), round(y * 2000 / height)]
        assert f"<answer> {depth[y, x]:.2f} </answer>" in answer
        assert not (view == torch.tensor([255, 0, 0])).all(-1).any()


def test_point_tasks_are_asked_about_marked_views_of_one_size(cache):
    kinds = set()
    for step in range(12):
        rng = np.random.default_rng(step)
        asked = task_questions(cache, still_camera, 3, LIMITS, Variety(0.0, 0.5), rng, rng)
        assert asked.views.shape == (3, 1, 64, 96, 3)
        assert asked.depth is None
        red = (asked.views == torch.tensor([255, 0, 0], dtype=torch.uint8)).all(-1)
        arrows = 2 if "2 red arrows" in asked.questions[0] else 1
        # Two arrows may cross; what the views hold of pure red is none.
        assert all((1 if arrows == 1 else 1.4) * 9 <= int(view.sum()) <= 9 * arrows for view in red)
        kinds.add(asked.questions[0].split("?")[0][:60])
    assert len(kinds) >= 3


def test_pairs_come_back_as_rendered(pairs, tmp_path):
    first, second, motion = pairs[13]
    expected = toy_pair(53, "wide")
    assert np.array_equal(first, expected[0])
    assert np.array_equal(second, expected[1])
    assert np.allclose(motion.translation, [0.3, 0.0, 0.5])
    asked = motion_questions(pairs, 4, Variety(0.0, 0.0), np.random.default_rng(0), np.random.default_rng(1))
    assert asked.views.shape == (4, 2, 64, 96, 3)
    with pytest.raises(ValueError, match="fewer than 200"):
        PairCache(tmp_path, 200)
    render_pairs(tmp_path, 1, 0, 112.0, toy_pair, 1)
    with pytest.raises(ValueError, match="another folder"):
        render_pairs(tmp_path, 2, 0, 112.0, toy_pair, 1)


def test_two_images_go_through_as_in_the_models_own_forward(tokenizer):
    model = toy_model(tokenizer)
    views = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    images = make_processor(8)(list(views.numpy()), return_tensors="pt")
    text = prompt_text("How far?", 2).replace(IMAGE_PAD, IMAGE_PAD * 24) + DEPTHLM_PREFIX
    ids = tokenizer([text], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        tokens = tower_tokens(model.model.visual, views).reshape(1, 48, -1)
        ours = answer_logits(model, tokens, ids, (4, 6), 0)
        theirs = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
            **images,
        ).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_cameras_of_cached_views_are_those_that_rendered_them():
    for seed, domain in ((3, Domain.ROBOT), (4, Domain.WIDE)):
        view = sample_view(seed, domain, focal_px=112.0)
        assert synthetic_camera(seed, domain.value, 112.0) == view.intrinsics


def test_weights_stay_bounded_however_long_the_training():
    layer = torch.nn.Linear(16, 16)
    stage = StageConfig(steps=10**9, muon_lr=0.05, muon_decay=0.5, warmup_steps=1)
    optimiser = MuonAdamW([NamedParameters(dict(layer.named_parameters()))], stage)
    for step in range(400):
        layer.weight.grad = torch.eye(16)  # always the same way: the worst case
        optimiser.step(step, 0.0)
    # An orthogonalised update has singular values of at most about 1.2.
    assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) < 1.25 / stage.muon_decay
