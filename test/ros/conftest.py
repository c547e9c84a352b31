"""A ROS graph for tests: a domain of its own, and the node as a process."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from graph import Bench, NodeProcess

if TYPE_CHECKING:
    from gated import Gated

if os.environ.get("DEPTHLM_REQUIRE_ROS"):
    # `make test` has set ROS up, so a skip would hide that it did not work.
    importlib.import_module("rclpy")

REPOSITORY = Path(__file__).parents[2]


@contextlib.contextmanager
def own_domain() -> Iterator[int]:
    """A ROS domain that no other test run on this machine uses, held by a lock file."""
    for domain in range(60, 101):
        path = Path(tempfile.gettempdir()) / f"depthlm_ros_domain_{domain}.lock"
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain
            return
    raise RuntimeError("every ROS domain from 60 to 100 is taken by another test run")


@pytest.fixture(scope="session", autouse=True)
def _ros_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")
    with own_domain() as domain:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
        os.environ["ROS_LOG_DIR"] = str(tmp_path_factory.mktemp("ros_log"))
        from depthlm_ros.ros.demo import profile_variable

        os.environ.setdefault(profile_variable(), str(REPOSITORY / "config" / "fastdds.xml"))
        yield


@pytest.fixture
def engine() -> Gated:
    """A fake engine with a gate, which stands open."""
    from gated import Gated

    return Gated(batch_size=1000)


@pytest.fixture
def node(graph: tuple[NodeProcess, Bench]) -> NodeProcess:
    """The process of a file's own ``graph``."""
    return graph[0]


@pytest.fixture
def bench(graph: tuple[NodeProcess, Bench]) -> Bench:
    """The bench beside it."""
    return graph[1]
