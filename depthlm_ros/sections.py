"""Sections of a document that commands fill in: what stands between two comments is replaced."""

from __future__ import annotations

from pathlib import Path

from depthlm_ros.files import what_came


class SectionError(ValueError):
    """A document is not there, or has no such section."""


def write_section(path: Path, kind: str, name: str, text: str, *, what: str) -> None:
    """Put a text between ``<!-- KIND: NAME -->`` and ``<!-- end: NAME -->`` of a document.

    Args:
        path: The document.
        kind: What fills the section.
        name: The section.
        text: What goes between the marks; what was there is dropped.
        what: The text in words, for the error, as in "the table goes".

    Raises:
        SectionError: The document is not there or lacks the marks.
    """
    first, last = f"<!-- {kind}: {name} -->", f"<!-- end: {name} -->"
    try:
        whole = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SectionError(f"{path}: expected a document, but {what_came(error)}") from error
    before, begun, rest = whole.partition(first)
    _, ended, after = rest.partition(last)
    if not begun or not ended:
        raise SectionError(f"{path}: expected the lines {first} and {last}, between which {what}")
    path.write_text(f"{before}{first}\n{text.strip()}\n{last}{after}", encoding="utf-8")
