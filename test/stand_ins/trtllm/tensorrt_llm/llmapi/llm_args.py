"""STANDS IN for TensorRT-LLM; see the README beside it."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class KvCacheConfig:
    enable_block_reuse: bool = True
    free_gpu_memory_fraction: float | None = None


@dataclass(kw_only=True)
class BaseLlmArgs:
    model: str
    dtype: str = "auto"
    trust_remote_code: bool = False
    max_batch_size: int | None = None
    kv_cache_config: KvCacheConfig = field(default_factory=KvCacheConfig)
