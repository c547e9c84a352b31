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
    "whole_answer",
)
"""Ways to give a server the start of an answer: ``engines/http_dialect.py`` says what each sends."""


@dataclass(frozen=True)
class EngineConfig(Section):
    """What runs the model."""

    name: str = option("transformers", "Engine that runs the model.", choices=("transformers", "openai"))
    checkpoint: str = option(
        EMBEDDED, "Directory of a Hugging Face checkpoint, or 'embedded' for the one in this package."
    )
    profile: str = option("", "Built-in checkpoint profile to use instead of the directory's depthlm.json.")
    device: str = option("auto", "Where the model runs.", choices=("auto", "cpu", "cuda"))
    dtype: str = option("float32", "Arithmetic of the model.", choices=("float32", "bfloat16", "float16"))
    batch_size: int = option(32, "Queries that are answered at once.", low=1, high=4096)
    threads: int = option(0, "CPU threads of the model; 0 leaves the library's choice.", low=0, high=1024)
    base_urls: str = option(
        "http://127.0.0.1:8000",
        "openai: where the OpenAI-compatible servers listen, several separated by commas; all serve the same model.",
    )
    model: str = option("", "openai: name of the model, as the server's /v1/models lists it.")
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
