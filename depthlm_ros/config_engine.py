"""The engine's section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from depthlm_ros.config_options import Section, option

EMBEDDED = "embedded"
"""The value of ``engine.checkpoint`` that names the checkpoint inside this package."""

PREFIX_WAYS = (
    "auto",
    "continue_final_message",
    "chat_template_kwargs",
    "assistant_message",
    "prompt_token_ids",
    "whole_answer",
)
"""Ways to give a server the start of an answer: ``engines/http_dialect.py`` says what each sends."""


@dataclass(frozen=True)
class EngineConfig(Section):
    """What runs the model."""

    name: str = option(
        "transformers", "Engine that runs the model.", choices=("transformers", "openai", "tensorrt_llm")
    )
    checkpoint: str = option(
        EMBEDDED,
        "Directory of a Hugging Face checkpoint, or 'embedded' for the one in this package; openai: of the one that "
        "is served, so that prompts can be rendered here.",
    )
    profile: str = option("", "Built-in checkpoint profile to use instead of the directory's depthlm.json.")
    device: str = option("auto", "Where the model runs.", choices=("auto", "cpu", "cuda"))
    dtype: str = option("float32", "Arithmetic of the model.", choices=("float32", "bfloat16", "float16"))
    batch_size: int = option(
        32,
        "The most queries that are answered at once; transformers reads fewer images at once on a CPU.",
        low=1, high=4096,
    )  # fmt: skip
    threads: int = option(0, "CPU threads of the model; 0 leaves the library's choice.", low=0, high=1024)
    marker_reuse: bool = option(
        False,
        "transformers: whether only what is near the arrow is read anew for each query: quicker, and not exact "
        "(docs/marker-reuse.md); Qwen2.5-VL checkpoints only.",
    )
    base_urls: str = option(
        "http://127.0.0.1:8000",
        "openai: where the OpenAI-compatible servers listen, several separated by commas; all serve the same model.",
    )
    model: str = option(
        "",
        "openai: name of the model, as the server's /v1/models lists it, or the path that `transformers serve` was "
        "started with.",
    )
    prefix: str = option(
        "auto",
        "openai: how the start of the answer is given to the server; 'auto' finds out when the engine starts.",
        choices=PREFIX_WAYS,
    )
    image_format: str = option(
        "png", "openai: how images are sent; png changes no pixel, jpeg is smaller.", choices=("png", "jpeg")
    )
    jpeg_quality: int = option(95, "openai: quality of jpeg images.", low=1, high=100)
    max_in_flight: int = option(32, "openai: requests under way at once, over all servers.", low=1, high=1024)
    connect_timeout_s: float = option(
        3.0, "openai: longest time to connect to a server.", unit="s", low=0.01, high=600.0
    )
    read_timeout_s: float = option(
        30.0, "openai: longest time from a request to the last byte of its answer.",
        unit="s", low=0.01, high=3600.0,
    )  # fmt: skip
    retries: int = option(
        2, "openai: how often a request is sent again when the server was busy or lost.", low=0, high=10
    )
    recovery_s: float = option(
        5.0, "openai: longest time that a failing server is left alone before it is tried again.",
        unit="s", low=0.1, high=600.0,
    )  # fmt: skip
    api_key_env: str = option(
        "", "openai: environment variable that holds the server's key; empty sends no key."
    )
    tls_ca_file: str = option(
        "",
        "openai: PEM file of the authority that signed the server's certificate; empty takes the system's.",
    )
    verify_tls: bool = option(True, "openai: whether the certificate of an https server is checked.")
    worker_python: str = option(
        "",
        "tensorrt_llm: the python of the virtual environment that has TensorRT-LLM; empty takes this one.",
    )
    quantization: str = option(
        "auto",
        "tensorrt_llm: what the checkpoint is quantised to; 'auto' takes it as it is, others refuse another one.",
        choices=("auto", "none", "fp8", "nvfp4", "awq"),
    )
    memory_fraction: float = option(
        0.5, "tensorrt_llm: share of the GPU memory left beside the model that its cache takes.",
        low=0.01, high=0.95,
    )  # fmt: skip
    block_reuse: bool = option(
        True, "tensorrt_llm: whether prompts that begin alike, with the same image, share its cache."
    )
    start_timeout_s: float = option(
        600.0, "tensorrt_llm: longest time until the model is loaded.", unit="s", low=1.0, high=7200.0
    )
    silence_s: float = option(
        30.0,
        "tensorrt_llm: a worker process that gives no sign of life, or no answer while it works, for this long is "
        "ended and started anew.",
        unit="s", low=1.0, high=600.0,
    )  # fmt: skip
    restarts: int = option(
        5, "tensorrt_llm: how often in a row a crashed worker process is started anew.", low=0, high=100
    )
