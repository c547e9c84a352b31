"""What can go wrong with one HTTP request, in words that hold no secret and no image."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

_DATA_URI = re.compile(r"data:image/[^\s\"']*")
_MOST_WORDS = 300
"""Characters of a server's own words that are repeated."""


class CallError(Exception):
    """One request failed.

    Attributes:
        status: The HTTP status, or None where none came.
        retry: Whether the same request may succeed if it is sent again, perhaps to another server.
        retry_after_s: Seconds that the server asked to wait, or 0.
        server_failed: Whether this speaks against the server (and not against the request).
        timed_out: Whether the server took the request and gave no whole answer in time.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        retry: bool = False,
        retry_after_s: float = 0.0,
        server_failed: bool = False,
        timed_out: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status, self.retry = status, retry
        self.retry_after_s, self.server_failed, self.timed_out = retry_after_s, server_failed, timed_out


class ReplyError(ValueError):
    """An answer came but is not one that can be used; the message says what was expected and what came."""


def scrubbed(words: str, key: str) -> str:
    """A server's words without the images and the key that it may repeat, cut to a bearable length."""
    words = _DATA_URI.sub("(image)", words)
    if key:
        words = words.replace(key, "(key)")
    words = " ".join(words.split())
    return words if len(words) <= _MOST_WORDS else words[:_MOST_WORDS] + " ..."


def retry_after_s(header: str | None) -> float:
    """Read a Retry-After header, seconds or an HTTP date (RFC 9110, 10.2.3), as seconds from now.

    Returns:
        Seconds, at least 0; 0 where the header is missing or cannot be read.
    """
    if not header:
        return 0.0
    if header.strip().isascii() and header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def status_error(status: int, words: str, retry_after: float, patience_s: float) -> CallError:
    """What an HTTP status other than 200 means for a request.

    Args:
        status: The status.
        words: The server's words, scrubbed.
        retry_after: Seconds that the server asked to wait, or 0.
        patience_s: A server that asks to wait longer than this is not asked again.
    """
    reason = f"HTTP {status}" + (f": {words}" if words else "")
    if status in (401, 403):
        reason += "; put the server's key into an environment variable and its name into engine.api_key_env"
    elif 300 <= status < 400:
        reason += "; redirects are not followed: give the final address in engine.base_urls"
    busy = status in (429, 502, 503, 504)
    if busy and retry_after > patience_s:
        reason += f" (it asks to wait {retry_after:.0f} s, longer than engine.read_timeout_s)"
    return CallError(
        reason,
        status=status,
        retry=busy and retry_after <= patience_s,
        retry_after_s=retry_after,
        server_failed=status >= 500,
    )
