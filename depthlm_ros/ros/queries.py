"""The service ``~/query_depth``: depth at the pixels that the caller names."""

from __future__ import annotations

import time

from geometry_msgs.msg import Point

from depthlm_ros.ros import messages
from depthlm_ros.ros.desk import (
    Service,
    Serving,
    answer_between_frames,
    pixels_of,
    require_newest,
    timeout_of,
)
from depthlm_ros.ros.pipeline import matches
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
        pair = require_newest(serving)
        if not matches(pair, messages.time_ns(request.stamp)):
            raise ValueError("only the newest frame is kept; leave the stamp zero to ask it")
        limit = serving.stream.max_age_s
        sparse = answer_between_frames(
            serving,
            timeout,
            lambda pipeline, deadline: pipeline.query(pair, pixels, max_age_s=limit, deadline=deadline),
        )
        self._health.asked_points(sparse)
        sparse = sparse.at(pixels)
        response.message = ", ".join(f"{n} {k}" for k, n in sparse.reasons().items())
        latency = time.monotonic() - pair.arrived
        response.result = messages.sparse_depth(
            sparse, pair.header, latency_s=latency, counters=self._health.counters()
        )
        response.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in sparse.points()]
