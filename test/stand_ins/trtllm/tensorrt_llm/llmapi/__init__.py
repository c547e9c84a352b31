"""STANDS IN for TensorRT-LLM; see the README beside it."""

from .llm import LLM, RequestError
from .llm_args import KvCacheConfig

__all__ = ["LLM", "KvCacheConfig", "RequestError"]
