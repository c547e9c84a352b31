"""Checks the facts of ``data/trtllm_facts.json`` against source text, without importing it."""

import ast
import json
from pathlib import Path

FACTS = json.loads((Path(__file__).parent / "data" / "trtllm_facts.json").read_text(encoding="utf-8"))


def problems(root: Path, fact: dict) -> list[str]:
    """What of a fact does not hold for the package below ``root``; empty when all does."""
    path = root / fact["file"]
    if not path.is_file():
        return [f"{fact['file']} is not there"]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [f"{fact['file']}: {problem}" for problem in _KINDS[fact["kind"]](tree, fact)]


def _assigned(node: ast.AST) -> set[str]:
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Assign):
        targets = node.targets
    else:
        return set()
    return {
        t.id if isinstance(t, ast.Name) else t.attr
        for t in targets
        if isinstance(t, ast.Name | ast.Attribute)
    }


def _export(tree, fact):
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        found |= _assigned(node)
    return [f"{name} is not exported" for name in fact["names"] if name not in found]


def _fields(tree, fact):
    classes = [
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == fact["class"]
    ]
    if not classes:
        return [f"there is no class {fact['class']}"]
    found = {name for node in classes[0].body for name in _assigned(node)}
    return [f"{fact['class']} has no field {name}" for name in fact["names"] if name not in found]


def _method(tree, fact):
    methods = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == fact["name"]
    ]
    wanted = set(fact["parameters"])
    for method in methods:
        arguments = method.args
        names = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
        if arguments.kwarg:
            names.add(f"**{arguments.kwarg.arg}")
        if wanted <= names:
            return []
    return [f"no {fact['name']} takes {sorted(wanted)}"]


def _attribute(tree, fact):
    names = {name for node in ast.walk(tree) for name in _assigned(node)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return [] if fact["name"] in names else [f"nothing is called {fact['name']}"]


def _registered(tree, fact):
    found = {
        argument.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == fact["name"]
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    return [f"{name} is not registered" for name in fact["arguments"] if name not in found]


_KINDS = {
    "export": _export,
    "fields": _fields,
    "method": _method,
    "attribute": _attribute,
    "registered": _registered,
}
