"""The tensorrt_llm engine end to end, with a stand-in for TensorRT-LLM in a real worker process."""

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from memory_files import new_shared_memory, shared_memory

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.config import DepthLMConfig, EngineConfig, from_flat
from depthlm_ros.engines.base import EngineError, Finish, Paint, Prompt, PromptImage
from depthlm_ros.engines.factory import CHECKPOINTS, create_engine
from depthlm_ros.engines.tensorrt_llm import TensorRTEngine, TensorRTSettings
from depthlm_ros.engines.trtllm_support import (
    check_checkpoint,
    check_release,
    parse_release,
    quantization_of,
)
from depthlm_ros.engines.worker_limits import Limits
from depthlm_ros.engines.worker_reaping import TOKEN_VARIABLE
from depthlm_ros.session import open_estimator

STAND_IN = Path(__file__).parent / "stand_ins" / "trtllm"
EMBEDDED = CHECKPOINTS / "embedded"
PREFIX = "<think> The point is around"


@pytest.fixture
def stand_in(monkeypatch):
    """Puts the stand-in where this process and the worker find it; no worker is left afterwards."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    yield monkeypatch
    mark = TOKEN_VARIABLE.encode()
    left = [p for p in Path("/proc").glob("[0-9]*/environ") if _holds(p, mark)]
    assert left == []
    assert "tensorrt_llm" not in sys.modules


def _holds(environ, mark):
    try:
        return mark in environ.read_bytes()
    except OSError:
        return False


def engine(**settings):
    limits = Limits(start_s=300.0, silence_s=300.0, first_delay_s=0.05)
    return TensorRTEngine(TensorRTSettings(EMBEDDED, **({"limits": limits} | settings)))


def prompt(question="How far?", grey=25, paint=None, prefix=PREFIX):
    base = np.full((8, 8, 3), grey, np.uint8)
    return Prompt((PromptImage(base, paint),), question, prefix=prefix)


def test_answers_crashes_and_recovery(stand_in):
    with engine() as running:
        painted = prompt(grey=0, paint=Paint(((0, 0), (1, 1)), (255, 255, 255)))
        plain, marked, text = running.generate(
            [prompt(), painted, prompt("PLAIN numbers", grey=31)], max_new_tokens=64, stop=("</think>",)
        )
        assert plain.text == " 2.50 meters away from the camera. </think>"
        assert plain.finish is Finish.STOP
        assert "".join(token.text for token in plain.tokens) == plain.text
        assert {token.logprob for token in plain.tokens} == {-0.5, -0.25}
        assert marked.text.split()[0] == f"{255 * 2 / 64 / 10:.2f}"
        assert {token.logprob for token in text.tokens} == {-0.5, -0.25}

        # The token that completes the stop string is the last one, and nothing follows it.
        (stopped,) = running.generate([prompt()], max_new_tokens=64, stop=(" meters",))
        assert stopped.text == plain.text[: plain.text.index(" meters") + len(" meters")]
        (cut,) = running.generate([prompt()], max_new_tokens=2)
        assert (cut.finish, len(cut.tokens)) == (Finish.LENGTH, 2)
        assert plain.text.startswith(cut.text)
        (whole,) = running.generate([prompt()], max_new_tokens=64)
        assert whole.text == plain.text

        long, refused, fine = running.generate(
            [prompt("LONG"), prompt("REFUSED"), prompt()], max_new_tokens=9, stop=(".",)
        )
        assert (long.finish, refused.finish, fine.finish) == (Finish.ERROR, Finish.ERROR, Finish.STOP)
        assert long.error.startswith("ValueError: The sum of prompt length")
        assert refused.error == "RequestError: the executor refused it"

        # Half a number that nobody says is whole is none, however it looks.
        for question, reason in (("UNENDED", "None"), ("ENDED ODDLY", "'content_filter'")):
            odd, whole = running.generate([prompt(question), prompt()], max_new_tokens=64, stop=(" meters",))
            assert (odd.text, odd.finish, whole.finish) == ("", Finish.ERROR, Finish.STOP)
            assert odd.error.startswith("ValueError: finish_reason: expected one of 'stop', 'length'")
            assert odd.error.endswith(f"got {reason}")
            # What the engine ends itself has no reason either, and is whole.
            (ended,) = running.generate([prompt(question)], max_new_tokens=64, stop=(" 2",))
            assert (ended.text, ended.finish) == (" 2", Finish.STOP)

        late = running.generate([prompt("LATE")], max_new_tokens=64, deadline=time.monotonic() + 1.0)
        assert [(answer.text, answer.finish) for answer in late] == [("", Finish.DEADLINE)]
        threading.Timer(0.5, running.cancel).start()
        assert running.generate([prompt("LATE")], max_new_tokens=64)[0].finish is Finish.DEADLINE

        with pytest.raises(EngineError, match="SIGSEGV"):
            running.generate([prompt("SEGFAULT")], max_new_tokens=9)
        assert running.generate([prompt()], max_new_tokens=64, stop=("</think>",)) == [plain]
        with pytest.raises(EngineError, match=r"the GPU is out of memory; lower engine.batch_size"):
            running.generate([prompt("MEMORY")], max_new_tokens=9)
        assert running.generate([prompt()], max_new_tokens=64, stop=("</think>",)) == [plain]
        details = running.details()
        assert details["tensorrt_llm"] == "1.2.0"
        assert details["worker_crashes"] == "2"
    with pytest.raises(EngineError, match="not started"):
        running.generate([prompt()], max_new_tokens=1)


def test_depth_comes_out_of_it(stand_in):
    """From the configuration to metres: the stand-in says a tenth of the image's mean."""
    k = np.array([[112.0, 0, 79.5], [0, 112.0, 63.5], [0, 0, 1]])
    camera = PinholeCamera(160, 128, k, np.zeros(5), "plumb_bob", np.eye(3), np.hstack([k, np.zeros((3, 1))]))
    values = {"engine.name": "tensorrt_llm", "engine.dtype": "bfloat16", "engine.start_timeout_s": 300.0}
    with open_estimator(from_flat(values, DepthLMConfig())) as estimator:
        frame = estimator.prepare(np.full((128, 160, 3), 25, np.uint8), camera)
        found = estimator.ask(frame, [[80, 60], [30, 40], [0, 0]])
    assert found.depth[:2].tolist() == [2.5, 2.5]
    assert np.isnan(found.depth[2])
    assert np.isfinite(found.confidence[:2]).all()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("import", r"tensorrt_llm cannot be imported by .*libcuda.so.1"),
        ("memory", r"CUDA out of memory"),
        ("no_hashes", r"does not hash images.*engine.block_reuse false"),
    ],
)
def test_a_start_that_fails_says_why(stand_in, fault, says):
    stand_in.setenv("DEPTHLM_STAND_IN_FAULT", fault)
    with pytest.raises(EngineError, match=says), engine():
        pass


