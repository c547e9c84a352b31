"""The service ``~/query_depth``: depth at the pixels that the caller names."""

from __future__ import annotations

import time

from geometry_msgs.msg import Point

from depthlm_ros.ros import messages
from depthlm_ros.ros.desk import (
    Service,
    Serving,
    measure,
    named_frame,
    pixels_of,
    require_newest,
    timeout_of,
)
from depthlm_ros.srv import QueryDepth

MAX_PIXELS = 4096
"""More pixels in one request are refused, so that one caller cannot keep the stream waiting for long."""


class QueryService(Service):
    """Answers with the depth at each pixel."""

    kind, name = QueryDepth, "~/query_depth"

    def _answer(self, request: QueryDepth.Request, response: QueryDepth.Response, serving: Serving) -> None:
        pixels = pixels_of(request.u, request.v)
        timeout = timeout_of(request.timeout_s, serving)
        if not len(pixels) or len(pixels) > MAX_PIXELS:
            raise ValueError(f"expected 1 to {MAX_PIXELS} pixels, got {len(pixels)}")
        require_newest(serving)
        measured = measure(serving, pixels, named_frame("stamp", request.stamp, serving.frames), timeout)
        pair, sparse = measured.pair, measured.sparse.at(pixels)
        response.message = ", ".join(f"{n} {k}" for k, n in sparse.reasons().items())
        latency = time.monotonic() - pair.arrived
        response.result = messages.sparse_depth(
            sparse, pair.header, latency_s=latency, counters=self._health.counters()
        )
        response.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in sparse.points()]
