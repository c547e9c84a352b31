"""What the launch files take, and what follows from it for the node: plain data, without launch or ROS."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from depthlm_ros.config import ConfigError, DepthLMConfig, options
from depthlm_ros.config_yaml import describe
from depthlm_ros.files import what_came

PARAMETER_ARGUMENTS = {
    "engine": "engine.name",
    "checkpoint": "engine.checkpoint",
    "profile": "engine.profile",
    "device": "engine.device",
    "dtype": "engine.dtype",
    "base_url": "engine.base_urls",
    "model": "engine.model",
    "image_kind": "camera.image_kind",
    "transport": "stream.transport",
}
"""Launch argument, and the parameter that it sets where it is given; its default stays in config.py."""

SWITCHES = {"autostart": "lifecycle.autostart", "use_sim_time": "use_sim_time"}
"""The same for what is true or false."""

AS_IN_FILE = "Empty: as in params_file."
RESPAWN_DELAY_S = 2.0
SERVER = "trtllm-serve"
SERVER_READY = b"Application startup complete"
"""What uvicorn, inside of trtllm-serve, prints once it takes requests."""


@dataclass(frozen=True)
class Argument:
    """An argument of a launch file.

    Attributes:
        name: As it is given, ``name:=value``.
        default: Where it is not given.
        description: For ``--show-args``.
        choices: What may be given; empty is anything.
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


def node_arguments(share: Path) -> list[Argument]:
    """What every launch file of the node takes.

    Args:
        share: The package's share directory, or the repository.
    """
    described = {name: describe(spec) for name, spec in options()}
    either, unsaid = ("true", "false"), ("", "true", "false")
    return [
        Argument("params_file", str(share / "config" / "depthlm.yaml"), "Parameter file (YAML)."),
        Argument(
            "autostart",
            "",
            f"{described[SWITCHES['autostart']]} {AS_IN_FILE} Where that says nothing either, it is true.",
            unsaid,
        ),
        Argument("use_sim_time", "", f"Take the time from /clock. {AS_IN_FILE}", unsaid),
        Argument(
            "use_respawn",
            "false",
            f"Start a process again {RESPAWN_DELAY_S:g} s after it died, unless its parameters were refused.",
            either,
        ),
        Argument("log_level", "info", "debug, info, warn, error or fatal; or of one logger: depthlm:=debug."),
        Argument(
            "serve",
            "false",
            f"Start {SERVER} on `checkpoint`, and the node with engine openai once it is ready.",
            either,
        ),
        *(
            Argument(name, "", f"{described[parameter]} {AS_IN_FILE}")
            for name, parameter in PARAMETER_ARGUMENTS.items()
        ),
    ]


def parameter_file(given: Mapping[str, str]) -> Path:
    """The parameter file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = Path(given["params_file"]).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"params_file: '{path}' is not a file; give the path of a YAML file")
    return path


def overrides(given: Mapping[str, str]) -> dict[str, str | bool]:
    """The parameters that hold whatever the parameter file says: those whose arguments were given.

    Args:
        given: The launch arguments; an empty one is not given.

    Raises:
        ConfigError: A server is to be started, and the other arguments do not go with that.
    """
    texts = {name: given[name] for name in PARAMETER_ARGUMENTS}
    if given["serve"] == "true":
        texts |= served(given)
    switched = {parameter: given[name] == "true" for name, parameter in SWITCHES.items() if given[name]}
    return {PARAMETER_ARGUMENTS[name]: text for name, text in texts.items() if text} | switched


def ros_arguments(given: Mapping[str, str]) -> list[str]:
    """What the node's command line says before it names the parameter file.

    ROS lets the later word on a parameter hold, so that the launch files' own default, an active node, gives way to
    the file, and to whatever a launch file around them sets.
    """
    return ["--ros-args", "-p", f"{SWITCHES['autostart']}:=true", "--log-level", given["log_level"]]


def sim_time(given: Mapping[str, str], node: str) -> dict[str, Any]:
    """``use_sim_time`` as the node will have it, for what runs beside it without its parameter file.

    Args:
        given: The launch arguments.
        node: The node's full name, ``/front/depthlm``.

    Returns:
        The parameter, or nothing where neither argument nor file says anything.

    Raises:
        FileNotFoundError: There is no such parameter file.
        ConfigError: It cannot be read.
    """
    if given["use_sim_time"]:
        return {SWITCHES["use_sim_time"]: given["use_sim_time"] == "true"}
    path = parameter_file(given)
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"params_file: {path}: expected YAML, but {what_came(error)}") from error
    # rclpy's rule (_populate_node_parameters_from_rcl_params): of several parts that fit, the last holds. `/**` is
    # the first, since what the command line says before the file (ros_arguments) is said of `/**`.
    said: dict[str, Any] = {}
    for key, part in sorted(_parts(record), key=lambda found: found[0] != "/**"):
        if re.fullmatch(key.replace("/*", r"(/\w+)"), node):
            said |= {name: value for name, value in part.items() if name == SWITCHES["use_sim_time"]}
    return said


def _parts(record: Any, under: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """For which nodes a parameter file says something, and what; namespaces may be nested."""
    for key, part in record.items() if isinstance(record, dict) else ():
        if key == "ros__parameters" and isinstance(part, dict):
            yield under, part
        elif key != "ros__parameters":
            yield from _parts(part, f"{under}/{str(key).strip('/')}")


def server_url() -> str:
    """Where the server that is started beside the node listens: where the node looks for one by default."""
    return DepthLMConfig().engine.base_urls


def served(given: Mapping[str, str]) -> dict[str, str]:
    """The arguments that make the node ask the server that is started beside it.

    Args:
        given: The launch arguments.

    Raises:
        ConfigError: There is no checkpoint to serve, or another engine or server is asked for.
    """
    if not given["checkpoint"]:
        raise ConfigError("serve:=true needs checkpoint:=DIR, what is to be served; the embedded one is not")
    if given["engine"] not in ("", "openai") or given["base_url"]:
        raise ConfigError(
            "serve:=true starts its own server and asks it by engine openai: leave engine and base_url out"
        )
    # A directory is listed by its last part (trtllm-serve, openai_server.py).
    name = given["model"] or Path(given["checkpoint"]).expanduser().name
    return {"engine": "openai", "base_url": server_url(), "model": name}


def server_command(given: Mapping[str, str]) -> list[str]:
    """The command that starts the server."""
    url = urlsplit(server_url())
    checkpoint = str(Path(given["checkpoint"]).expanduser())
    return [SERVER, checkpoint, "--host", str(url.hostname), "--port", str(url.port)]
