"""Builds whole scenes: the shell, what stands in it, and the light."""

from __future__ import annotations

import numpy as np

from depthlm_ros.synthetic import furniture, outdoors, people, shell, sizes, warehouse
from depthlm_ros.synthetic.assembly import Assembly, Builder
from depthlm_ros.synthetic.cameras import Domain
from depthlm_ros.synthetic.lighting import draw_look, indoor_light, outdoor_light
from depthlm_ros.synthetic.materials import Paints
from depthlm_ros.synthetic.scene import Footprint, Scene, bake_floor_light
from depthlm_ros.synthetic.solids import Solid, tabulate

Rng = np.random.Generator
Bounds = tuple[float, float, float, float]

KINDS = ("room", "corridor", "hall", "yard")
_KIND_ODDS = {Domain.ROBOT: (0.5, 0.25, 0.25, 0.0), Domain.WIDE: (0.35, 0.15, 0.2, 0.3)}

_ALONG_WALLS: dict[str, tuple[tuple[Builder, float], ...]] = {
    "room": ((furniture.shelf, 3), (furniture.cabinet, 4), (furniture.sofa, 3), (furniture.table, 2),
             (furniture.bed, 1), (furniture.plant, 2), (furniture.bin_, 1)),
    "corridor": ((furniture.cabinet, 2), (furniture.chair, 2), (furniture.plant, 2), (furniture.bin_, 2),
                 (warehouse.cartons, 1)),
    "hall": ((warehouse.rack, 6), (warehouse.pallet, 2), (warehouse.drum, 1), (warehouse.stairs, 0.5),
             (furniture.cabinet, 1)),
    "yard": ((outdoors.fence, 2), (outdoors.hedge, 2), (outdoors.bench, 1), (outdoors.car, 2)),
}  # fmt: skip
_FREE_STANDING: dict[str, tuple[tuple[Builder, float], ...]] = {
    "room": ((furniture.table, 3), (furniture.chair, 5), (people.person, 1.2), (furniture.plant, 1),
             (warehouse.cartons, 1), (furniture.bin_, 0.5), (furniture.sofa, 0.7)),
    "corridor": ((people.person, 2), (furniture.bin_, 0.5), (warehouse.cone, 0.7), (warehouse.cartons, 1)),
    "hall": ((warehouse.pallet, 4), (warehouse.cartons, 2), (warehouse.pillar, 1.5), (warehouse.cone, 1),
             (people.person, 2), (warehouse.drum, 1), (warehouse.rack, 1.5)),
    "yard": ((outdoors.tree, 3), (outdoors.car, 2.5), (people.person, 2), (warehouse.cone, 1),
             (outdoors.bollard, 1), (outdoors.lamp_post, 1), (outdoors.bench, 0.7), (warehouse.pallet, 0.7),
             (outdoors.hedge, 0.7)),
}  # fmt: skip


_TRIES = 6


class _Floor:
    """Keeps objects from standing inside each other."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.footprints: list[Footprint] = []
        self._extents: list[tuple[float, float]] = []
        self.solids: list[Solid] = []

    def try_place(self, assembly: Assembly, x: float, y: float, yaw: float, gap: float) -> bool:
        """Place an assembly unless its (axis-aligned) bounds meet a wall or another's."""
        footprint = assembly.footprint(x, y, yaw)
        reach_x, reach_y = _extent(footprint)
        x_min, x_max, y_min, y_max = self.bounds
        if x - reach_x < x_min or x + reach_x > x_max or y - reach_y < y_min or y + reach_y > y_max:
            return False
        for other, (other_x, other_y) in zip(self.footprints, self._extents, strict=True):
            if abs(other.x - x) < other_x + reach_x + gap and abs(other.y - y) < other_y + reach_y + gap:
                return False
        self.footprints.append(footprint)
        self._extents.append((reach_x, reach_y))
        self.solids.extend(solid.moved(x, y, yaw) for solid in assembly.solids)
        return True


def _extent(footprint: Footprint) -> tuple[float, float]:
    cos_yaw, sin_yaw = abs(np.cos(footprint.yaw)), abs(np.sin(footprint.yaw))
    return (
        float(cos_yaw * footprint.half_x + sin_yaw * footprint.half_y),
        float(sin_yaw * footprint.half_x + cos_yaw * footprint.half_y),
    )


