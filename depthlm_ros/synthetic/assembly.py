"""An object: solids in a frame of its own, and how much floor it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from depthlm_ros.synthetic.materials import Paints
from depthlm_ros.synthetic.scene import Footprint
from depthlm_ros.synthetic.solids import Solid


@dataclass(frozen=True)
class Assembly:
    """Solids around the origin, standing on z = 0, front towards -y; ``half_x`` and ``half_y`` bound them (m)."""

    name: str
    solids: tuple[Solid, ...]
    half_x: float
    half_y: float

    def footprint(self, x: float, y: float, yaw: float) -> Footprint:
        """The floor it blocks when it stands at (x, y), turned by ``yaw``."""
        return Footprint(x, y, self.half_x, self.half_y, yaw)


Builder = Callable[[np.random.Generator, Paints], Assembly]
