"""The command as it is installed, where starting processes of its own differs from calling it in a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.prefix) / "bin" / "depthlm"


@pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not installed: run `make setup`")
def test_the_installed_command_renders_a_benchmark(tmp_path: Path) -> None:
    run = subprocess.run(
        [COMMAND, "render", "--out", tmp_path, "--scenes", "3", "--seed", "5", "--domain", "robot"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "robot.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert (tmp_path / json.loads(lines[0])["image"]).is_file()
