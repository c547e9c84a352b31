"""How the ``openai`` engine reaches its servers: settings that are checked before anything connects."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from depthlm_ros.config import EngineConfig
from depthlm_ros.engines.base import EngineError


@dataclass(frozen=True)
class ServerSettings:
    """Where the servers are and how they are asked; ``config_engine.py`` describes what each value means.

    Attributes:
        urls: Base URLs without a trailing ``/v1``, one per server.
        model: The model's name at the servers.
        prefix: One of ``PREFIX_WAYS``.
        image_format: ``png`` or ``jpeg``.
        jpeg_quality: 1 to 100.
        max_in_flight: Requests under way at once, over all servers.
        connect_timeout_s: Seconds to connect.
        read_timeout_s: Seconds from a request to the last byte of its answer.
        retries: How often a request is sent again.
        recovery_s: Longest time in seconds that a failing server is left alone.
        key: The key that is sent, or empty. Kept out of ``repr``.
        tls_ca_file: PEM file of an authority, or empty for the system's.
        verify_tls: Whether certificates are checked.
        checkpoint: A directory that may hold the model's tokenizer, for ``prompt_token_ids``; or None.
    """

    urls: tuple[str, ...]
    model: str
    prefix: str = "auto"
    image_format: str = "png"
    jpeg_quality: int = 95
    max_in_flight: int = 32
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 30.0
    retries: int = 2
    recovery_s: float = 5.0
    key: str = field(default="", repr=False)
    tls_ca_file: str = ""
    verify_tls: bool = True
    checkpoint: Path | None = None


def settings_from(
    config: EngineConfig, environment: Mapping[str, str], checkpoint: Path | None = None
) -> ServerSettings:
    """Check the engine's section of the configuration.

    Args:
        config: The section.
        environment: Where the key is looked up.
        checkpoint: Where the configured checkpoint lies, if anywhere.

    Raises:
        EngineError: A URL or the key is missing or wrong; the message says what to do.
    """
    key = environment.get(config.api_key_env, "") if config.api_key_env else ""
    if config.api_key_env and not key:
        raise EngineError(
            f"engine.api_key_env: the environment variable {config.api_key_env!r} is empty or not set; export the "
            "server's key under that name, or leave the option empty to send no key"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        # Not repeated in the message: it is a secret.
        raise EngineError(
            f"engine.api_key_env: what the environment variable {config.api_key_env!r} holds is no key (a space, a "
            "line break or a letter outside ASCII is in it); export the key alone"
        )
    return ServerSettings(
        urls=base_urls(config.base_urls),
        model=config.model,
        prefix=config.prefix,
        image_format=config.image_format,
        jpeg_quality=config.jpeg_quality,
        max_in_flight=config.max_in_flight,
        connect_timeout_s=config.connect_timeout_s,
        read_timeout_s=config.read_timeout_s,
        retries=config.retries,
        recovery_s=config.recovery_s,
        key=key,
        tls_ca_file=config.tls_ca_file,
        verify_tls=config.verify_tls,
        checkpoint=checkpoint,
    )


def base_urls(text: str) -> tuple[str, ...]:
    """Read comma-separated base URLs; a trailing ``/v1``, as OpenAI's own clients want it, is taken off.

    Raises:
        EngineError: There is none, or one is not a plain http or https URL.
    """
    urls = [part.strip().rstrip("/").removesuffix("/v1").rstrip("/") for part in text.split(",")]
    for url in urls:
        _check_url(url)
    if len(set(urls)) != len(urls):
        raise EngineError(f"engine.base_urls: a server is named twice in {', '.join(urls)}; name each once")
    return tuple(urls)


def _check_url(url: str) -> None:
    advice = "expected http(s)://HOST:PORT, several separated by commas"
    try:
        parts = urlsplit(url)
        port_fits = parts.port is None or parts.port > 0
    except ValueError as error:
        raise EngineError(f"engine.base_urls: {error}; {advice}") from None
    if parts.username is not None or parts.password is not None:
        # Not repeated in the message: it is a secret.
        raise EngineError(
            "engine.base_urls: a URL holds a user name or password; use engine.api_key_env instead"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_fits:
        raise EngineError(f"engine.base_urls: {advice}, got {url!r}")
    if parts.query or parts.fragment:
        raise EngineError(f"engine.base_urls: {advice}, without '?' and '#', got {url!r}")


def tls_context(settings: ServerSettings) -> ssl.SSLContext:
    """What checks the servers' certificates.

    Raises:
        EngineError: The authority's file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise EngineError(
            f"engine.tls_ca_file: {settings.tls_ca_file!r} cannot be read as PEM certificates ({error})"
        ) from None
    if not settings.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
