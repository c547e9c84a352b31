"""Walls, floors, ceilings and what is fixed to them."""

from __future__ import annotations

import numpy as np

from depthlm_ros.synthetic import sizes
from depthlm_ros.synthetic.materials import Material, Paints, hsv
from depthlm_ros.synthetic.outdoors import facade_material
from depthlm_ros.synthetic.solids import Solid, box

Rng = np.random.Generator
Bounds = tuple[float, float, float, float]
_THICK = 0.2


class _Wall:
    """One wall: places things on it by distance along it, height and depth; x runs along, the room is at -y."""

    def __init__(self, centre_x: float, centre_y: float, yaw: float, length: float) -> None:
        self.length = length
        self._frame = (centre_x, centre_y, yaw)

    def put(
        self,
        material: Material,
        along: float,
        z: float,
        size: tuple[float, float],
        out: float,
        into: float = 0.0,
    ) -> Solid:
        """A plate of ``size`` (width, height), standing ``out`` metres out of the wall."""
        deep = out + into
        solid = box(material, (size[0], deep, size[1]), (along, into - deep / 2, z), casts_shadow=False)
        return solid.moved(*self._frame)


def interior(rng: Rng, paints: Paints, bounds: Bounds, height: float, kind: str) -> list[Solid]:
    """Floor, ceiling and four walls with doors, windows, pictures and skirting."""
    x_min, x_max, y_min, y_max = bounds
    industrial = kind == "hall"
    occlusion = float(rng.uniform(0.15, 0.45))
    size_x, size_y = x_max - x_min, y_max - y_min
    middle = ((x_min + x_max) / 2, (y_min + y_max) / 2)
    floor = paints.floor(industrial=industrial)._replace(corner_occlusion=occlusion)
    ceiling = _ceiling(rng, paints, industrial)._replace(corner_occlusion=occlusion)
    plate = (size_x, size_y, _THICK)
    solids = [
        box(floor, plate, (*middle, -_THICK), casts_shadow=False),
        box(ceiling, plate, (*middle, height), casts_shadow=False),
    ]
    wall_material = paints.wall(industrial=industrial)
    skirting = paints.plain(paints.wall_color(), grain=0.02).scaled(rng.uniform(0.3, 1.2))
    skirting_height = sizes.SKIRTING.draw(rng) if rng.random() < 0.65 else 0.0
    sides = (
        (middle[0], y_max, 0.0, size_x),
        (x_max, middle[1], -np.pi / 2, size_y),
        (middle[0], y_min, np.pi, size_x),
        (x_min, middle[1], np.pi / 2, size_y),
    )
    for x, y, yaw, length in sides:
        if rng.random() < 0.25:
            wall_material = paints.wall(industrial=industrial)
        wall = _Wall(x, y, yaw, length)
        surface = wall_material._replace(corner_occlusion=occlusion, phase=float(rng.uniform(0, 50)))
        solids.append(wall.put(surface, 0, 0, (length, height), 0.0, into=_THICK))
        if skirting_height:
            solids.append(wall.put(skirting, 0, 0, (length, skirting_height), 0.015))
        solids += _fittings(rng, paints, wall, height, kind)
    return solids


def _ceiling(rng: Rng, paints: Paints, industrial: bool) -> Material:
    if industrial:
        return paints.corrugated()
    if rng.random() < 0.4:
        value = float(rng.uniform(0.5, 0.8))
        tile = float(rng.choice([0.6, 0.625]))
        return Material(
            (value,) * 3, (value * 0.6,) * 3, tile, tile, 0.015, 0.015, grain=0.06, grain_size=0.03
        )
    return paints.plain(hsv(0.12, 0.03, rng.uniform(0.55, 0.85)), grain=0.03)


