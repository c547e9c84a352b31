"""Links between the pages, and the names of options, files and commands that they mention."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from depthlm_ros.config import options
from depthlm_ros.evaluation.dense import FEWEST_QUERIES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
USER_PAGES = [
    ROOT / "docs" / f"{name}.md" for name in ("node", "nav2", "quickstart", "troubleshooting", "diagnostics")
]
NAMES = {name for name, _ in options()}
SECTIONS = {name.split(".")[0] for name in NAMES}


def anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {
        anchor(heading)
        for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if link.startswith(("http:", "https:")):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


@pytest.mark.parametrize("page", USER_PAGES, ids=lambda page: page.name)
def test_options_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"(?<![\w./~])((?:{'|'.join(sorted(SECTIONS))})\.[a-z_]+)\b(?!\.\w)", text))
    assert {name for name in named if not name.endswith((".md", ".yaml", ".py"))} <= NAMES
    # Without this the pattern could rot into one that finds nothing.
    assert len(named) >= 3 or page.stem == "quickstart"


def test_the_user_pages_are_found_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"docs/{page.name}" in readme for page in USER_PAGES)


def test_the_verdicts_at_the_top_of_the_findings_are_those_of_the_studies() -> None:
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| \[(.*)\]\(#.*\) \| ?(.*?) ?\|$", text, re.MULTILINE))
    found = {}
    for section in text.split("\n## ")[1:]:
        if "<!-- study:" in section:
            verdicts = re.findall(
                r"^\*\*(Confirmed|Not confirmed|Contradicted|Not judged)\*\*", section, re.MULTILINE
            )
            found[section.splitlines()[0]] = "; ".join(verdicts).lower()
    assert told == found


def written_by(page: Path) -> set[str]:
    """What the commands in a page's code blocks write below the directory in which they run."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if "depthlm " in line]
    found = [re.findall(r"--(out|run|json|plot|docs) ([^\s-]\S*)", command) for command in commands]
    paths = {f"{path}/x" if option in ("out", "run") and not Path(path).suffix else path
             for options in found for option, path in options}  # fmt: skip
    return {path.replace("$reuse", "true") for path in paths}


def test_git_ignores_what_the_commands_of_the_pages_write() -> None:
    if (
        shutil.which("git") is None
        or subprocess.run(["git", "status"], cwd=ROOT, capture_output=True).returncode
    ):
        pytest.skip("needs git and a checkout that it reads")
    written = set().union(*map(written_by, PAGES))
    assert {"data/x", "out/x", "scores/x", "runs/study/focal/x", "small.json"} <= written
    ignored = subprocess.run(
        ["git", "check-ignore", *sorted(written)], cwd=ROOT, capture_output=True, text=True
    )
    tracked = subprocess.run(["git", "ls-files", *sorted(written)], cwd=ROOT, capture_output=True, text=True)
    assert written - {*ignored.stdout.split(), *tracked.stdout.split()} == set()


def test_the_fewest_dense_queries_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert f"`--dense N` adds N for each image, {FEWEST_QUERIES} or more" in text
