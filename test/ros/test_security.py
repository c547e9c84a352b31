"""``config/sros2_policy.xml`` against what the running node really uses, and enforced where that is possible."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest
from graph import NodeProcess
from toy_node import inside

from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.ros.node import DepthLMNode

POLICY = Path(__file__).parents[2] / "config" / "sros2_policy.xml"
NAMESPACE = "/secured/robot"
UNBOUND = set() if find_spec("bond") is not None else {f"{NAMESPACE}/bond"}
"""Without the package of its message the node forms no bond."""
SCHEMA = {
    "policy": ({"version"}, {"enclaves"}),
    "enclaves": (set(), {"enclave"}),
    "enclave": ({"path"}, {"profiles"}),
    "profiles": (set(), {"profile"}),
    "profile": ({"ns", "node"}, {"topics", "services"}),
    "topics": ({"publish", "subscribe"}, {"topic"}),
    "services": ({"reply", "request"}, {"service"}),
    "topic": (set(), set()),
    "service": (set(), set()),
}
"""{element: (its attributes, its children)} of sros2/policy/schemas/policy.xsd, as far as the policy needs it."""


def profile(namespace: str) -> ElementTree.Element:
    """The node's profile, for a node in this namespace."""
    found = ElementTree.parse(POLICY).getroot().find("enclaves/enclave/profiles/profile")
    assert found is not None
    found.set("ns", namespace)
    return found


def resolved(name: str, namespace: str, node: str) -> str:
    """A name as sros2/policy/templates/dds/permissions.xsl resolves it."""
    base = namespace if namespace.endswith("/") else f"{namespace}/"
    return name if name.startswith("/") else f"{base}{node}{name[1:]}" if name[0] == "~" else f"{base}{name}"


def allowed(kind: str, right: str) -> set[str]:
    """What the policy allows to the node in the tests' namespace."""
    part = profile(NAMESPACE)
    return {
        resolved(str(rule.text), part.attrib["ns"], part.attrib["node"])
        for rules in part.findall(f"{kind}s")
        if rules.get(right) == "ALLOW"
        for rule in rules.findall(kind)
    }


@pytest.fixture(scope="module")
def used() -> dict[str, set[str]]:
    """{right: names} of an active node, with raw and with compressed images, with and without /clock and /tf."""
    options = {"stream__transport": "compressed", "use_sim_time": True}
    if find_spec("tf2_ros") is not None:
        options["obstacles__target_frame"] = "base_link"
    found: dict[str, set[str]] = {right: set() for right in ("publish", "subscribe", "reply", "request")}
    for number, given in enumerate(({}, options)):
        # The graph still knows a node that has just ended, and would answer for it under the same name.
        engine, namespace = FakeEngine(lambda _: ""), f"{NAMESPACE}_{number}"
        with pytest.MonkeyPatch.context() as patch, inside(engine, patch, namespace, **given) as (node, _):
            assert node.worker is not None, "it did not become active"
            for right, names in now(node).items():
                found[right] |= {name.replace(namespace, NAMESPACE, 1) for name in names}
    return found


def now(node: DepthLMNode) -> dict[str, set[str]]:
    me = (node.get_name(), node.get_namespace())
    return {
        right: {name for name, _ in ask(*me)}
        for right, ask in {
            "publish": node.get_publisher_names_and_types_by_node,
            "subscribe": node.get_subscriber_names_and_types_by_node,
            "reply": node.get_service_names_and_types_by_node,
            "request": node.get_client_names_and_types_by_node,
        }.items()
    }


def test_the_policy_has_the_form_that_sros2_reads() -> None:
    root = ElementTree.parse(POLICY).getroot()
    assert (root.tag, root.get("version")) == ("policy", "0.2.0")
    for element in root.iter():
        attributes, children = SCHEMA[element.tag]
        assert set(element.attrib) <= attributes, element.tag
        assert {child.tag for child in element} <= children, element.tag
        if "ALLOW" in element.attrib.values():
            assert set(element.attrib.values()) == {"ALLOW"}


def test_it_may_publish_what_it_publishes_and_nothing_else(used: dict[str, set[str]]) -> None:
    assert allowed("topic", "publish") == used["publish"] | UNBOUND


def test_it_may_hear_what_it_hears_and_nothing_else(used: dict[str, set[str]]) -> None:
    # Where tf2_ros is missing the node cannot hear them, and refuses the option that asks for it.
    unheard = set() if find_spec("tf2_ros") is not None else {"/tf", "/tf_static"}
    assert allowed("topic", "subscribe") == used["subscribe"] | unheard | UNBOUND


def test_it_may_answer_what_it_offers_and_call_nobody(used: dict[str, set[str]]) -> None:
    since_jazzy = {resolved("~/get_type_description", NAMESPACE, "depthlm")}
    assert allowed("service", "reply") == used["reply"] | since_jazzy
    assert allowed("service", "request") == used["request"] == set()


@pytest.fixture
def keystore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A keystore with the node's enclave, made by sros2, which the environment points at."""
    sros2 = pytest.importorskip("sros2.keystore", reason="needs sros2: it comes with a ROS 2 installation")
    sros2.create_keystore(tmp_path)
    sros2.create_enclave(tmp_path, "/depthlm")
    monkeypatch.setenv("ROS_SECURITY_KEYSTORE", str(tmp_path))
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
    monkeypatch.setenv("ROS_SECURITY_ENCLAVE_OVERRIDE", "/depthlm")
    return tmp_path


@pytest.mark.parametrize("without", ["", "~/points"])
def test_with_the_policy_enforced_the_node_becomes_active_and_without_a_right_it_does_not(
    without: str, keystore: Path
) -> None:
    from sros2.keystore import create_permission

    tree = ElementTree.parse(POLICY)
    for part in tree.getroot().iter("profile"):
        part.set("ns", NAMESPACE)
        for rules in part:
            for rule in [rule for rule in rules if rule.text == without]:
                rules.remove(rule)
    tree.write(keystore / "policy.xml")
    create_permission(keystore, "/depthlm", keystore / "policy.xml")
    node = NodeProcess("lifecycle.autostart:=true", namespace=NAMESPACE)
    try:
        end = time.monotonic() + 120.0
        while node.process.poll() is None and time.monotonic() < end and not node.logged("active: waiting"):
            time.sleep(0.1)
        if node.logged("doesn't have the security libraries") or node.logged("SECURITY not built"):
            pytest.skip("this DDS library was built without its security plugins")
        assert bool(node.logged("active: waiting")) is not bool(without), "\n".join(node.log)
    finally:
        node.end()
