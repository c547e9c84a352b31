"""What the tests of the launch files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BUILD = "needs the executables: build with colcon and source install/setup.bash"


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Arguments that keep a launched node to itself and quick; skips where it is not built."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        built = Path(get_package_prefix("depthlm_ros"), "lib", "depthlm_ros", "depthlm").exists()
    except PackageNotFoundError:
        built = False
    if not built:
        pytest.skip(BUILD)
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**:\n  ros__parameters:\n    engine.threads: 1\n", encoding="utf-8")
    return {"namespace": f"launch_test_{os.getpid()}", "params_file": str(mine)}