def test_without_block_reuse_hashes_are_not_needed(stand_in):
    stand_in.setenv("DEPTHLM_STAND_IN_FAULT", "no_hashes")
    with engine(block_reuse=False) as running:
        assert running.generate([prompt()], max_new_tokens=64)[0].text.startswith(" 2.50")


def test_an_old_release_is_refused(stand_in):
    stand_in.setenv("DEPTHLM_STAND_IN_VERSION", "0.21.0")
    with pytest.raises(EngineError, match=r"0\.21\.0 is too old.*install 1\.0"), engine():
        pass


def test_without_tensorrt_llm_the_way_out_is_named():
    with pytest.raises(EngineError, match=r"not installed for this Python.*engine\.worker_python"), engine():
        pass


def test_a_worker_python_that_is_none_is_refused():
    with (
        pytest.raises(EngineError, match=r"/no/python.*check engine\.worker_python"),
        engine(worker_python="/no/python"),
    ):
        pass


def test_the_factory_makes_it_from_the_configuration():
    made = create_engine(EngineConfig(name="tensorrt_llm", dtype="bfloat16", block_reuse=False))
    assert isinstance(made, TensorRTEngine)
    assert made.model_name.endswith("(Qwen2_5_VLForConditionalGeneration)")
    assert made.details() == {"dtype": "bfloat16", "block_reuse": "false"}


