"""The shape of the house: the core is free of ROS, files stay short, and no checkpoint can run code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "depthlm_ros"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
CORE = [path for path in FILES if PACKAGE / "ros" not in path.parents]
LAUNCH = sorted((ROOT / "launch").glob("*.py"))

ROS = {
    "rclpy", "rosidl_runtime_py", "ament_index_python", "launch", "launch_ros", "message_filters", "cv_bridge",
    "tf2_ros", "diagnostic_updater", "builtin_interfaces", "rcl_interfaces", "image_geometry",
}  # fmt: skip


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_ros(module: str) -> bool:
    top, *rest = module.split(".")
    ours = top == "depthlm_ros" and rest[:1] in (["msg"], ["srv"])
    return top in ROS or top.startswith("sensor_msgs_py") or top.endswith(("_msgs", "_srvs")) or ours


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, also inside functions and through importlib by a literal name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = (
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            )
            if function in ("import_module", "__import__"):
                yield str(node.args[0].value)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import rclpy.node", True),
        ("def f():\n    from sensor_msgs.msg import Image", True),
        ("import importlib\nimportlib.import_module('std_msgs.msg')", True),
        ("from depthlm_ros import msg", True),
        ("from depthlm_ros.srv import QueryDepth", True),
        ("import numpy\nfrom depthlm_ros.camera import K  # import rclpy\n'import rclpy'", False),
    ],
)
def test_this_check_sees_an_import_of_ros_and_nothing_else(source, found):
    assert any(is_ros(module) for module in imports(ast.parse(source))) is found


@pytest.mark.parametrize("path", CORE, ids=name)
def test_the_core_imports_no_ros(path):
    modules = set(imports(ast.parse(path.read_text(encoding="utf-8"))))
    assert not {module for module in modules if is_ros(module)}


@pytest.mark.parametrize("file", ["launch_arguments.py", "exits.py"])
def test_what_the_launch_files_decide_can_be_tested_without_launch(file):
    modules = set(imports(ast.parse((PACKAGE / "ros" / file).read_text(encoding="utf-8"))))
    assert not {module for module in modules if is_ros(module) or module.startswith("depthlm_ros.ros")}


@pytest.mark.parametrize("path", CORE, ids=name)
def test_the_core_does_not_lean_on_the_ros_part_when_it_is_loaded(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    late = {id(node) for function in functions for node in ast.walk(function)}
    early = ast.Module(
        [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and id(n) not in late and _leaf(n)], []
    )
    assert not {module for module in imports(early) if module.startswith("depthlm_ros.ros")}


def _leaf(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def test_files_stay_short():
    def lines(path: Path) -> int:
        return len(path.read_text(encoding="utf-8").splitlines())

    too_long = {name(path): lines(path) for path in FILES if lines(path) >= 300}
    too_long |= {name(path): lines(path) for path in LAUNCH if lines(path) >= 100}
    assert not too_long


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_that_is_loaded_can_run_code(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {module.split(".")[0] for module in imports(tree)}
    assert not modules & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code":
                    assert isinstance(value, ast.Constant)
                    assert value.value is False
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert call not in (
                "torch.load",
                "eval",
                "exec",
                "yaml.load",
                "yaml.unsafe_load",
                "yaml.full_load",
            ), call
