"""What stands in halls and warehouses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from depthlm_ros.synthetic import sizes
from depthlm_ros.synthetic.assembly import Assembly
from depthlm_ros.synthetic.materials import Material, Paints, hsv
from depthlm_ros.synthetic.solids import Solid, box, frustum

Rng = np.random.Generator


def _pallet_solids(wood: Material, z: float = 0.0, x: float = 0.0) -> list[Solid]:
    """A EUR pallet as deck, nine blocks' worth of stringers and base boards."""
    length, width, height = sizes.PALLET_LENGTH.low, sizes.PALLET_WIDTH.low, sizes.PALLET_HEIGHT.low
    deck = 0.044
    solids = [box(wood, (length, width, deck), (x, 0, z + height - deck))]
    for row in (-1, 0, 1):
        y = row * (width / 2 - 0.05)
        solids.append(box(wood.scaled(0.85), (length, 0.1, 0.022), (x, y, z), casts_shadow=False))
        for block in (-1, 0, 1):
            foot = (x + block * (length / 2 - 0.07), y, z + 0.022)
            solids.append(box(wood.scaled(0.8), (0.14, 0.1, height - deck - 0.022), foot, casts_shadow=False))
    return solids


def pallet(rng: Rng, paints: Paints) -> Assembly:
    """A EUR pallet (EN 13698-1), empty, stacked or loaded with cartons."""
    wood = paints.wood(value=rng.uniform(0.3, 0.55))
    solids = _pallet_solids(wood)
    height = sizes.PALLET_HEIGHT.low
    load = rng.random()
    if load < 0.25:
        for level in range(1, int(rng.integers(2, 7))):
            solids += _pallet_solids(wood, level * height)[:1]
            side = box(wood.scaled(0.5), (1.14, 0.74, 0.1), (0, 0, level * height), casts_shadow=False)
            solids.append(side)
    elif load < 0.8:
        solids += _load(rng, paints, height, 1.2, 0.8, rng.uniform(0.4, 1.6))
    return Assembly("pallet", tuple(solids), 0.6, 0.4)


def _load(rng: Rng, paints: Paints, z: float, length: float, width: float, height: float) -> list[Solid]:
    """Cartons in layers, drawn as one block with carton-sized cells, or a few big crates."""
    if rng.random() < 0.6:
        board = paints.cardboard()
        layer, carton = rng.uniform(0.2, 0.4), float(rng.choice([0.3, 0.4, 0.6]))
        load = Material(
            board.color, (0.05, 0.04, 0.03), carton, layer, 0.006, 0.006,
            cell_contrast=0.15, grain=0.06, phase=0.0,
        )  # fmt: skip
        layers = max(1, round(height / layer))
        return [box(load, (length * 0.98, width * 0.98, layers * layer), (0, 0, z))]
    solids = []
    for side in (-1, 1):
        tall = float(height * rng.uniform(0.4, 1.0))
        crate = paints.cardboard() if rng.random() < 0.6 else paints.plain(paints.any_color())
        solids.append(box(crate, (length * 0.46, width * 0.9, tall), (side * length * 0.25, 0, z)))
    return solids


def rack(rng: Rng, paints: Paints) -> Assembly:
    """A pallet rack of one to three bays with uprights, beams and loads."""
    bay, depth, level = sizes.RACK_BAY.draw(rng), sizes.RACK_DEPTH.draw(rng), sizes.RACK_LEVEL.draw(rng)
    bays, levels = int(rng.integers(1, 4)), int(rng.integers(2, 4))
    upright = paints.metal(hsv(rng.choice([0.6, 0.62, 0.35]), 0.8, rng.uniform(0.2, 0.5)))
    beam = paints.metal(hsv(rng.choice([0.06, 0.08, 0.6]), 0.9, rng.uniform(0.4, 0.7)))
    wood = paints.wood(value=0.45)
    width, height = bays * bay, levels * level
    places = int(bay / 0.9) * bays
    solids: list[Solid] = []
    for post in range(bays + 1):
        x = post * bay - width / 2
        for y in (-1, 1):
            solids.append(box(upright, (0.1, 0.08, height), (x, y * (depth / 2 - 0.04), 0)))
        for brace in range(2 * levels):
            solids.append(
                box(
                    upright,
                    (0.04, depth, 0.04),
                    (x, 0, 0.3 + brace * height / (2 * levels)),
                    casts_shadow=False,
                )
            )
    for step in range(levels):
        z = step * level
        for y in (-1, 1):
            if step:
                solids.append(box(beam, (width, 0.05, 0.12), (0, y * (depth / 2 - 0.03), z - 0.12)))
        for place in range(places):
            if rng.random() < 0.25:
                continue
            x = (place + 0.5) * width / places - width / 2
            solids.append(box(wood, (0.8, depth, 0.144), (x, 0, z), casts_shadow=False))
            load = _load(rng, paints, z + 0.144, 0.8, 1.0, rng.uniform(0.3, level - 0.45))
            solids += [replace(part.moved(x, 0, 0), casts_shadow=step == 0) for part in load]
    return Assembly("rack", tuple(solids), width / 2 + 0.05, depth / 2)