def _fittings(rng: Rng, paints: Paints, wall: _Wall, height: float, kind: str) -> list[Solid]:
    """Things in slots along the wall, so that they do not overlap."""
    solids: list[Solid] = []
    slot = {"room": 1.6, "corridor": 1.8, "hall": 4.5}[kind]
    count = int((wall.length - 0.4) / slot)
    door_paint = paints.wood() if rng.random() < 0.5 else paints.plain(paints.wall_color(), gloss=0.1)
    window_height = min(float(rng.uniform(0.9, 1.5)), height - sizes.WINDOW_SILL.high - 0.1)
    odds = {"room": (0.17, 0.22, 0.25), "corridor": (0.45, 0.08, 0.2), "hall": (0.2, 0.15, 0.2)}[kind]
    for index in range(count):
        along = (index + 0.5 + rng.uniform(-0.1, 0.1)) * wall.length / count - wall.length / 2
        pick = rng.random()
        if pick < odds[0]:
            gate = kind == "hall" and rng.random() < 0.4
            solids += _gate(rng, paints, wall, along) if gate else _door(rng, paints, wall, along, door_paint)
        elif pick < odds[0] + odds[1]:
            solids += _window(rng, paints, wall, along, window_height)
        elif pick < sum(odds):
            solids += _picture(rng, paints, wall, along)
        elif pick < sum(odds) + 0.15:
            solids += _small_thing(rng, paints, wall, along)
    return solids


def _door(rng: Rng, paints: Paints, wall: _Wall, along: float, paint: Material) -> list[Solid]:
    width, height = sizes.DOOR_WIDTH.draw(rng), sizes.DOOR_HEIGHT.draw(rng)
    frame = paint.scaled(rng.uniform(0.6, 1.3))
    solids = [
        wall.put(frame, along - width / 2 - 0.035, 0, (0.07, height + 0.07), 0.03),
        wall.put(frame, along + width / 2 + 0.035, 0, (0.07, height + 0.07), 0.03),
        wall.put(frame, along, height, (width, 0.07), 0.03),
        wall.put(paint, along, 0.005, (width, height - 0.005), 0.017),
        wall.put(paints.metal(), along + (width / 2 - 0.1) * rng.choice([-1, 1]), 1.05, (0.13, 0.025), 0.07),
    ]
    if rng.random() < 0.3:
        panel = paint.scaled(0.75)
        solids.append(wall.put(panel, along, 1.2, (width * 0.65, 0.65), 0.022))
        solids.append(wall.put(panel, along, 0.25, (width * 0.65, 0.7), 0.022))
    elif rng.random() < 0.2:
        glass = paints.plain((0.25, 0.3, 0.33), grain=0.05, gloss=0.6)
        solids.append(wall.put(glass, along, 0.9, (width * 0.5, 0.9), 0.022))
    return solids


def _gate(rng: Rng, paints: Paints, wall: _Wall, along: float) -> list[Solid]:
    """A roller door."""
    color = paints.wall_color()
    slats = Material(color, (color[0] * 0.5,) * 3, 30.0, 0.1, 0.0, 0.012, grain=0.04, gloss=0.2)
    return [wall.put(slats, along, 0, (float(rng.uniform(2.4, 3.6)), float(rng.uniform(2.6, 3.6))), 0.02)]


def _window(rng: Rng, paints: Paints, wall: _Wall, along: float, height: float) -> list[Solid]:
    sill, width = sizes.WINDOW_SILL.draw(rng), float(rng.uniform(0.7, 1.4))
    frame = paints.plain((0.7, 0.7, 0.7) if rng.random() < 0.6 else paints.any_color(), grain=0.02)
    bright = hsv(rng.uniform(0.52, 0.62), rng.uniform(0, 0.35), 0.9)
    view = Material(
        bright,
        grain=0.2,
        grain_size=0.5,
        emission=float(rng.uniform(0.3, 1.4)),
        phase=float(rng.uniform(0, 50)),
    )
    solids = [
        wall.put(view, along, sill, (width, height), 0.004),
        wall.put(frame, along, sill, (width, 0.06), 0.04),
        wall.put(frame, along, sill + height - 0.05, (width, 0.05), 0.03),
        wall.put(frame, along, sill - 0.03, (width + 0.1, 0.03), 0.15),
    ]
    for share in (-0.5, 0.0, 0.5) if rng.random() < 0.7 else (-0.5, 0.5):
        solids.append(wall.put(frame, along + share * (width - 0.05), sill, (0.05, height), 0.03))
    if rng.random() < 0.3:
        radiator = Material((0.65,) * 3, wave=0.25, wave_period=0.05, grain=0.02)
        solids.append(wall.put(radiator, along, 0.12, (width, 0.55), 0.1))
    return solids


