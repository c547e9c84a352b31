"""``docs/node.md`` against the running node, its messages and its configuration, so that the page cannot rot."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from graph import Bench, alone
from health_toys import OK, sparse
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from std_msgs.msg import Header

from depthlm_ros.config import ObstaclesConfig
from depthlm_ros.config_yaml import config_tables
from depthlm_ros.geometry import confident
from depthlm_ros.msg import SparseDepth
from depthlm_ros.ros.messages import obstacle_cloud, point_cloud
from depthlm_ros.srv import AskSpatial, QueryDepth

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "node.md").read_text(encoding="utf-8")
OF_EVERY_NODE = ("rcl_interfaces/", "lifecycle_msgs/", "type_description_interfaces/")
"""Packages of the types that every managed node has topics and services of."""


def tables(heading: str) -> list[list[list[str]]]:
    """The tables of a section: rows of cells without their code marks, the head included."""
    body = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert body, f"docs/node.md has no section {heading!r}"
    found: list[list[list[str]]] = [[]]
    for line in body[1].splitlines():
        if not line.startswith("|"):
            found.append([])
        elif not re.fullmatch(r"[|-]+", line):
            found[-1].append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return [table for table in found if table]


def rows(heading: str, number: int = 0) -> list[list[str]]:
    return tables(heading)[number][1:]


@pytest.fixture(scope="module")
def bench() -> Any:
    with alone() as (_, bench):
        assert bench.transition(Transition.TRANSITION_CONFIGURE)
        assert bench.transition(Transition.TRANSITION_ACTIVATE)
        yield bench


def named(bench: Bench, found: list[tuple[str, list[str]]]) -> dict[str, str]:
    """{name as a user writes it: type} of what is the node's own."""
    namespace = bench.get_namespace()
    return {
        name.replace(f"{namespace}/depthlm/", "~/").replace(f"{namespace}/", ""): kinds[0]
        for name, kinds in found
        if not kinds[0].startswith(OF_EVERY_NODE)
    }


def resolved(bench: Bench, name: str) -> str:
    """The full name of what the page calls so."""
    name = name.replace("~", "depthlm", 1)
    return name if name.startswith("/") else f"{bench.get_namespace()}/{name}"


def said(heading: str) -> dict[str, str]:
    found = {row[0]: row[1] for row in rows(heading)}
    if "topics" in heading:
        assert found["bond"] == "bond/msg/Status"
        if find_spec("bond") is None:  # there is no bond without the package
            del found["bond"]
    return found


def seen(bench: Bench, ask: str, expected: dict[str, str]) -> dict[str, str]:
    """What the graph knows, once discovery has gone so far as it is expected, or after a while."""
    found: dict[str, str] = {}

    def all_there() -> bool:
        nonlocal found
        found = named(bench, getattr(bench, ask)("depthlm", bench.get_namespace()))
        return set(found) >= set(expected)

    bench.wait(all_there)
    return found


def test_the_published_topics_are_those_of_the_node(bench: Bench) -> None:
    expected = said("Published topics")
    assert seen(bench, "get_publisher_names_and_types_by_node", expected) == expected
    for name in expected:
        for info in bench.get_publishers_info_by_topic(resolved(bench, name)):
            assert info.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE
            assert info.qos_profile.durability == QoSDurabilityPolicy.VOLATILE


def test_the_subscribed_topics_are_those_of_the_node(bench: Bench) -> None:
    expected = said("Subscribed topics")
    assert expected.pop("image/compressed") == "sensor_msgs/msg/CompressedImage"
    assert seen(bench, "get_subscriber_names_and_types_by_node", expected) == expected
    words = {"best effort": QoSReliabilityPolicy.BEST_EFFORT, "reliable": QoSReliabilityPolicy.RELIABLE}
    for name, _, reliability, _ in rows("Subscribed topics"):
        for info in bench.get_subscriptions_info_by_topic(resolved(bench, name)):
            assert info.qos_profile.reliability == words[reliability], name


def test_the_services_are_those_of_the_node(bench: Bench) -> None:
    expected = said("Services")
    assert seen(bench, "get_service_names_and_types_by_node", expected) == expected


def fields(message: Any) -> dict[str, str]:
    """{field: type} of a message as its definition writes it."""
    return {
        name: re.sub(r"sequence<(.*)>", r"\1[]", kind)
        .replace("double", "float64")
        .replace("float[", "float32[")
        for name, kind in message.get_fields_and_field_types().items()
    }


@pytest.mark.parametrize(
    ("message", "heading", "number"),
    [
        (SparseDepth, "Fields of `~/sparse_depth`", 0),
        (QueryDepth.Request, "`~/query_depth`", 0),
        (QueryDepth.Response, "`~/query_depth`", 1),
        (AskSpatial.Request, "`~/ask`", 0),
        (AskSpatial.Response, "`~/ask`", 1),
    ],
)
def test_every_field_of_our_messages_is_there(message: Any, heading: str, number: int) -> None:
    kinds = {
        name: {"float": "float32", "boolean": "bool"}.get(kind, kind)
        for name, kind in fields(message).items()
    }
    assert {row[0]: row[1] for row in rows(heading, number)} == kinds


def test_every_status_is_there() -> None:
    listed = {row[0]: int(row[1]) for row in rows("Fields of `~/sparse_depth`", 1)}
    assert listed == {
        name: getattr(SparseDepth, name) for name in dir(SparseDepth) if name.startswith("STATUS_")
    }


def test_the_fields_of_the_clouds_are_there() -> None:
    listed = rows("Fields of `~/points` and `~/obstacles`")
    frame = sparse(OK)
    assert [row[0] for row in listed] == [field.name for field in point_cloud(frame, Header()).fields]
    assert {row[1] for row in listed} == {"float32"}
    in_obstacles = [row[0] for row in listed if "not in" not in row[3]]
    cloud = obstacle_cloud(frame, confident(frame, ObstaclesConfig().min_confidence), Header())
    assert in_obstacles == [field.name for field in cloud.fields]


def test_every_reason_to_withhold_obstacles_is_there() -> None:
    source = (REPOSITORY / "depthlm_ros" / "ros" / "outputs.py").read_text(encoding="utf-8")
    reasons = re.findall(r'withheld_obstacles\(\s*"(\w+)"', source)
    assert len(reasons) >= 2
    assert [row[0] for row in rows("Diagnostics")] == reasons


def test_the_parameters_are_those_of_the_configuration() -> None:
    marked = PAGE.split("<!-- Printed by `depthlm config --tables`; do not edit by hand. -->\n")[1]
    assert marked == config_tables(), "put the output of `depthlm config --tables` at the end of docs/node.md"
