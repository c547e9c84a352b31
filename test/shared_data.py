"""Where the data lies that is too large for the repository, or is not ours to ship."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""A folder beside the checkout; a checkout alone skips what needs it."""

GOLDEN = Path(__file__).parent / "data" / "canonical.json"
"""Copy of ``golden/canonical.json`` of that folder: sizes, marker positions and hashes, no images."""


def shared_file(*parts: str) -> Path:
    """A file or folder of ``../shared``; skips the test, saying what is missing, where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(
            f"../shared/{'/'.join(parts)} is absent: this check runs where the shared data lies beside it"
        )
    return path
