"""The engine's section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from depthlm_ros.config_options import Section, option

EMBEDDED = "embedded"
"""The value of ``engine.checkpoint`` that names the checkpoint inside this package."""


@dataclass(frozen=True)
class EngineConfig(Section):
    """What runs the model."""

    name: str = option("transformers", "Engine that runs the model.", choices=("transformers",))
    checkpoint: str = option(
        EMBEDDED, "Directory of a Hugging Face checkpoint, or 'embedded' for the one in this package."
    )
    profile: str = option("", "Built-in checkpoint profile to use instead of the directory's depthlm.json.")
    device: str = option("auto", "Where the model runs.", choices=("auto", "cpu", "cuda"))
    dtype: str = option("float32", "Arithmetic of the model.", choices=("float32", "bfloat16", "float16"))
    batch_size: int = option(32, "Queries that are answered at once.", low=1, high=4096)
    threads: int = option(0, "CPU threads of the model; 0 leaves the library's choice.", low=0, high=1024)
