"""An option is seen in three places, config.py, the running node and config/depthlm.yaml; and changed in one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from graph import Bench, alone
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterDescriptor, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.parameter import parameter_value_to_python
from toy_node import inside

from depthlm_ros.config import DepthLMConfig, flatten, options
from depthlm_ros.engines.fake import FakeEngine

FILE = Path(__file__).parents[2] / "config" / "depthlm.yaml"
SPECS = dict(options())
TYPES = {
    str: ParameterType.PARAMETER_STRING,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    bool: ParameterType.PARAMETER_BOOL,
    tuple: ParameterType.PARAMETER_INTEGER_ARRAY,
}
OF_EVERY_NODE = ("use_sim_time", "qos_overrides.", "start_type_description_service")
TEST_SETS = {"engine.threads": 1, "sampling.columns": 3, "sampling.rows": 2}
"""What the tests' node is started with; everything else of it is as config.py says."""


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Beside an active node."""
    engine = FakeEngine(lambda _: "")
    with pytest.MonkeyPatch.context() as patch, inside(engine, patch, "/parameters") as (node, bench):
        assert node.worker is not None, "it did not become active"
        yield bench


def call(bench: Bench, kind: Any, service: str, **request: Any) -> Any:
    client = bench.create_client(kind, f"depthlm/{service}")
    try:
        return bench.call(client, kind.Request(**request))
    finally:
        bench.destroy_client(client)


def values(bench: Bench) -> dict[str, Any]:
    """What the node's parameters are now; arrays as tuples."""
    found = call(bench, GetParameters, "get_parameters", names=list(SPECS)).values
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in zip(SPECS, map(parameter_value_to_python, found), strict=True)
    }


@pytest.fixture(scope="module")
def described(bench: Bench) -> dict[str, ParameterDescriptor]:
    found = call(bench, DescribeParameters, "describe_parameters", names=list(SPECS)).descriptors
    return {descriptor.name: descriptor for descriptor in found}


def test_the_node_has_the_options_and_no_others(bench: Bench) -> None:
    names = call(bench, ListParameters, "list_parameters").result.names
    assert {name for name in names if not name.startswith(OF_EVERY_NODE)} == set(SPECS)


def test_the_node_has_the_defaults() -> None:
    with alone() as (_, fresh):
        expected = {**flatten(DepthLMConfig()), **TEST_SETS}
        got = values(fresh)
        assert got == expected
        assert {name: type(value) for name, value in got.items()} == {
            name: type(value) for name, value in expected.items()
        }


@pytest.mark.parametrize("name", SPECS)
def test_the_node_describes_an_option_as_it_is_declared(
    name: str, described: dict[str, ParameterDescriptor]
) -> None:
    spec, said = SPECS[name], described[name]
    rules = spec.metadata
    assert said.type == TYPES[type(spec.default)]
    assert said.description.startswith(rules["description"])
    assert said.description.endswith(f"[{rules['unit']}]" if rules["unit"] else rules["description"])
    assert said.read_only == rules["at_start"]
    ranges = [*said.floating_point_range, *said.integer_range]
    assert [(r.from_value, r.to_value) for r in ranges] == (
        [(rules["low"], rules["high"])] if rules["low"] is not None else []
    )
    assert bool(said.floating_point_range) == (rules["low"] is not None and isinstance(spec.default, float))
    limits = said.additional_constraints
    if rules["choices"]:
        assert f"One of: {', '.join(rules['choices'])}." in limits
    assert ("while running" in limits) == rules["live"]
    assert ("Fixed while the node is configured" in limits) != (rules["live"] or rules["at_start"])


def commented() -> dict[str, tuple[str, Any]]:
    """{dotted name: (its comment, its value)} of the shipped file, read line by line; also of what is left open."""
    found, section, comment = {}, "", []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r" {4}(\w+):", line):
            section, comment = match[1], []
        elif (match := re.fullmatch(r" {6}(?:# )?(\w+): (.*)", line)) and f"{section}.{match[1]}" in SPECS:
            found[f"{section}.{match[1]}"] = (" ".join(comment), yaml.safe_load(match[2]))
            comment = []
        elif match := re.fullmatch(r" {6}# (.*)", line):
            comment.append(match[1])
    return found


def test_the_shipped_file_has_the_options_and_no_others() -> None:
    sections = yaml.safe_load(FILE.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    in_it = {f"{section}.{name}": value for section, part in sections.items() for name, value in part.items()}
    default = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in flatten(DepthLMConfig()).items()
    }
    # What who starts the node decides would be decided by its default in every copy of the file.
    assert in_it == {name: value for name, value in default.items() if not SPECS[name].metadata["left_open"]}
    assert [name for name in SPECS if name not in in_it] == ["lifecycle.autostart"]
    assert {name: value for name, (_, value) in commented().items()} == default


