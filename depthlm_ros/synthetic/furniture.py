"""What stands in rooms, offices and corridors."""

from __future__ import annotations

import numpy as np

from depthlm_ros.synthetic import sizes
from depthlm_ros.synthetic.assembly import Assembly
from depthlm_ros.synthetic.materials import Material, Paints
from depthlm_ros.synthetic.solids import Solid, box, ellipsoid, frustum

Rng = np.random.Generator


def _board_material(rng: Rng, paints: Paints) -> Material:
    return paints.wood() if rng.random() < 0.6 else paints.plain(paints.wall_color(), grain=0.02, gloss=0.15)


def table(rng: Rng, paints: Paints) -> Assembly:
    """A desk or dining table with four legs or two side panels, often with something on it."""
    length, depth = sizes.TABLE_LENGTH.draw(rng), sizes.TABLE_DEPTH.draw(rng)
    low = rng.random() < 0.2
    height = (sizes.COFFEE_TABLE_HEIGHT if low else sizes.TABLE_HEIGHT).draw(rng)
    top = _board_material(rng, paints)
    legs = paints.metal() if rng.random() < 0.5 else top
    thick, leg = rng.uniform(0.02, 0.045), rng.uniform(0.03, 0.07)
    solids = [box(top, (length, depth, thick), (0, 0, height - thick))]
    if rng.random() < 0.25:
        for side in (-1, 1):
            solids.append(box(legs, (0.03, depth * 0.9, height - thick), (side * (length / 2 - 0.06), 0, 0)))
    else:
        for x in (-1, 1):
            for y in (-1, 1):
                foot = (x * (length / 2 - leg), y * (depth / 2 - leg), 0.0)
                solids.append(box(legs, (leg, leg, height - thick), foot))
    if not low and rng.random() < 0.5:
        solids += _screen(rng, paints, height, rng.uniform(-0.25, 0.25) * length)
    if rng.random() < 0.4:
        edge = float(rng.uniform(0.1, 0.35))
        spot = (rng.uniform(-0.4, 0.4) * length, rng.uniform(-0.25, 0.25) * depth, height)
        solids.append(
            box(paints.plain(paints.any_color()), (edge, edge * 0.7, edge * rng.uniform(0.1, 0.9)), spot)
        )
    return Assembly("table", tuple(solids), length / 2, depth / 2)


def _screen(rng: Rng, paints: Paints, height: float, x: float) -> list[Solid]:
    black = paints.plain((0.02, 0.02, 0.025), grain=0.01, gloss=0.4)
    width = rng.uniform(0.5, 0.7)
    return [
        box(black, (0.22, 0.18, 0.015), (x, 0.1, height)),
        box(black, (0.05, 0.03, 0.15), (x, 0.12, height)),
        box(black, (width, 0.04, width * 0.57), (x, 0.1, height + 0.11)),
    ]


def chair(rng: Rng, paints: Paints) -> Assembly:
    """A four-legged chair, or an office chair on a column."""
    width, seat = sizes.SEAT_WIDTH.draw(rng), sizes.SEAT_HEIGHT.draw(rng)
    height = sizes.CHAIR_HEIGHT.draw(rng)
    office = rng.random() < 0.4
    cover = paints.fabric() if office or rng.random() < 0.4 else paints.wood()
    frame = paints.metal() if office or rng.random() < 0.4 else paints.wood()
    thick = 0.07 if office else 0.03
    back_base = seat + (0.12 if office else 0.05)
    solids = [
        box(cover, (width, width, thick), (0, 0, seat - thick)),
        box(cover, (width * 0.92, 0.05 if office else 0.025, height - back_base), (0, width / 2, back_base)),
    ]
    if office:
        solids.append(frustum(frame, 0.03, seat - thick - 0.06, (0, 0, 0.06)))
        solids.append(box(frame, (0.05, 0.03, back_base - seat + 0.1), (0, width / 2 + 0.03, seat - 0.05)))
        for turn in range(3):
            solids.append(box(frame, (0.6, 0.045, 0.05), (0, 0, 0.03), yaw=turn * np.pi / 3))
    else:
        for x in (-1, 1):
            foot_x = x * (width / 2 - 0.02)
            solids.append(box(frame, (0.03, 0.03, seat - thick), (foot_x, -width / 2 + 0.02, 0)))
            solids.append(box(frame, (0.03, 0.03, back_base + 0.05), (foot_x, width / 2 - 0.02, 0)))
    half = 0.32 if office else width / 2 + 0.03
    return Assembly("chair", tuple(solids), half, half)


