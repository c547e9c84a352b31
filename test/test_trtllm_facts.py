"""What is used of TensorRT-LLM is what the facts say, what the stand-in takes, and what an unpacked wheel has."""

import ast
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from servers.kinds import TrtLlmServe
from trtllm_facts import FACTS, problems

from depthlm_ros.engines.base import Prompt
from depthlm_ros.engines.http_dialect import Dialect, PrefixWay, chat_request
from depthlm_ros.engines.trtllm_support import ARCHITECTURES, LAST_READ

ROOT = Path(__file__).resolve().parents[1]
BACKEND = ROOT / "depthlm_ros" / "engines" / "trtllm_backend.py"
SERVERS = Path(__file__).parent / "data" / "server_facts.json"
STAND_IN = Path(__file__).parent / "stand_ins" / "trtllm"


def label(fact):
    return f"{Path(fact['file']).stem}-{fact.get('class') or fact.get('name') or 'names'}"


def known(kind, **wanted):
    """All names that facts of a kind record."""
    facts = [f for f in FACTS["facts"] if f["kind"] == kind and all(f.get(k) == v for k, v in wanted.items())]
    return {name for fact in facts for name in (*fact.get("names", ()), *fact.get("parameters", ()))}


def lines(fact):
    """Release lines (1.0, 1.2, ...) of the known releases that a fact was read in."""
    releases = [FACTS["sources"][source]["release"] for source in fact["read_in"]]
    return {".".join(release.split(".")[:2]) for release in releases if not release.startswith("unknown")}


@pytest.mark.parametrize("fact", FACTS["facts"], ids=label)
def test_every_fact_says_where_it_was_read(fact):
    for name in fact["read_in"]:
        source = FACTS["sources"][name]
        assert source["release_from"]
        # A fact may show where another file uses or defines it; the note then names that file.
        elsewhere = Path(source["file"]).stem in fact.get("note", "")
        assert source["file"] in ("", fact["file"]) or elsewhere, name
    assert lines(fact), "no release that it was read in is known"


@pytest.mark.parametrize("fact", FACTS["facts"], ids=label)
def test_a_fact_was_read_in_every_line_or_says_why_not(fact):
    unread = fact.get("unread", {})
    assert lines(fact) & unread.keys() == set()
    assert lines(fact) | unread.keys() >= {"1.0", "1.2", "1.3"}
    assert all(unread.values())


def test_the_page_says_in_how_many_lines_the_facts_were_read():
    facts = FACTS["facts"]
    serve = [fact for fact in facts if fact["file"].startswith("tensorrt_llm/serve/")]
    assert all(lines(fact) == {"1.1"} for fact in serve)
    counts = [sum(line in lines(fact) for fact in facts) for line in ("1.0", "1.1", "1.2", "1.3")]
    everywhere = sum(lines(fact) >= {"1.0", "1.2", "1.3"} for fact in facts)
    page = " ".join((ROOT / "docs" / "engines.md").read_text(encoding="utf-8").split())
    said = "Of its {} facts {} were read in the 1.0 line, {} in 1.1, {} in 1.2 and {} in 1.3, and {} in all of 1.0"
    assert said.format(len(facts), *counts, everywhere) in page
    assert f"the {len(serve)} about trtllm-serve in no known release but 1.1.0rc6" in page


def test_the_stand_in_lays_out_image_and_text_as_the_facts_say():
    facts = json.loads(SERVERS.read_text(encoding="utf-8"))["trtllm-serve"]
    assert facts["image_and_text"].startswith("the image's placeholder, a line break")
    assert TrtLlmServe.separator == "\n"


def test_architectures_run_since_the_release_that_names_them_first():
    for fact in (f for f in FACTS["facts"] if f["kind"] == "registered"):
        first = min(tuple(map(int, line.split("."))) for line in lines(fact))
        assert {ARCHITECTURES[name] for name in fact["arguments"]} == {first}
    newest = max(line for fact in FACTS["facts"] for line in lines(fact))
    assert ".".join(map(str, LAST_READ)) == newest


def test_every_field_that_is_sent_to_trtllm_serve_was_read():
    prompt = Prompt((), "how far?", system="be brief", prefix="It is")
    tokens = SimpleNamespace(ids=lambda prompt: [1])
    dialects = [*(Dialect(prefix=way) for way in PrefixWay), Dialect(tokens=tokens)]
    bodies = [chat_request("m", prompt, [], dialect, max_tokens=9, stop=["."]) for dialect in dialects]
    (fact,) = (f for f in FACTS["facts"] if f.get("class") == "ChatCompletionRequest")
    taken = set(json.loads(SERVERS.read_text(encoding="utf-8"))["trtllm-serve"]["request_fields"])
    refused = {"continue_final_message", "repeat_penalty", "generation_config"}  # other servers' names
    sent = set().union(*bodies) - refused
    assert {"max_completion_tokens" if name == "max_tokens" else name for name in sent} == set(fact["names"])
    assert sent | set(fact["names"]) <= taken
    assert not refused & taken


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
