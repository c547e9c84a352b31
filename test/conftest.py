"""What the tests without ROS have in common."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from shared_data import GOLDEN, shared_file

settings.register_profile("busy", deadline=None, max_examples=60, print_blob=True)
settings.load_profile("busy")

_COUNT_PROCESSES = ("test_worker_process", "test_worker_process_messages", "test_trtllm_engine")
_ELSEWHERE = ("test_bond", "test_fuzz", "test_fuzz_node")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where pytest-xdist runs the tests in several processes, a file's stay together, and those of real nodes in one.

    Nodes are not to wait for each other's cores, and what counts the workers' processes must not see those of others.
    The two longest go elsewhere: the fuzzed node, whose frames come one after the other at any speed, and bonds,
    which wait most of the time.

    A test of a running node that fails is run once more, and the report says so (RERUN), as ROS 2's own CI does with
    `colcon test --retest-until-pass`: DDS drops what is sent before two processes have discovered each other.
    """
    for item in items:
        name, node = item.path.stem, item.path.parent.name in ("ros", "launch")
        if node:
            item.add_marker(pytest.mark.flaky(reruns=1))
        one = name in _COUNT_PROCESSES or (node and name not in _ELSEWHERE)
        item.add_marker(pytest.mark.xdist_group("nodes" if one else name))


@pytest.fixture
def shared() -> Callable[..., Path]:
    """Finds a file of ``../shared`` or skips the test with the reason."""
    return shared_file


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Geometry and hashes that the official code produced from an image that is given by a formula."""
    record: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return record
