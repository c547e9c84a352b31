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

    def placed(self, x: float, y: float, yaw: float, z: float = 0.0) -> tuple[tuple[Solid, ...], Footprint]:
        """The solids in the world and the floor they block."""
        solids = tuple(solid.moved(x, y, yaw, z) for solid in self.solids)
        return solids, Footprint(x, y, self.half_x, self.half_y, yaw)


Builder = Callable[[np.random.Generator, Paints], Assembly]
