"""The parts of ``depthlm bench``: clock, ratios, the official procedure and the scripted answers."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from PIL import Image

from depthlm_ros.bench.clock import StageClock, Watch
from depthlm_ros.bench.compare import agreement, summary
from depthlm_ros.bench.contest import BenchOptions, Run
from depthlm_ros.bench.frames import BenchError, bench_camera
from depthlm_ros.bench.official import OfficialProcedure
from depthlm_ros.bench.random_checkpoint import write_random_checkpoint
from depthlm_ros.bench.report import write_section
from depthlm_ros.bench.script import SPOKEN_M, Script
from depthlm_ros.bench.shapes import SHAPES
from depthlm_ros.bench.soak import growth
from depthlm_ros.bench.sweep import growth_exponent
from depthlm_ros.canonical import CanonicalView
from depthlm_ros.engines.factory import CHECKPOINTS
from depthlm_ros.profile import DEPTHLM_ANSWER, DEPTHLM_QUESTION
from depthlm_ros.prompting import prompt_for


def test_the_clock_gives_each_second_to_one_stage():
    times = iter([0.0, 1.0, 3.0, 3.5, 4.5, 10.0, 20.0, 21.0])
    clock = StageClock(now=lambda: next(times))
    with clock.stage("engine"):  # 0 to 10
        with clock.stage("vision"):  # 1 to 3
            pass
        with clock.stage("prefill"):  # 3.5 to 4.5
            pass
    with clock.stage("parse"):  # 20 to 21
        pass
    assert dict(clock.seconds) == {"vision": 2.0, "prefill": 1.0, "engine": 7.0, "parse": 1.0}
    assert clock.total == sum(clock.seconds.values()) == 11.0


def test_what_another_thread_does_meanwhile_is_no_waiting_time():
    times = iter([0.0, 1.0, 4.0, 5.0])
    clock = StageClock(now=lambda: next(times))

    def elsewhere():
        with clock.stage("process"):
            clock.begin("vision")
            clock.end()

    with clock.stage("engine"):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert dict(clock.seconds) == {"engine": 5.0}
    assert dict(clock.beside) == {"process": 3.0}


def test_a_stage_that_fails_is_left():
    clock = StageClock()
    with pytest.raises(KeyError), clock.stage("engine"):
        raise KeyError("a bug")
    with clock.stage("parse"):
        pass
    assert clock.total == pytest.approx(clock.seconds["engine"] + clock.seconds["parse"])


def run_of(queries, wall, *, cpu=None, inside=None, first=0.0):
    inside = wall if inside is None else inside
    seconds = {"vision": inside, "other": wall - inside}
    return Run(queries, wall, cpu or wall, first, seconds, {}, 6.0, [1.0] * queries)


def test_ratios_are_medians_over_rounds_of_speed_over_the_official_speed():
    rounds = [
        {
            "official": run_of(10, 10.0, cpu=20.0),
            "marker": run_of(10, 5.0, inside=4.0),
            "text": run_of(10, 1.0),
        },
        {
            "official": run_of(10, 20.0, cpu=20.0),
            "marker": run_of(10, 5.0, inside=4.5),
            "text": run_of(10, 1.0),
        },
        {
            "official": run_of(10, 10.0, cpu=20.0),
            "marker": run_of(10, 2.0, inside=1.9),
            "text": run_of(10, 4.0),
        },
    ]
    found = summary(rounds, {"marker": 0.25, "text": 0.5})
    assert found["queries_per_s"] == {"official": 1.0, "marker": 2.0, "text": 10.0}
    assert found["ratio_per_round"] == {"marker": [2.0, 4.0, 5.0], "text": [10.0, 20.0, 2.5]}
    assert found["ratio"] == {"marker": 4.0, "text": 10.0}
    assert found["ratio_cpu"] == {"marker": 4.0, "text": 20.0}
    assert found["outside_engine_share_of"] == {"marker": pytest.approx(0.1), "text": 0.0}
    assert found["outside_engine_share"] == pytest.approx(0.1)
    assert found["stages"]["marker"]["vision"] == pytest.approx((4.0 + 4.5 + 1.9) / 3)
    assert found["stages"]["marker"]["publish"] is None
    assert found["latency_s"]["first_point"]["text"] == 0.5
    assert found["latency_s"]["last_point"]["official"] == 10.0


def test_answers_that_differ_are_not_counted_as_equal():
    official, marker = run_of(3, 1.0), run_of(3, 1.0)
    official.metres, marker.metres = [1.0, 2.5, None], [1.0, 2.6, None]
    found = agreement([{"official": official, "marker": marker}], scripted=False)
    assert (found["compared"], found["equal"]) == (3, 1)


def test_what_random_weights_would_have_said_is_compared_in_the_order_of_the_queries():
    official, marker = run_of(3, 1.0), run_of(3, 1.0)
    # Two number tokens per query; batches of 2 and 1 against one batch of 3.
    official.heard.tokens = [torch.tensor(t) for t in ([1, 2], [4, 5], [3], [6])]
    official.heard.logprobs = [torch.zeros(2), torch.zeros(2), torch.zeros(1), torch.zeros(1)]
    marker.heard.tokens = [torch.tensor([1, 2, 3]), torch.tensor([4, 9, 6])]
    marker.heard.logprobs = [torch.zeros(3), torch.tensor([0.0, 0.5, 0.0])]
    found = agreement([{"official": official, "marker": marker}], scripted=True)
    assert (found["compared"], found["equal"], found["largest_logprob_difference"]) == (6, 5, 0.5)


def test_growth_exponent_and_memory_slope():
    rows = [{"points": n, "text": {"frame_s": 2.0 * n}} for n in (512, 1, 64)]
    assert growth_exponent(rows, "text") == pytest.approx(1.0)
    assert growth_exponent(rows[:1], "text") is None
    # It grows at first, while caches fill, and by 1 MB per 100 frames from a quarter on.
    seen = [(n, 500.0 + (n - 250) / 100 if n >= 250 else n) for n in range(0, 1001, 50)]
    assert growth(seen, 1000) == {
        "warmup_mb": 500.0,
        "growth_mb": pytest.approx(7.5),
        "growth_mb_per_1000_frames": pytest.approx(10.0),
    }


def test_the_official_image_is_bit_for_bit_ours(tmp_path):
    """Written twice from the same description: resizing, rounding and arrow must come out the same."""
    camera = bench_camera(320, 240)
    image = np.random.default_rng(3).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    official = OfficialProcedure.__new__(OfficialProcedure)
    official._focal = 333.0
    view = CanonicalView(image, camera.fx, camera.fy, 333.0)
    from depthlm_ros.profile import CheckpointProfile

    profile = CheckpointProfile("test", 333.0)
    for u, v in [(20, 20), (161, 77), (300, 200), (33, 215)]:
        intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy)
        theirs = official._image(tmp_path / "image.png", intrinsics, (u, v), StageClock())
        x, y = view.to_canonical((u, v)).tolist()
        assert np.array_equal(np.asarray(theirs), prompt_for(view.image, x, y, profile).images[0].pixels())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("bench") / "tiny", SHAPES["tiny"])


def test_the_random_tokenizer_cuts_as_qwen_s_does(tiny):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    pieces = [tokenizer.decode([i]) for i in tokenizer(DEPTHLM_ANSWER.format(depth=SPOKEN_M))["input_ids"]]
    number = [" ", "3", ".", "5", "1"]
    # Qwen's own merges make two tokens of "<think"; ours, learned from these sentences, one.
    assert pieces[:12] == ["<think", ">", " The", " point", " is", " around", *number, " meters"]
    assert pieces[-8:] == [*number, " </", "answer", ">"]
    assert "".join(pieces) == DEPTHLM_ANSWER.format(depth=SPOKEN_M)


def test_a_script_says_the_whole_sentence_and_the_model_still_computes(tiny, tmp_path):
    camera = bench_camera(160, 120)
    image = np.random.default_rng(5).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    official = OfficialProcedure(tiny, DEPTHLM_QUESTION, 60.0, device="cpu", dtype="float32")
    intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy)
    pixels = [(40, 60), (80, 60), (120, 60), (60, 80)]
    clock = StageClock()
    steps = []
    with (
        official.watch as watch,
        Script(watch, official.model.lm_head, official.processor.tokenizer) as script,
    ):
        watch.clock = clock
        watch.on_step.append(lambda: steps.append(1))
        assert official.ask(tmp_path / "image.png", intrinsics, pixels, clock) == [SPOKEN_M] * 4
        assert len(steps) == 2 * (
            len(script.tokens) - 1
        )  # two batches; the first token comes with the prefill
    for stage in ("decode_image", "resize", "mark", "process", "vision", "prefill", "decode_tokens", "parse"):
        assert clock.seconds[stage] > 0.0, stage
    assert sum(clock.seconds.values()) == pytest.approx(clock.total)
    assert not official.model.lm_head._forward_hooks
    assert not official.model.model.visual._forward_pre_hooks


def test_the_official_procedure_reads_the_embedded_checkpoint_s_own_words(tmp_path):
    """Not scripted: a trained model, which ends its sentence itself."""
    camera = bench_camera(160, 120)
    image = np.random.default_rng(5).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    official = OfficialProcedure(
        CHECKPOINTS / "embedded", DEPTHLM_QUESTION, 112.0, device="cpu", dtype="float32"
    )
    intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy)
    (metres,) = official.ask(tmp_path / "image.png", intrinsics, [(80, 60)], StageClock())
    assert metres is not None
    assert 0.0 < metres < 100.0


@pytest.mark.parametrize(
    "wrong",
    [{"shape": "7b"}, {"points": 0}, {"width": 0}, {"height": -1}, {"rounds": 0}, {"batch_size": 0}],
)
def test_bad_options_are_refused_by_name(wrong):
    with pytest.raises(BenchError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        replace(BenchOptions(), **wrong)


def test_a_section_goes_between_its_marks_and_nowhere_else(tmp_path):
    path = tmp_path / "performance.md"
    path.write_text("a\n<!-- bench: soak tiny -->\nold\n<!-- end: soak tiny -->\nb\n")
    write_section(path, "soak tiny", "new\n")
    assert path.read_text() == "a\n<!-- bench: soak tiny -->\nnew\n<!-- end: soak tiny -->\nb\n"
    with pytest.raises(BenchError, match="sweep tiny"):
        write_section(path, "sweep tiny", "new")


def test_a_watch_counts_patches_and_prompt(tiny):
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny)
    with Watch(model) as watch:
        model.model.visual(
            torch.zeros(2 * 24, 3 * 2 * 14 * 14), grid_thw=torch.tensor([[1, 6, 4], [1, 4, 6]])
        )
        model(input_ids=torch.ones(1, 9, dtype=torch.int64), logits_to_keep=1)
    assert (watch.grid, watch.prompt_tokens) == ((4, 6), 9)


@pytest.mark.parametrize(
    ("shape", "kept", "step"),
    [
        ((3, 9), 1, False),
        ((3, 1), 1, True),
        ((1, 12), [3, 7, 11], False),  # three continuations one behind the other
        ((1, 3), [0, 1, 2], True),
    ],
)
def test_a_watch_tells_a_prefill_from_a_step_however_sequences_are_laid_out(tiny, shape, kept, step):
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny)
    seen = []
    with Watch(model) as watch:
        watch.on_prefill.append(lambda: seen.append(False))
        watch.on_step.append(lambda: seen.append(True))
        watch.clock = StageClock()
        keep = torch.tensor(kept) if isinstance(kept, list) else kept
        model(input_ids=torch.ones(shape, dtype=torch.int64), logits_to_keep=keep)
    assert seen == [step]
    assert set(watch.clock.seconds) == {"decode_tokens" if step else "prefill"}