def _picture(rng: Rng, paints: Paints, wall: _Wall, along: float) -> list[Solid]:
    """A poster, picture or notice board: DIN A formats and the like."""
    width = float(rng.uniform(0.3, 1.0))
    height = width * float(rng.choice([1.41, 0.71, 0.75, 1.0]))
    z = float(rng.uniform(1.1, 1.5)) - height * 0.3
    first, second = paints.any_color(), paints.any_color()
    print_ = Material(
        first, second, width * rng.uniform(0.15, 0.6), height * rng.uniform(0.08, 0.5), 0.02, 0.02,
        cell_contrast=0.5, cell_hue=0.6, grain=0.15, grain_size=0.1, stagger=-1.0, phase=float(rng.uniform(0, 50)),
    )  # fmt: skip
    solids = [wall.put(print_, along, z, (width, height), 0.012)]
    if rng.random() < 0.6:
        solids.append(wall.put(paints.wood(), along, z - 0.03, (width + 0.06, height + 0.06), 0.008))
    return solids


def _small_thing(rng: Rng, paints: Paints, wall: _Wall, along: float) -> list[Solid]:
    """A switch, an extinguisher or a sign."""
    pick = rng.integers(3)
    if pick == 0:
        return [wall.put(paints.plain((0.7, 0.7, 0.7)), along, 1.05, (0.08, 0.08), 0.012)]
    if pick == 1:
        return [wall.put(paints.plain((0.5, 0.02, 0.02), gloss=0.4), along, 0.7, (0.16, 0.5), 0.16)]
    return [wall.put(paints.plain((0.02, 0.3, 0.1)), along, 2.1, (0.3, 0.15), 0.02)]


def yard(rng: Rng, paints: Paints, bounds: Bounds) -> list[Solid]:
    """Ground to the horizon, and house fronts or walls on some sides."""
    x_min, x_max, y_min, y_max = bounds
    solids = [box(paints.ground(), (600, 600, _THICK), (0, 0, -_THICK), casts_shadow=False)]
    size_x, size_y = x_max - x_min, y_max - y_min
    sides = ((0.0, y_max, 0.0, size_x), (x_max, 0.0, -np.pi / 2, size_y),
             (0.0, y_min, np.pi, size_x), (x_min, 0.0, np.pi / 2, size_y))  # fmt: skip
    for x, y, yaw, length in sides:
        pick = rng.random()
        setback = float(rng.uniform(0, 12))
        if pick < 0.45:
            height = sizes.STOREY.draw(rng) * int(rng.integers(1, 5))
            house = box(
                facade_material(rng, paints),
                (length * rng.uniform(0.5, 1.1), 9.0, height),
                (0, 4.5 + setback, 0),
            )
        elif pick < 0.65:
            surface = (paints.brick, paints.concrete, paints.blocks, paints.corrugated)[rng.integers(4)]()
            house = box(surface, (length, 0.25, float(rng.uniform(1.2, 3.5))), (0, 0.125, 0))
        else:
            continue
        solids.append(house.moved(x, y, yaw))
    for _ in range(int(rng.integers(2, 9))):
        # A far skyline of blocks and tree lines, so that yards do not end in a bare horizon.
        bearing, distance = rng.uniform(0, 2 * np.pi), rng.uniform(35, 110)
        far = facade_material(rng, paints) if rng.random() < 0.5 else paints.foliage()
        block = box(
            far, (float(rng.uniform(8, 30)), 8.0, float(rng.uniform(3, 14))), (0, 0, 0), casts_shadow=False
        )
        solids.append(
            block.moved(distance * np.cos(bearing), distance * np.sin(bearing), bearing + np.pi / 2)
        )
    return solids