def sofa(rng: Rng, paints: Paints) -> Assembly:
    """A sofa or armchair with cushions."""
    depth = sizes.SOFA_DEPTH.draw(rng)
    length = (sizes.ARMCHAIR_LENGTH if rng.random() < 0.3 else sizes.SOFA_LENGTH).draw(rng)
    seat, back, arm = sizes.SOFA_SEAT_HEIGHT.draw(rng), rng.uniform(0.75, 0.95), rng.uniform(0.1, 0.22)
    cloth = paints.fabric()
    cushion = cloth.scaled(rng.uniform(0.85, 1.2))
    inner = length - 2 * arm
    solids = [
        box(cloth, (length, depth, seat - 0.12), (0, 0, 0.05)),
        box(cloth, (length, 0.22, back - 0.05), (0, depth / 2 - 0.11, 0.05)),
        box(cloth, (arm, depth, 0.58), (-(length - arm) / 2, 0, 0.04)),
        box(cloth, (arm, depth, 0.58), ((length - arm) / 2, 0, 0.04)),
    ]
    count = max(1, round(inner / 0.65))
    for index in range(count):
        x = (index + 0.5) * inner / count - inner / 2
        solids.append(box(cushion, (inner / count - 0.015, depth - 0.24, 0.12), (x, -0.11, seat - 0.1)))
    return Assembly("sofa", tuple(solids), length / 2, depth / 2)


def bed(rng: Rng, paints: Paints) -> Assembly:
    """A bed with headboard and pillows."""
    width, length = sizes.BED_WIDTH.draw(rng), sizes.BED_LENGTH.draw(rng)
    frame, sheet = paints.wood(), paints.fabric()
    white = paints.plain((0.7, 0.7, 0.68), grain=0.08)
    solids = [
        box(frame, (width + 0.06, length + 0.06, 0.2), (0, 0, 0.1)),
        box(sheet, (width, length, 0.22), (0, 0, 0.3)),
        box(frame, (width + 0.06, 0.05, rng.uniform(0.8, 1.1)), (0, length / 2 + 0.03, 0)),
        ellipsoid(white, (width * 0.35, 0.22, 0.09), (0, length / 2 - 0.3, 0.56)),
    ]
    return Assembly("bed", tuple(solids), width / 2 + 0.03, length / 2 + 0.06)


def cabinet(rng: Rng, paints: Paints) -> Assembly:
    """A cabinet with doors or drawers and handles."""
    width, depth = sizes.CABINET_WIDTH.draw(rng), sizes.CABINET_DEPTH.draw(rng)
    height = sizes.CABINET_HEIGHT.draw(rng)
    body = paints.metal(paints.wall_color()) if rng.random() < 0.3 else _board_material(rng, paints)
    front, handle = body.scaled(rng.uniform(0.8, 1.25)), paints.metal()
    solids = [
        box(body.scaled(0.4), (width - 0.04, depth - 0.06, 0.08), (0, 0.02, 0)),
        box(body, (width, depth, height - 0.08), (0, 0, 0.08)),
    ]
    rows = max(1, round(height / rng.uniform(0.25, 0.5))) if rng.random() < 0.4 else 1
    columns = 1 if rows > 1 and width < 0.8 else max(1, round(width / 0.45))
    cell_x, cell_z = width / columns, (height - 0.1) / rows
    for row in range(rows):
        for column in range(columns):
            x, z = (column + 0.5) * cell_x - width / 2, 0.09 + row * cell_z
            solids.append(box(front, (cell_x - 0.008, 0.02, cell_z - 0.008), (x, -depth / 2 - 0.005, z)))
            grip = (0.12, 0.02, 0.015) if rows > 1 else (0.015, 0.02, 0.14)
            grip_x = x if rows > 1 else x + (0.4 if column % 2 == 0 else -0.4) * cell_x
            solids.append(
                box(handle, grip, (grip_x, -depth / 2 - 0.025, z + cell_z * 0.55), casts_shadow=False)
            )
    return Assembly("cabinet", tuple(solids), width / 2, depth / 2 + 0.02)


