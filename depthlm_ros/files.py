"""Why a file cannot be used and what to do about it, in words: what libraries say is about their own insides."""

from __future__ import annotations

import errno
import json

import yaml

_WORDS = {
    errno.ENOENT: "there is no such file or directory: check the path",
    errno.EISDIR: "it is a directory: name a file",
    errno.ENOTDIR: "a part of the path is a file, not a directory: check the path",
    errno.EEXIST: "a file of this name is in the way: name another directory, or move the file",
    errno.EACCES: "access is denied: change its permissions, or name another path",
    errno.EPERM: "access is denied: change its permissions, or name another path",
    errno.EROFS: "it lies where nothing can be written: name another path",
    errno.ENOSPC: "the disk is full: make room, or name another path",
    errno.ELOOP: "its links lead in a circle: check the path",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}


def what_came(error: Exception) -> str:
    """What came instead of a usable file, and what to do: the second half of ``PATH: expected X, but ...``.

    Args:
        error: What opening, reading, writing or parsing raised.
    """
    if isinstance(error, OSError) and error.errno is not None:
        known = _WORDS.get(error.errno)
        return known or f"the system says {error.strerror!r}: check the path and its disk"
    if isinstance(error, UnicodeError):
        return "it holds bytes that are no UTF-8 text: name the right file"
    return f"it holds something else ({_detail(error)}): mend it, or name the right file"


def with_path(error: OSError) -> str:
    """What stopped a command that no loader explained, with the path where the system names one."""
    if error.errno is None:
        return str(error)
    return what_came(error) if error.filename is None else f"{error.filename}: {what_came(error)}"


def _detail(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
    return " ".join(str(error).split()) or type(error).__name__
