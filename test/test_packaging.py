"""What the build files, the interfaces and the requirements say must agree."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import depthlm_ros

ROOT = Path(__file__).resolve().parent.parent

STATUSES = (
    "OK", "UNDRAWABLE", "NO_NUMBER", "SEVERAL_NUMBERS", "NOT_POSITIVE", "NOT_FINITE",
    "OUT_OF_RANGE", "TRUNCATED", "DEADLINE", "ENGINE_ERROR", "BAD_FORMAT",
)  # fmt: skip


@pytest.fixture(scope="module")
def manifest():
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def cmake():
    return (ROOT / "CMakeLists.txt").read_text()


def test_there_is_one_version(manifest):
    assert manifest.findtext("version") == depthlm_ros.__version__


def test_cmake_finds_only_what_the_manifest_names(manifest, cmake):
    named = {e.text for e in manifest if e.tag.endswith("depend")}
    found = set(re.findall(r"find_package\((\w+)", cmake))
    assert found <= named
    assert manifest.findtext("member_of_group") == "rosidl_interface_packages"


def test_every_interface_is_generated(cmake):
    on_disk = {f"{f.parent.name}/{f.name}" for f in [*ROOT.glob("msg/*"), *ROOT.glob("srv/*")]}
    assert set(re.findall(r'"((?:msg|srv)/[\w.]+)"', cmake)) == on_disk


def test_every_executable_has_its_module(cmake):
    wrappers = re.findall(r"^  depthlm_executable\((\w+) ([\w.]+)\)", cmake, re.MULTILINE)
    assert {name for name, _ in wrappers} == {"depthlm", "camera_sim", "recorder"}
    for _, module in wrappers:
        source = ROOT / (module.replace(".", "/") + ".py")
        assert re.search(r"^def main\(|^main = ", source.read_text(), re.MULTILINE), module


def test_status_numbers_are_the_contract():
    message = pytest.importorskip("depthlm_ros.msg", reason="needs the built messages: make setup")
    for number, name in enumerate(STATUSES):
        assert getattr(message.SparseDepth, f"STATUS_{name}") == number


def test_interfaces_are_built_from_these_files():
    message = pytest.importorskip("depthlm_ros.msg", reason="needs the built messages: make setup")
    service = pytest.importorskip("depthlm_ros.srv")
    built = {
        "msg/SparseDepth.msg": [message.SparseDepth],
        "srv/QueryDepth.srv": [service.QueryDepth.Request, service.QueryDepth.Response],
        "srv/AskSpatial.srv": [service.AskSpatial.Request, service.AskSpatial.Response],
    }
    for path, kinds in built.items():
        for part, kind in zip((ROOT / path).read_text().split("\n---\n"), kinds, strict=True):
            fields = re.findall(r"^[\w/]+(?:\[\])? (\w+) *(?:#.*)?$", part, re.MULTILINE)
            assert list(kind.get_fields_and_field_types()) == fields, path


def test_the_checkout_hides_the_installed_package_but_not_its_messages():
    assert Path(depthlm_ros.__file__).parent == ROOT / "depthlm_ros"


def test_the_dds_profile_holds_the_largest_demo_image():
    space = {"p": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
    profile = ElementTree.parse(ROOT / "config" / "fastdds.xml").getroot()
    largest = int(profile.findtext(".//p:maxMessageSize", namespaces=space))
    segment = int(profile.findtext(".//p:segment_size", namespaces=space))
    assert 4096 * 1024 < largest < segment


def test_ruff_and_mypy_of_pre_commit_are_those_of_the_virtual_environment():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    entries = re.findall(r"entry: (\S+)", text)
    assert entries
    assert all(entry.startswith(".venv/bin/") for entry in entries)
    assert "http" not in text
