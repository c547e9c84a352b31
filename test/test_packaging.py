"""What the build files, the interfaces and the requirements say must agree."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import depthlm_ros

ROOT = Path(__file__).resolve().parent.parent

STATUSES = (
    "OK", "UNDRAWABLE", "NO_NUMBER", "SEVERAL_NUMBERS", "NOT_POSITIVE", "NOT_FINITE",
    "OUT_OF_RANGE", "TRUNCATED", "DEADLINE", "ENGINE_ERROR", "BAD_FORMAT",
    "OVER_BUDGET",
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


def test_what_only_the_tests_import_is_installed_for_them(manifest):
    imported = imported_modules("test") - imported_modules("depthlm_ros")
    wanted = {ROSDEP_KEYS[name] for name in imported & set(ROSDEP_KEYS)}
    assert wanted <= {e.text for e in manifest if e.tag == "test_depend"}
    assert {"launch_testing", "python3-hypothesis"} <= wanted


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


def field_names(definition):
    return re.findall(r"^[\w/]+(?:\[\])? (\w+) *(?:#.*)?$", definition, re.MULTILINE)


def test_interfaces_are_built_from_these_files():
    messages = pytest.importorskip("depthlm_ros.msg", reason="needs the built messages: make setup")
    services = pytest.importorskip("depthlm_ros.srv")
    for file in ROOT.glob("msg/*.msg"):
        built = getattr(messages, file.stem).get_fields_and_field_types()
        assert list(built) == field_names(file.read_text()), file.name
    for file in ROOT.glob("srv/*.srv"):
        request, response = file.read_text().split("\n---\n")
        service = getattr(services, file.stem)
        assert list(service.Request.get_fields_and_field_types()) == field_names(request), file.name
        assert list(service.Response.get_fields_and_field_types()) == field_names(response), file.name
    built_services = {name for name in dir(services) if name[0].isupper() and "_" not in name}
    assert built_services == {file.stem for file in ROOT.glob("srv/*.srv")}


def test_the_checkout_hides_the_installed_package_but_not_its_messages():
    assert Path(depthlm_ros.__file__).parent == ROOT / "depthlm_ros"


MODULES = {
    "mcap-ros2-support": "mcap_ros2", "opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml",
}  # fmt: skip
"""What a package is imported as, where that is not its own name."""


ROSDEP_KEYS = {
    "hypothesis": "python3-hypothesis",
    "launch_testing": "launch_testing",
    "pytest": "python3-pytest",
}


def imported_modules(*folders):
    sources = (
        file.read_text(encoding="utf-8") for folder in folders for file in (ROOT / folder).rglob("*.py")
    )
    return {name for text in sources for name in re.findall(r"^ *(?:import|from) (\w+)", text, re.MULTILINE)}


def package_names(lines):
    found = (re.match(r"[A-Za-z][\w-]*", line) for line in lines)
    return {match[0] for match in found if match}


def install_requires():
    listed = re.search(r"install_requires=\[(.*?)\n    \]", (ROOT / "setup.py").read_text(), re.DOTALL)[1]
    return re.findall(r'^ *"(.+)",$', listed, re.MULTILINE)


def test_every_package_that_is_installed_is_imported_somewhere():
    listed = package_names((ROOT / "requirements" / "base.txt").read_text().splitlines())
    required = package_names(install_requires())
    ours, tests = imported_modules("depthlm_ros"), imported_modules("test")
    assert {name for name in listed if MODULES.get(name, name) not in ours | tests} == set()
    assert {name for name in required if MODULES.get(name, name) not in ours} == set()
    assert len(listed) > 8 <= len(required)


def test_the_robots_install_line_brings_everything_in_its_range():
    line = re.search(
        r"^pip install (-r .+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )[1]
    files = re.findall(r"-r \$needs/(\S+)", line)
    pins = [
        Requirement(text)
        for file in files
        for text in (ROOT / "requirements" / file).read_text().splitlines()
        if text and not text.startswith("#")
    ]
    assert "numpy-ros.txt" in files
    for needed in map(Requirement, install_requires()):
        found = [pin for pin in pins if pin.name == needed.name]
        assert found, f"{needed.name} is not installed on a robot"
        for pin in found:
            (exactly,) = pin.specifier
            assert needed.specifier.contains(exactly.version), pin


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
