"""Answers prompts through TensorRT-LLM's LLM API. Runs inside a worker process only; nothing else here imports it.

Every symbol, keyword and field of TensorRT-LLM that is used stands in ``test/data/trtllm_facts.json`` with the
source that it was read in.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from depthlm_ros.engines.base import Answer, EngineError, Finish, Prompt, PromptImage
from depthlm_ros.engines.hf_chat import ChatText, chat_template
from depthlm_ros.engines.trtllm_support import check_release, end_ids
from depthlm_ros.engines.trtllm_text import StreamedAnswer
from depthlm_ros.engines.worker_main import BackendLostError, run_worker

_FINISH = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "timeout": Finish.DEADLINE,
    "cancelled": Finish.DEADLINE,
}


class TensorRTBackend:
    """A :class:`worker_main.Backend` on ``tensorrt_llm.LLM``."""

    def __init__(self) -> None:
        self._llm: Any = None
        self._tokenizer: Any = None
        self._block_reuse = False

    def load(self, settings: dict[str, Any]) -> dict[str, str]:
        """Load the checkpoint that ``settings`` names; see :class:`worker_main.Backend`."""
        try:
            import tensorrt_llm
            from tensorrt_llm import LLM
            from tensorrt_llm.llmapi import KvCacheConfig
        except ImportError as error:
            raise EngineError(
                f"tensorrt_llm cannot be imported by {sys.executable} ({error}); `depthlm engine check` says what "
                "is missing"
            ) from error
        from transformers import AutoTokenizer

        version = str(tensorrt_llm.__version__)
        remark = check_release(settings["architecture"], version)
        checkpoint = Path(settings["checkpoint"])
        self._tokenizer = AutoTokenizer.from_pretrained(
            checkpoint, local_files_only=True, trust_remote_code=False
        )
        self._chat = ChatText(self._tokenizer, chat_template(checkpoint, self._tokenizer))
        self._ends = end_ids(checkpoint, self._tokenizer)
        self._block_reuse = bool(settings["block_reuse"])
        self._llm = LLM(
            model=str(checkpoint),
            dtype=settings["dtype"],
            trust_remote_code=False,
            max_batch_size=settings["batch_size"],
            kv_cache_config=KvCacheConfig(
                enable_block_reuse=self._block_reuse, free_gpu_memory_fraction=settings["memory_fraction"]
            ),
        )
        facts = {"tensorrt_llm": version, "python": sys.version.split()[0], "worker_python": sys.executable}
        return facts | ({"remark": remark} if remark else {})

    async def warm_up(self) -> None:
        """Ask about a grey image, and see whether images are told apart in the cache.

        Where TensorRT-LLM cannot hash images it warns and goes on; blocks of one image would then serve for another.

        Raises:
            EngineError: Block reuse is on but images are not told apart.
        """
        grey = PromptImage(np.full((112, 112, 3), 128, np.uint8))
        await self.answer(Prompt((grey,), "What is this?"), 1, ())
        if (
            self._block_reuse
            and getattr(self._llm.input_processor, "multimodal_hashing_supported", None) is not True
        ):
            raise EngineError(
                "this release of TensorRT-LLM does not hash images, so that with block reuse it would answer for one "
                "image from the cache of another; set engine.block_reuse false, or install a newer release"
            )

    async def answer(self, prompt: Prompt, max_new_tokens: int, stop: Sequence[str]) -> Answer:
        """Answer one prompt greedily; see :class:`worker_main.Backend`."""
        from PIL import Image
        from tensorrt_llm import SamplingParams
        from tensorrt_llm.llmapi import RequestError

        text = self._chat.render(prompt)
        inputs: dict[str, Any] = {"prompt": text}
        if prompt.images:
            inputs["multi_modal_data"] = {
                "image": [Image.fromarray(image.pixels()) for image in prompt.images]
            }
        # Without temperature, top_k and top_p every release decodes greedily; a top_k of 1 would make
        # releases that truncate before they normalise report a probability of 1 for every token.
        sampling = SamplingParams(
            max_tokens=max_new_tokens,
            stop=list(stop) or None,
            include_stop_str_in_output=True,
            logprobs=1,
            add_special_tokens=self._chat.adds_special_tokens(text),
        )
        context = self._tokenizer(text[-200:], add_special_tokens=False)["input_ids"]
        answer = StreamedAnswer(self._tokenizer, context, ends=self._ends, stop=stop)
        result: Any = None
        try:
            result = self._llm.generate_async(inputs, sampling_params=sampling, streaming=True)
            async for step in result:
                output = step.outputs[0]
                if answer.take(output.token_ids or (), output.logprobs):
                    break
            return answer.answer(Finish.STOP if answer.stopped else _finish(result.outputs[0].finish_reason))
        except (RequestError, ValueError, TypeError):
            raise  # of this prompt alone
        except Exception as error:
            raise BackendLostError(_explain(error)) from error
        finally:
            if result is not None and not result.finished:
                result.abort()

    def close(self) -> None:
        """Free the GPU, and end what TensorRT-LLM started."""
        if self._llm is not None:
            self._llm.shutdown()


def _finish(reason: object) -> Finish:
    """What ended an answer that was not ended here; a reason that nobody knows may stand for half an answer."""
    if reason not in _FINISH:
        raise ValueError(f"finish_reason: expected one of {', '.join(map(repr, _FINISH))}, got {reason!r}")
    return _FINISH[str(reason)]


def _explain(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    if "out of memory" in text.lower():
        return f"the GPU is out of memory; lower engine.batch_size or engine.memory_fraction, or free memory ({text})"
    return text


def main() -> None:
    """Run the worker; its last argument is the number of the channel's descriptor."""
    sys.exit(run_worker(TensorRTBackend(), int(sys.argv[-1])))
