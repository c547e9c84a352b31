"""Whether each engine can run as configured: what is there, what is missing, what to do. Starts no engine."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata

from depthlm_ros.config_engine import EngineConfig
from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.check_machine import (
    Driver,
    PythonFacts,
    jetson,
    read_driver,
    read_python,
    weights_gib,
)
from depthlm_ros.engines.factory import resolve_checkpoint
from depthlm_ros.engines.hf_checkpoint import check_directory
from depthlm_ros.engines.trtllm_support import check_checkpoint, check_release

ENGINES = ("transformers", "openai", "tensorrt_llm")


@dataclass(frozen=True)
class Finding:
    """One thing that an engine needs.

    Attributes:
        there: Whether it is there; None where that cannot be said, or does not matter.
        text: What was found, or what is missing and what to do.
    """

    there: bool | None
    text: str


def can_run(findings: list[Finding]) -> bool:
    """Whether nothing that is needed is missing."""
    return all(finding.there is not False for finding in findings)


def check_engine(name: str, config: EngineConfig) -> list[Finding]:
    """Look at what one engine needs.

    Args:
        name: One of :data:`ENGINES`.
        config: The engine's section; its ``name`` is not looked at.
    """
    checks: dict[str, Callable[[EngineConfig], Iterator[Finding]]] = {
        "transformers": _transformers,
        "openai": _openai,
        "tensorrt_llm": _tensorrt_llm,
    }
    return list(checks[name](replace(config, name=name)))


def _package(name: str, least: int, advice: str) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(False, f"{name} is not installed: {advice}")
    if int(version.split(".", 1)[0]) < least:
        return Finding(False, f"{name} {version} is older than {least}: {advice}")
    return Finding(True, f"{name} {version}")


def _gpu_findings(driver: Driver, *, needed: bool) -> Iterator[Finding]:
    if driver.problem:
        advice = ": install NVIDIA's driver and check `nvidia-smi`; in a container, start it with --gpus all"
        yield Finding(False if needed else None, driver.problem + (advice if needed else ""))
    for gpu in driver.gpus:
        assert driver.cuda is not None
        yield Finding(
            True,
            f"{gpu.name}, {gpu.memory_gib:.0f} GiB, compute capability {gpu.capability[0]}.{gpu.capability[1]}, "
            f"driver for CUDA {driver.cuda[0]}.{driver.cuda[1]}",
        )


def _transformers(config: EngineConfig) -> Iterator[Finding]:
    yield _package("torch", 2, "pip install torch")
    yield _package("transformers", 5, "pip install 'transformers>=5'")
    try:
        checkpoint = resolve_checkpoint(config)
        check_directory(checkpoint)
        yield Finding(True, f"checkpoint {checkpoint} ({weights_gib(checkpoint):.3g} GiB)")
    except EngineError as error:
        yield Finding(False, str(error))
    if config.device == "cpu":
        return
    needed = config.device == "cuda"
    yield from _gpu_findings(read_driver(), needed=needed)
    if needed and _version("torch").endswith("+cpu"):
        yield Finding(False, "torch is a CPU build: install one with CUDA, or set engine.device cpu")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _openai(config: EngineConfig) -> Iterator[Finding]:
    http = _package("httpx", 0, "pip install httpx")
    yield http
    if not http.there:
        return
    from depthlm_ros.engines.http_settings import settings_from

    try:
        settings = settings_from(config, os.environ)
    except EngineError as error:
        yield Finding(False, str(error))
        return
    if not settings.model:
        yield Finding(False, "engine.model is empty: name the model as a server's list below has it")
    for url in settings.urls:
        try:
            models = asyncio.run(_models(url, config))
        except Exception as error:  # whatever a server or the network does is a finding
            yield Finding(False, f"{url}: {error}: start the server, or correct engine.base_urls")
            continue
        listed = ", ".join(models) or "none"
        if settings.model and settings.model not in models:
            yield Finding(False, f"{url} has no model {settings.model!r} but {listed}: correct engine.model")
        else:
            yield Finding(True, f"{url} answers; its models: {listed}")


async def _models(url: str, config: EngineConfig) -> list[str]:
    from depthlm_ros.engines.http_client import HttpClient
    from depthlm_ros.engines.http_settings import settings_from

    patience = min(config.connect_timeout_s, 3.0)
    short = replace(config, connect_timeout_s=patience, read_timeout_s=patience)
    client = HttpClient(settings_from(short, os.environ))
    try:
        record = await client.get(url + "/v1/models")
        return sorted(str(entry["id"]) for entry in record["data"])
    except (KeyError, TypeError) as error:
        raise ValueError("/v1/models is no model list of an OpenAI-compatible server") from error
    finally:
        await client.aclose()


def _tensorrt_llm(config: EngineConfig) -> Iterator[Finding]:
    if board := jetson():
        yield Finding(
            False,
            f"{board}: TensorRT-LLM runs on no Jetson since 0.12; run a server there (TensorRT Edge-LLM, vLLM, "
            "llama.cpp) and set engine.name openai",
        )
    elif (sys.platform, platform.machine()) not in (("linux", "x86_64"), ("linux", "aarch64")):
        yield Finding(
            False,
            f"{platform.system()} on {platform.machine()}: TensorRT-LLM is for Linux on x86-64 or ARM64",
        )
    python = config.worker_python or sys.executable
    facts = read_python(python)
    yield from _worker_python(python, facts)
    driver = read_driver()
    yield from _gpu_findings(driver, needed=True)
    yield from _needed_cuda(facts, driver)
    try:
        checkpoint = resolve_checkpoint(config)
        record = check_checkpoint(checkpoint, dtype=config.dtype, quantization=config.quantization)
        if version := facts.packages.get("tensorrt_llm"):
            check_release(str(record["architectures"][0]), version)
    except EngineError as error:
        yield Finding(False, str(error))
        return
    size = weights_gib(checkpoint)
    text = f"checkpoint {checkpoint} ({record['architectures'][0]}, {size:.3g} GiB)"
    if driver.gpus and size > driver.gpus[0].memory_gib:
        yield Finding(False, f"{text} does not fit into the GPU: use a quantised or smaller one")
    else:
        yield Finding(True, text)


def _worker_python(python: str, facts: PythonFacts) -> Iterator[Finding]:
    if facts.problem:
        yield Finding(False, f"{facts.problem}: name a Python in engine.worker_python")
        return
    yield Finding(True, f"Python {facts.python} ({python})")
    version = facts.packages.get("tensorrt_llm")
    if version is None or not facts.importable:
        yield Finding(
            False,
            "tensorrt_llm is not installed for it: its pins want a virtual environment of their own, `python3.12 -m "
            "venv DIR && DIR/bin/pip install tensorrt_llm` (NVIDIA's installation page has the details); then set "
            "engine.worker_python DIR/bin/python",
        )
        return
    yield Finding(True, f"tensorrt_llm {version}")
    for name in ("numpy", "torch", "transformers", "pillow"):
        yield _pinned(name, facts)
    if facts.libmpi or "mpi4py" in facts.packages:
        yield Finding(True, f"MPI: {facts.libmpi or 'mpi4py ' + facts.packages['mpi4py']}")
    else:
        yield Finding(False, "no MPI library: sudo apt-get install libopenmpi-dev")


def _pinned(name: str, facts: PythonFacts) -> Finding:
    """Whether a package is as TensorRT-LLM's own metadata wants it."""
    from packaging.requirements import InvalidRequirement, Requirement

    wanted = ""
    for line in facts.requires:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.name.lower() == name and (requirement.marker is None or requirement.marker.evaluate()):
            wanted = str(requirement.specifier)
            found = facts.packages.get(name)
            if found and not requirement.specifier.contains(found, prereleases=True):
                return Finding(
                    False,
                    f"{name} {found} but tensorrt_llm wants {wanted}: pip install '{name}{wanted}' there",
                )
    if name not in facts.packages:
        return Finding(
            False, f"{name} is not installed beside tensorrt_llm: pip install '{name}{wanted}' there"
        )
    return Finding(True, f"{name} {facts.packages[name]}" + (f" (wanted {wanted})" if wanted else ""))


def _needed_cuda(facts: PythonFacts, driver: Driver) -> Iterator[Finding]:
    """Compare the CUDA line of what TensorRT-LLM requires (``...-cu13``, ``cuda-python>=13``) with the driver's."""
    lines = [re.match(r"(?:nvidia-[\w-]+-cu|cuda-python\s*[>=~]+\s*)(\d+)", line) for line in facts.requires]
    needed = max((int(match[1]) for match in lines if match), default=0)
    if driver.cuda is not None and needed > driver.cuda[0]:
        yield Finding(
            False,
            f"tensorrt_llm is built for CUDA {needed} but the driver runs {driver.cuda[0]}.{driver.cuda[1]}: "
            "update it",
        )
