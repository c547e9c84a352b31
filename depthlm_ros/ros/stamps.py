"""Which messages reach the synchronizer: those whose stamp is a time, and of the images those that are new."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from message_filters import SimpleFilter

from depthlm_ros.ros.messages import stamp_ns

BACK_NS = 1_000_000_000
"""Images whose stamps go back by more belong to another time, not merely to another order of arrival."""

KEPT = 4096
"""Accepted stamps that are remembered: more than any camera sends in ``BACK_NS``, beyond which none can return."""


class TrueStamps(SimpleFilter):  # type: ignore[misc]
    """Passes on the messages of a filter whose stamp is a time but zero, and tells of the others.

    message_filters makes an ``rclpy.time.Time`` of every stamp, which raises for negative seconds; the exception
    would leave the subscription's callback and end the node.
    """

    def __init__(self, source: SimpleFilter, refuse: Callable[[str], None]) -> None:
        """Connect to a filter.

        Args:
            source: Gives messages with a header.
            refuse: Told why a message goes no further.
        """
        super().__init__()
        self._refuse = refuse
        source.registerCallback(self._check)

    def _check(self, message: Any) -> None:
        stamp = message.header.stamp
        if stamp.sec >= 0 and stamp.nanosec < 1_000_000_000 and (stamp.sec or stamp.nanosec):
            self.signalMessage(message)
        elif not stamp.sec and not stamp.nanosec:
            self._refuse(
                f"the stamp of a {type(message).__name__} is zero, which means none: let the driver stamp what it "
                "publishes"
            )
        else:
            self._refuse(
                f"the stamp {stamp.sec} s {stamp.nanosec} ns of a {type(message).__name__} is no time: expected "
                "seconds from 0 and nanoseconds below 1e9; repair the driver that stamps it"
            )


class NewStamps(SimpleFilter):  # type: ignore[misc]
    """Passes on the images of a filter whose stamp was not accepted before, so that none is answered twice.

    They are held back before they are paired: one that waits in the synchronizer would take another's CameraInfo.
    """

    def __init__(
        self, source: SimpleFilter, repeated: Callable[[str], None], went_back: Callable[[int, int], None]
    ) -> None:
        """Connect to a filter.

        Args:
            source: Gives images whose stamp is a time.
            repeated: Told why an image goes no further.
            went_back: Told how many nanoseconds the stamps went back by, and to which; the accepted ones are
                forgotten then, since the same stamps are new ones of another time.
        """
        super().__init__()
        self._repeated, self._went_back = repeated, went_back
        self._lock = threading.Lock()
        self._accepted: dict[int, None] = {}
        self._latest = 0
        source.registerCallback(self._check)

    def accept(self, stamp: int) -> None:
        """Let no further image of this stamp, in nanoseconds, pass."""
        with self._lock:
            self._accepted[stamp] = None
            if len(self._accepted) > KEPT:
                del self._accepted[next(iter(self._accepted))]

    def forget(self) -> None:
        """Forget the stamps so far; in any thread."""
        with self._lock:
            self._accepted.clear()
            self._latest = 0

    def _check(self, image: Any) -> None:
        stamp = stamp_ns(image.header)
        with self._lock:
            back = self._latest - stamp
            if back > BACK_NS:
                self._accepted.clear()
            self._latest = stamp
            known = stamp in self._accepted
        if back > BACK_NS:
            self._went_back(back, stamp)
        if known:
            self._repeated(
                f"an image of {stamp // 10**9}.{stamp % 10**9:09d} was taken already: do two drivers, a relay or two "
                "bags publish on one topic, or does the driver not stamp anew?"
            )
        else:
            self.signalMessage(image)
