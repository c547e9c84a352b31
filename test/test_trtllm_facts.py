"""What is used of TensorRT-LLM is what the facts say, what the stand-in takes, and what an unpacked wheel has."""

import ast
import os
from pathlib import Path

import pytest
from trtllm_facts import FACTS, problems

ROOT = Path(__file__).resolve().parents[1]
BACKEND = ROOT / "depthlm_ros" / "engines" / "trtllm_backend.py"
STAND_IN = Path(__file__).parent / "stand_ins" / "trtllm"


def label(fact):
    return f"{Path(fact['file']).stem}-{fact.get('class') or fact.get('name') or 'names'}"


def known(kind, **wanted):
    """All names that facts of a kind record."""
    facts = [f for f in FACTS["facts"] if f["kind"] == kind and all(f.get(k) == v for k, v in wanted.items())]
    return {name for fact in facts for name in (*fact.get("names", ()), *fact.get("parameters", ()))}


@pytest.mark.parametrize("fact", FACTS["facts"], ids=label)
def test_every_fact_says_where_it_was_read(fact):
    for source in fact["read_in"]:
        assert FACTS["sources"][source]["file"] == fact["file"]
        assert FACTS["sources"][source]["release_from"]
    assert fact["read_in"] or "not at hand" in fact["note"] or "without its commit" in fact["note"]


@pytest.mark.parametrize("fact", [f for f in FACTS["facts"] if f.get("stand_in", True)], ids=label)
def test_the_stand_in_is_as_the_facts_say(fact):
    assert problems(STAND_IN, fact) == []


@pytest.mark.parametrize("fact", FACTS["facts"], ids=label)
def test_a_release_is_as_the_facts_say(fact):
    wheel = os.environ.get("DEPTHLM_TRTLLM_WHEEL")
    if not wheel:
        pytest.skip("DEPTHLM_TRTLLM_WHEEL does not name the directory of an unpacked tensorrt_llm wheel")
    assert problems(Path(wheel), fact) == []


def test_a_fact_that_does_not_hold_is_seen(tmp_path):
    (tmp_path / "m.py").write_text("class A:\n    x: int = 0\n    def f(self, a, **kwargs): ...\n")
    fields = {"file": "m.py", "kind": "fields", "class": "A"}
    assert problems(tmp_path, fields | {"names": ["x"]}) == []
    assert problems(tmp_path, fields | {"names": ["x", "y"]}) == ["m.py: A has no field y"]
    assert problems(tmp_path, fields | {"class": "B", "names": []}) == ["m.py: there is no class B"]
    method = {"file": "m.py", "kind": "method", "name": "f"}
    assert problems(tmp_path, method | {"parameters": ["a", "**kwargs"]}) == []
    assert problems(tmp_path, method | {"parameters": ["b"]}) == ["m.py: no f takes ['b']"]
    assert problems(tmp_path, {"file": "m.py", "kind": "export", "names": ["C"]}) == [
        "m.py: C is not exported"
    ]
    assert problems(tmp_path, {"file": "n.py", "kind": "export", "names": []}) == ["n.py is not there"]


def test_the_backend_uses_nothing_that_the_facts_lack():
    tree = ast.parse(BACKEND.read_text(encoding="utf-8"))
    imported, keywords = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tensorrt_llm":
            imported |= {alias.name for alias in node.names}
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            keywords.setdefault(name, set()).update(k.arg for k in node.keywords)
    assert imported == known("export") - {"__version__"}
    assert keywords["SamplingParams"] == known("fields", **{"class": "SamplingParams"})
    assert keywords["KvCacheConfig"] == known("fields", **{"class": "KvCacheConfig"})
    assert keywords["LLM"] == known("fields", **{"class": "BaseLlmArgs"})
    assert keywords["generate_async"] | {"inputs"} == known("method", name="generate_async")


def test_the_parent_never_imports_it():
    for path in (ROOT / "depthlm_ros").rglob("*.py"):
        if path == BACKEND:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "tensorrt_llm" for name in names), path
