"""STANDS IN for TensorRT-LLM; see the README beside it."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class SamplingParams:
    max_tokens: int = 32
    stop: list[str] | None = None
    include_stop_str_in_output: bool = False
    logprobs: int | None = None
    add_special_tokens: bool = True