def test_the_factory_refuses_a_cpu():
    with pytest.raises(EngineError, match="'cpu' but TensorRT-LLM runs on a GPU only"):
        create_engine(EngineConfig(name="tensorrt_llm", dtype="bfloat16", device="cpu"))


@pytest.fixture
def checkpoint(tmp_path):
    """A directory that looks like a checkpoint of the architecture that is given."""

    def make(config, **files):
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        (tmp_path / "c").mkdir()
        (tmp_path / "c" / "model.safetensors").write_bytes(b"")
        for name, record in {"config": {"model_type": "x", **config}, **files}.items():
            (tmp_path / "c" / f"{name}.json").write_text(json.dumps(record))
        return tmp_path / "c"

    return make


def check(path, dtype="bfloat16", quantization="auto"):
    return check_checkpoint(path, dtype=dtype, quantization=quantization)


QWEN = {"architectures": ["Qwen2_5_VLForConditionalGeneration"]}


def test_pixtral_is_refused_with_the_way_out(checkpoint):
    llava = {"architectures": ["LlavaForConditionalGeneration"], "vision_config": {"model_type": "pixtral"}}
    with pytest.raises(EngineError, match=r"Pixtral.*vllm serve.*engine\.name openai"):
        check(checkpoint(llava))


def test_what_it_cannot_run_is_refused(checkpoint):
    with pytest.raises(EngineError, match=r"is a GPT2LMHeadModel.*Qwen2_5_VL"):
        check(checkpoint({"architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(EngineError, match=r"'float32'; set engine\.dtype bfloat16"):
        check(checkpoint(QWEN), dtype="float32")


@pytest.mark.parametrize(
    ("config", "own", "found"),
    [
        ({}, {}, "none"),
        ({}, {"quantization": {"quant_algo": "FP8"}}, "fp8"),
        ({}, {"quantization": {"quant_algo": "NVFP4"}}, "nvfp4"),
        ({}, {"quantization": {"quant_algo": "W4A16_AWQ"}}, "awq"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}, {}, "fp8"),
        ({"quantization_config": {"quant_method": "gptq"}}, {}, "gptq"),
    ],
)
def test_quantised_checkpoints(checkpoint, config, own, found):
    path = checkpoint(QWEN | config, hf_quant_config=own)
    assert quantization_of(path, QWEN | config) == found
    check(path)
    wanted = found if found in ("none", "fp8", "nvfp4", "awq") else "auto"
    check(path, quantization=wanted)
    other = "fp8" if found != "fp8" else "nvfp4"
    with pytest.raises(EngineError, match=f"engine.quantization is '{other}' but .* is '{found}'"):
        check(path, quantization=other)


def test_releases():
    assert parse_release("1.0.0") == (1, 0)
    assert parse_release("1.2.0rc2") == (1, 2)
    qwen2, qwen3 = "Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration"
    assert check_release(qwen2, "1.0.0") == ""
    assert check_release(qwen3, "1.3.0rc1") == ""
    assert "newer than what was read" in check_release(qwen2, "2.0.0")
    with pytest.raises(EngineError, match="does not run Qwen3VL"):
        check_release(qwen3, "1.0.0")
    with pytest.raises(EngineError, match="got 'unknown'"):
        parse_release("unknown")


def test_no_shared_memory_has_a_name(stand_in):
    before = shared_memory()
    with engine() as running:
        running.generate([prompt()], max_new_tokens=1)
        assert not new_shared_memory(before)
