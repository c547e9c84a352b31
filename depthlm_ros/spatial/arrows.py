"""Arrows for one or two points of an image, alike as in the paper."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from depthlm_ros.engines.base import Paint
from depthlm_ros.prompting import MARKER_OFFSETS, marker_paint


def arrows_paint(xy: npt.ArrayLike) -> Paint | None:
    """The red arrows that point at canonical pixels, as one paint.

    Args:
        xy: The pixels as (x, y), shape (N, 2), each drawable.

    Returns:
        The paint; None for no pixels.
    """
    paints = [marker_paint(int(x), int(y)) for x, y in np.asarray(xy).reshape(-1, 2)]
    if not paints:
        return None
    return Paint(tuple(place for paint in paints for place in paint.xy), paints[0].rgb)


def uncovered(xy: npt.ArrayLike) -> bool:
    """Whether the targets differ and none lies under an arrow, so that the model sees every one of them.

    Args:
        xy: Canonical pixels, shape (N, 2).
    """
    targets = [(int(x), int(y)) for x, y in np.asarray(xy).reshape(-1, 2)]
    painted = {(x + dx, y + dy) for x, y in targets for dx, dy in MARKER_OFFSETS}
    return len(set(targets)) == len(targets) and painted.isdisjoint(targets)