def build_scene(rng: Rng, domain: Domain, kind: str | None = None) -> Scene:
    """Draw a scene.

    Args:
        rng: Source of randomness; the same state gives the same scene.
        domain: Decides how often each kind comes.
        kind: One of `KINDS`, or None to draw one.
    """
    if kind is None:
        kind = KINDS[int(rng.choice(len(KINDS), p=_KIND_ODDS[domain]))]
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    paints = Paints(rng)
    bounds, height = _dimensions(rng, kind)
    floor = _Floor(bounds)
    _furnish(rng, paints, floor, kind)
    if kind == "yard":
        solids = shell.yard(rng, paints, bounds)
        light = outdoor_light(rng)
    else:
        solids = shell.interior(rng, paints, bounds, height, kind)
        light = indoor_light(rng, bounds, height)
        solids += light.fixtures
    table = tabulate(solids + floor.solids)
    return Scene(
        kind=kind,
        solids=table,
        bounds=bounds,
        height=height,
        footprints=tuple(floor.footprints),
        lamps=light.lamps,
        ambient=light.ambient,
        sky=light.sky,
        floor_light=bake_floor_light(table, bounds, light.lamps),
        look=draw_look(rng),
    )


def _dimensions(rng: Rng, kind: str) -> tuple[Bounds, float]:
    """Free floor, centred on the origin, and height."""
    if kind == "room":
        length, width = sizes.ROOM_LENGTH.draw(rng), sizes.ROOM_WIDTH.draw(rng)
        height = sizes.ROOM_HEIGHT.draw(rng)
    elif kind == "corridor":
        length, width = sizes.CORRIDOR_LENGTH.draw(rng), sizes.CORRIDOR_WIDTH.draw(rng)
        height = sizes.ROOM_HEIGHT.draw(rng)
    elif kind == "hall":
        length, width = sizes.HALL_LENGTH.draw(rng), sizes.HALL_WIDTH.draw(rng)
        height = sizes.HALL_HEIGHT.draw(rng)
    else:
        length, width = sizes.YARD_LENGTH.draw(rng), sizes.YARD_WIDTH.draw(rng)
        height = float("inf")
    return (-length / 2, length / 2, -width / 2, width / 2), height


def _furnish(rng: Rng, paints: Paints, floor: _Floor, kind: str) -> None:
    x_min, x_max, y_min, y_max = floor.bounds
    area = (x_max - x_min) * (y_max - y_min)
    density = float(rng.uniform(0.3, 1.2))
    along = {"room": 9, "corridor": 8, "hall": 9, "yard": 8}[kind]
    free = {"room": 5 + area / 10, "corridor": 2 + area / 16, "hall": 8 + area / 25, "yard": 10 + area / 40}[
        kind
    ]
    # Passages stay wide enough for the camera.
    gap = {"room": 0.15, "corridor": 0.4, "hall": 0.7, "yard": 0.5}[kind]
    for _ in range(round(along * density)):
        assembly = _draw(rng, _ALONG_WALLS[kind])(rng, paints)
        side = int(rng.integers(4)) if kind != "corridor" else int(rng.integers(2)) * 2
        off = assembly.half_y + 0.01 + (rng.uniform(0, 0.1) if rng.random() < 0.5 else 0.0)
        for _ in range(_TRIES):
            x, y = float(rng.uniform(x_min, x_max)), float(rng.uniform(y_min, y_max))
            spot = ((x, y_max - off, 0.0), (x_max - off, y, -np.pi / 2), (x, y_min + off, np.pi),
                    (x_min + off, y, np.pi / 2))[side]  # fmt: skip
            if floor.try_place(assembly, *spot, gap=gap):
                break
    for _ in range(round(free * density)):
        assembly = _draw(rng, _FREE_STANDING[kind])(rng, paints)
        yaw = float(rng.uniform(0, 2 * np.pi))
        if rng.random() < 0.5:
            yaw = float(rng.integers(4) * np.pi / 2 + rng.normal(0, 0.05))
        for _ in range(_TRIES):
            x, y = float(rng.uniform(x_min, x_max)), float(rng.uniform(y_min, y_max))
            if floor.try_place(assembly, x, y, yaw, gap=gap):
                break


def _draw(rng: Rng, options: tuple[tuple[Builder, float], ...]) -> Builder:
    weights = np.array([weight for _, weight in options])
    return options[int(rng.choice(len(options), p=weights / weights.sum()))][0]
