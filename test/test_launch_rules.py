"""What the launch files' arguments mean for the node; launch itself is not needed for that."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from depthlm_ros.config import ConfigError, DepthLMConfig, flatten, options
from depthlm_ros.config_yaml import load_config
from depthlm_ros.ros.launch_arguments import (
    PARAMETER_ARGUMENTS,
    SWITCHES,
    node_arguments,
    overrides,
    parameter_file,
    ros_arguments,
    served,
    server_command,
    server_url,
    sim_time,
)

ROOT = Path(__file__).parent.parent
ARGUMENTS = {argument.name: argument for argument in node_arguments(ROOT)}


def given(**some):
    """The arguments of a launch file that is given some of them."""
    assert set(some) <= set(ARGUMENTS)
    return {name: some.get(name, argument.default) for name, argument in ARGUMENTS.items()}


def test_each_argument_is_described_and_no_default_of_the_node_is_repeated():
    assert all(argument.description for argument in ARGUMENTS.values())
    assert {ARGUMENTS[name].default for name in (*PARAMETER_ARGUMENTS, *SWITCHES)} == {""}
    assert set(PARAMETER_ARGUMENTS.values()) <= {name for name, _ in options()}
    texts = {value for value in flatten(DepthLMConfig()).values() if isinstance(value, str) and value}
    assert not texts & {argument.default for argument in ARGUMENTS.values()}


@pytest.mark.parametrize("name", [*PARAMETER_ARGUMENTS, *SWITCHES])
def test_what_an_argument_means_that_is_not_given_is_said(name):
    assert "Empty: as in params_file." in ARGUMENTS[name].description


def test_a_launch_without_arguments_leaves_everything_to_the_file():
    assert overrides(given()) == {}
    assert parameter_file(given()) == ROOT / "config" / "depthlm.yaml"


@pytest.mark.parametrize(("name", "parameter"), SWITCHES.items())
@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
def test_a_switch_that_is_given_holds(name, parameter, text, value):
    assert text in ARGUMENTS[name].choices
    assert overrides(given(**{name: text})) == {parameter: value}


def test_the_file_is_asked_before_the_node_is_brought_to_active():
    """The default stands on the command line, where later words hold; test_launch_parameters.py has ROS read it."""
    assert ros_arguments(given(log_level="warn")) == [
        "--ros-args", "-p", "lifecycle.autostart:=true", "--log-level", "warn",
    ]  # fmt: skip


def test_the_shipped_file_and_copies_of_it_do_not_keep_the_node_from_becoming_active():
    shipped = parameter_file(given()).read_text(encoding="utf-8")
    assert "      # autostart: false\n" in shipped
    assert not load_config(parameter_file(given())).lifecycle.autostart


def test_a_text_stays_one():
    assert overrides(given(checkpoint="2025", transport="raw")) == {
        "engine.checkpoint": "2025", "stream.transport": "raw",
    }  # fmt: skip


def test_a_parameter_file_that_is_not_there_is_refused(tmp_path):
    absent = str(tmp_path / "absent.yaml")
    with pytest.raises(FileNotFoundError, match=rf"params_file: '{absent}' is not a file; give the path"):
        parameter_file(given(params_file=absent))


def test_a_parameter_file_in_the_home_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").touch()
    assert parameter_file(given(params_file="~/mine.yaml")) == tmp_path / "mine.yaml"


def test_what_runs_beside_the_node_has_its_clock(tmp_path):
    """Which parts of a file are a node's is held against ROS in test_launch_parameters.py."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**:\n  ros__parameters:\n    use_sim_time: true\n", encoding="utf-8")
    assert sim_time(given(), "/depthlm") == {}
    assert sim_time(given(params_file=str(mine)), "/depthlm") == {"use_sim_time": True}
    assert sim_time(given(params_file=str(mine), use_sim_time="false"), "/depthlm") == {"use_sim_time": False}


def test_a_parameter_file_that_is_no_yaml_is_refused(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"params_file: .*mine.yaml: expected YAML, but"):
        sim_time(given(params_file=str(mine)), "/depthlm")


@pytest.mark.parametrize(
    ("some", "says"),
    [
        ({"checkpoint": ""}, "needs checkpoint"),
        ({"engine": "transformers"}, "leave engine"),
        ({"base_url": "http://a"}, "leave engine"),
    ],
)
def test_a_server_of_ones_own_goes_with_nothing_else(some, says):
    with pytest.raises(ConfigError, match=says):
        overrides(given(serve="true", **{"checkpoint": "/models/DepthLM", **some}))


def test_the_node_asks_the_server_by_the_name_that_it_lists():
    some = given(serve="true", checkpoint="/models/DepthLM-3B/")
    assert served(some) == {"engine": "openai", "base_url": server_url(), "model": "DepthLM-3B"}
    assert overrides(some) == {
        "engine.name": "openai", "engine.checkpoint": "/models/DepthLM-3B/", "engine.base_urls": server_url(),
        "engine.model": "DepthLM-3B",
    }  # fmt: skip
    assert overrides({**some, "model": "other"})["engine.model"] == "other"


def test_the_server_listens_where_the_node_asks():
    url = urlsplit(server_url())
    assert url.hostname
    assert url.port
    assert server_url() == f"http://{url.hostname}:{url.port}", "expected one server, of this host"
    assert server_command(given(checkpoint="/models/DepthLM")) == [
        "trtllm-serve", "/models/DepthLM", "--host", url.hostname, "--port", str(url.port),
    ]  # fmt: skip