def cartons(rng: Rng, paints: Paints) -> Assembly:
    """One to four cartons, side by side and stacked."""
    solids: list[Solid] = []
    width, depth = sizes.CARTON.draw(rng), sizes.CARTON.draw(rng)
    z = 0.0
    for _ in range(int(rng.integers(1, 5))):
        board = paints.cardboard() if rng.random() < 0.75 else paints.plain(paints.any_color())
        tall = sizes.CARTON.draw(rng) * 0.8
        shift = (float(rng.uniform(-0.04, 0.04)), float(rng.uniform(-0.04, 0.04)), z)
        turn = float(rng.normal(0, 0.15))
        solids.append(box(board, (width, depth, tall), shift, yaw=turn))
        tape = board.scaled(1.3)
        solids.append(box(tape, (width * 0.98, 0.05, tall + 0.002), shift, yaw=turn, casts_shadow=False))
        z += tall
        width, depth = width * rng.uniform(0.7, 1.0), depth * rng.uniform(0.7, 1.0)
        if z > 1.3:
            break
    half = float(solids[0].half[0]) + 0.08
    return Assembly("cartons", tuple(solids), half, float(solids[0].half[1]) + 0.08)


def drum(rng: Rng, paints: Paints) -> Assembly:
    """A 200-litre steel drum (ISO 15750-2)."""
    radius, height = sizes.DRUM_RADIUS.draw(rng), sizes.DRUM_HEIGHT.draw(rng)
    shell = paints.metal(paints.any_color())
    solids = [frustum(shell, radius, height, (0, 0, 0))]
    for share in (0.33, 0.66, 0.985):
        solids.append(frustum(shell.scaled(0.9), radius + 0.01, 0.02, (0, 0, height * share - 0.01)))
    return Assembly("drum", tuple(solids), radius, radius)


def cone(rng: Rng, paints: Paints) -> Assembly:
    """A traffic cone with reflective collars (EN 13422)."""
    height = sizes.CONE_HEIGHT.draw(rng)
    orange = paints.plain((0.75, 0.15, 0.02), grain=0.05)
    white = paints.plain((0.75, 0.75, 0.75), grain=0.03)
    base, foot = height * 0.19, height * 0.52
    solids = [
        box(orange.scaled(0.6), (foot, foot, 0.03), (0, 0, 0)),
        frustum(orange, base, height - 0.03, (0, 0, 0.03), top_radius=base * 0.2),
    ]
    for share in (0.38, 0.62):
        lower, upper = base * (1 - 0.8 * share) + 0.003, base * (1 - 0.8 * (share + 0.14)) + 0.003
        solids.append(
            frustum(white, lower, height * 0.14, (0, 0, 0.03 + height * share * 0.97), top_radius=upper)
        )
    return Assembly("cone", tuple(solids), foot / 2, foot / 2)


def pillar(rng: Rng, paints: Paints) -> Assembly:
    """A column to above any ceiling."""
    half = sizes.PILLAR_WIDTH.draw(rng) / 2
    surface = paints.concrete() if rng.random() < 0.5 else paints.plaster()
    height = sizes.HALL_HEIGHT.high + 1
    band = paints.plain(hsv(0.15, 0.9, 0.6))
    if rng.random() < 0.5:
        solids = [box(surface, (2 * half, 2 * half, height), (0, 0, 0))]
        if rng.random() < 0.4:
            solids.append(box(band, (2 * half + 0.02, 2 * half + 0.02, rng.uniform(0.3, 1.2)), (0, 0, 0)))
    else:
        solids = [frustum(surface, half, height, (0, 0, 0))]
    return Assembly("pillar", tuple(solids), half, half)


def stairs(rng: Rng, paints: Paints) -> Assembly:
    """A straight flight after DIN 18065, rising towards +y."""
    rise, tread = sizes.STEP_RISE.draw(rng), sizes.STEP_TREAD.draw(rng)
    count, width = int(rng.integers(3, 14)), float(rng.uniform(0.9, 1.8))
    surface = paints.concrete() if rng.random() < 0.5 else paints.wood()
    depth = count * tread
    solids = []
    for step in range(count):
        run = depth - step * tread
        solids.append(
            box(surface, (width, run, rise), (0, depth / 2 - run / 2, step * rise), casts_shadow=step == 0)
        )
    return Assembly("stairs", tuple(solids), width / 2, depth / 2)
