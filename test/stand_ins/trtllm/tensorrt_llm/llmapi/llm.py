"""STANDS IN for TensorRT-LLM; see the README beside it."""

import asyncio
import os
import signal
import sys
import time
from dataclasses import fields

import numpy as np
from transformers import AutoTokenizer

from ..executor.result import GenerationResult
from ..inputs.data import TextPrompt
from ..inputs.registry import InputProcessor
from ..sampling_params import SamplingParams
from .llm_args import BaseLlmArgs, KvCacheConfig


class RequestError(RuntimeError):
    pass


class LLM:
    def __init__(self, model, trust_remote_code=False, dtype="auto", **kwargs):
        known = {spec.name for spec in fields(BaseLlmArgs)}
        for key in kwargs:
            if key not in known:
                raise ValueError(f"LLM got invalid argument: {key}")
        self.args = BaseLlmArgs(model=model, dtype=dtype, trust_remote_code=trust_remote_code, **kwargs)
        assert isinstance(self.args.kv_cache_config, KvCacheConfig)
        if os.environ.get("DEPTHLM_STAND_IN_FAULT") == "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 6.00 GiB")
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.input_processor = InputProcessor()
        print("[TensorRT-LLM] a stand-in is loaded")

    def generate_async(self, inputs, sampling_params=None, streaming=False):
        asyncio.get_running_loop()
        assert isinstance(sampling_params, SamplingParams)
        assert set(inputs) <= set(TextPrompt.__annotations__), inputs
        text, images = inputs["prompt"], inputs.get("multi_modal_data", {}).get("image", [])
        assert all(image.mode == "RGB" for image in images)
        self.input_processor.process(images)
        pause, reason = 0.0, None
        if "SEGFAULT" in text:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "EXIT" in text:
            print("terminate called", file=sys.stderr)
            os._exit(3)
        if "HANG" in text:
            time.sleep(60)
        if "MEMORY" in text:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if "LONG" in text:
            raise ValueError(
                "The sum of prompt length (9999) and query length (0) should not exceed max_num_tokens"
            )
        if "REFUSED" in text:
            raise RequestError("the executor refused it")
        if "LATE" in text:
            pause = 0.5
        busy = os.environ.get("DEPTHLM_STAND_IN_BUSY")
        if busy and images and np.asarray(images[0]).mean() > 200.0:
            with open(busy, "w") as pipe:  # a named pipe that the test reads
                pipe.write("busy")
            time.sleep(600)
        mean = np.mean([np.asarray(image).mean() for image in images]) if images else 0.0
        answer = f" {mean / 10:.2f} meters away from the camera. </think>"
        ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        reason = "stop" if len(ids) < sampling_params.max_tokens else "length"
        ids = [*ids, self.tokenizer.eos_token_id][: sampling_params.max_tokens]
        if "UNENDED" in text:
            ids, reason = ids[:3], None
        elif "ENDED ODDLY" in text:
            ids, reason = ids[:3], "content_filter"
        return GenerationResult(ids, reason, pause, plain="PLAIN" in text)

    def shutdown(self):
        print("[TensorRT-LLM] a stand-in is shut down")