def shelf(rng: Rng, paints: Paints) -> Assembly:
    """A bookcase with books and boxes."""
    width, depth, height = (
        sizes.SHELF_WIDTH.draw(rng),
        sizes.SHELF_DEPTH.draw(rng),
        sizes.SHELF_HEIGHT.draw(rng),
    )
    board = _board_material(rng, paints)
    solids = [
        box(board, (0.025, depth, height), (-width / 2, 0, 0)),
        box(board, (0.025, depth, height), (width / 2, 0, 0)),
    ]
    if rng.random() < 0.7:
        solids.append(box(board.scaled(0.7), (width, 0.01, height), (0, depth / 2 - 0.005, 0)))
    levels = max(2, round(height / rng.uniform(0.3, 0.42)))
    pitch = (height - 0.08) / levels
    for level in range(levels + 1):
        z = 0.05 + level * pitch
        solids.append(box(board, (width, depth, 0.025), (0, 0, z), casts_shadow=level % 2 == 0))
        if level == levels or rng.random() < 0.2:
            continue
        fill, tall = rng.uniform(0.3, 0.95) * (width - 0.06), rng.uniform(0.5, 0.85) * (pitch - 0.03)
        x = rng.uniform(-0.5, 0.5) * (width - 0.06 - fill)
        load = _books(rng, paints) if rng.random() < 0.6 else paints.cardboard()
        contents = box(load, (fill, depth * 0.7, tall), (x, 0.02, z + 0.025), casts_shadow=False)
        solids.append(contents)
    return Assembly("shelf", tuple(solids), width / 2 + 0.02, depth / 2)


def _books(rng: Rng, paints: Paints) -> Material:
    spine = float(rng.uniform(0.02, 0.045))
    return Material(
        paints.any_color(), (0.03, 0.03, 0.03), spine, 3.0, 0.003, 0.0,
        cell_contrast=0.6, cell_hue=0.6, grain=0.04, phase=float(rng.uniform(0, 50)),
    )  # fmt: skip


def plant(rng: Rng, paints: Paints) -> Assembly:
    """A potted plant."""
    height = sizes.PLANT_HEIGHT.draw(rng)
    pot_height = min(0.4, height * 0.4)
    pot_radius = rng.uniform(0.1, 0.2)
    leaves = paints.foliage()
    crown = float(np.clip(height * 0.3, 0.15, 0.4))
    pot = paints.plain(paints.any_color(), gloss=0.2)
    solids = [frustum(pot, pot_radius * 0.75, pot_height, (0, 0, 0), top_radius=pot_radius)]
    solids.append(frustum(paints.wood(), 0.015, height - pot_height, (0, 0, pot_height - 0.02)))
    for _ in range(int(rng.integers(3, 7))):
        spot = rng.uniform(-0.5, 0.5, 2) * crown
        z = max(pot_height + 0.1, height - rng.uniform(0.1, 1.2) * crown * 1.6)
        radii = rng.uniform(0.35, 0.65, 3) * crown
        solids.append(
            ellipsoid(
                leaves.scaled(rng.uniform(0.75, 1.25)),
                (float(radii[0]), float(radii[1]), float(radii[2])),
                (float(spot[0]), float(spot[1]), float(z)),
                yaw=float(rng.uniform(0, 3)),
            )
        )
    return Assembly("plant", tuple(solids), crown, crown)


def bin_(rng: Rng, paints: Paints) -> Assembly:
    """A waste bin."""
    radius, height = sizes.BIN_RADIUS.draw(rng), sizes.BIN_HEIGHT.draw(rng)
    body = paints.plain(paints.any_color(), gloss=0.2)
    if rng.random() < 0.3:
        return Assembly("bin", (box(body, (radius * 2, radius * 1.6, height), (0, 0, 0)),), radius, radius)
    return Assembly(
        "bin", (frustum(body, radius * 0.85, height, (0, 0, 0), top_radius=radius),), radius, radius
    )