@pytest.mark.parametrize("name", SPECS)
def test_the_shipped_file_says_what_the_node_says(
    name: str, described: dict[str, ParameterDescriptor]
) -> None:
    comment, said = commented()[name][0], described[name]
    text, _, unit = said.description.partition(" [")
    assert comment.startswith(text)
    assert unit.removesuffix("]") in comment
    for bounds in (*said.floating_point_range, *said.integer_range):
        assert f"{bounds.from_value:g} to {bounds.to_value:.10g}" in comment
    if choices := re.search(r"One of: .*?\.", said.additional_constraints):
        assert choices[0] in comment
    assert ("Can be changed while running." in comment) == ("while running" in said.additional_constraints)
    assert ("Read at start only." in comment) == said.read_only


def another(name: str) -> Any:
    """A legal value that the option does not have."""
    spec, rules = SPECS[name], SPECS[name].metadata
    default = spec.default
    if isinstance(default, bool):
        return not default
    if isinstance(default, str):
        return next((choice for choice in rules["choices"] if choice != default), default + "another")
    if isinstance(default, tuple):
        return [1, 2, 30, 40]
    # Close to what it is, so that it also fits the other options.
    return default + 1 if isinstance(default, int) else default * 1.01 or 0.01


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.metadata["live"]])
def test_a_live_option_changes_on_the_active_node(name: str, bench: Bench) -> None:
    value = another(name)
    assert bench.set_parameter(name, value) == (True, "")
    now = values(bench)[name]
    assert now == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    "name", [n for n, s in SPECS.items() if not s.metadata["live"] and not s.metadata["at_start"]]
)
def test_another_option_is_refused_on_the_active_node_with_what_to_do(name: str, bench: Bench) -> None:
    before = values(bench)[name]
    changed, reason = bench.set_parameter(name, another(name))
    assert not changed
    assert reason.startswith(f"{name} cannot change while the node is configured (it is {before!r})")
    assert "cleanup" in reason
    assert values(bench)[name] == before


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.metadata["at_start"]])
def test_what_is_read_at_start_only_is_refused(name: str, bench: Bench) -> None:
    changed, reason = bench.set_parameter(name, another(name))
    assert not changed
    assert name in reason
    assert "read-only" in reason


@pytest.mark.parametrize(
    "name",
    [name for name, spec in SPECS.items() if spec.metadata["live"] and spec.metadata["low"] is not None],
)
@pytest.mark.parametrize("side", ["low", "high"])
def test_a_number_out_of_its_range_is_refused_with_the_range(name: str, side: str, bench: Bench) -> None:
    rules, kind = SPECS[name].metadata, type(SPECS[name].default)
    value = kind(rules[side] + (-1 if side == "low" else 1))
    before = values(bench)[name]
    changed, reason = bench.set_parameter(name, value)
    assert not changed
    assert f"{kind(rules['low'])}" in reason
    assert f"{kind(rules['high'])}" in reason
    assert values(bench)[name] == before


@pytest.mark.parametrize("name", ["sampling.columns", "stream.max_age_s", "sampling.roi", "clicks.enabled"])
def test_an_option_is_not_deleted(name: str, bench: Bench) -> None:
    nothing = ParameterMessage(name=name, value=ParameterValue(type=ParameterType.PARAMETER_NOT_SET))
    before = values(bench)[name]
    (result,) = call(bench, SetParameters, "set_parameters", parameters=[nothing]).results
    assert not result.successful
    assert result.reason
    assert values(bench)[name] == before


@pytest.mark.parametrize(
    ("name", "value"), [("stream.max_age_s", "soon"), ("stream.max_age_s", float("nan"))]
)
def test_what_is_no_number_is_refused(name: str, value: Any, bench: Bench) -> None:
    changed, reason = bench.set_parameter(name, value)
    assert not changed
    assert name in reason
    assert "number" in reason or "range" in reason


def test_a_node_started_with_the_parameters_of_another_has_them(bench: Bench, tmp_path: Path) -> None:
    now = values(bench)
    sections: dict[str, Any] = {}
    for name, value in now.items():
        section, key = name.split(".")
        sections.setdefault(section, {})[key] = list(value) if isinstance(value, tuple) else value
    # The shape that `ros2 param dump` writes.
    file = tmp_path / "dumped.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": sections}}), encoding="utf-8")
    with alone(file=file) as (_, other):
        assert values(other) == {**now, **TEST_SETS}


def test_the_shipped_file_starts_a_node_with_the_defaults() -> None:
    with alone(file=FILE) as (_, other):
        assert values(other) == {**flatten(DepthLMConfig()), **TEST_SETS}
