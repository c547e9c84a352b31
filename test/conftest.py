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


@pytest.fixture
def shared() -> Callable[..., Path]:
    """Finds a file of ``../shared`` or skips the test with the reason."""
    return shared_file


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Geometry and hashes that the official code produced from an image that is given by a formula."""
    record: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return record
