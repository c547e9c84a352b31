"""What stands in yards and streets."""

from __future__ import annotations

import numpy as np

from depthlm_ros.synthetic import sizes
from depthlm_ros.synthetic.assembly import Assembly
from depthlm_ros.synthetic.materials import Material, Paints
from depthlm_ros.synthetic.solids import Solid, box, ellipsoid, frustum

Rng = np.random.Generator


def car(rng: Rng, paints: Paints) -> Assembly:
    """A passenger car, nose towards +x."""
    length, width = sizes.CAR_LENGTH.draw(rng), sizes.CAR_WIDTH.draw(rng)
    height = sizes.CAR_HEIGHT.draw(rng)
    paint = paints.metal(paints.any_color())
    glass = paints.plain((0.03, 0.035, 0.04), grain=0.02, gloss=0.7)
    tyre, rim = paints.plain((0.02, 0.02, 0.02)), paints.metal()
    lamp, tail = paints.plain((0.8, 0.8, 0.75), gloss=0.5), paints.plain((0.5, 0.02, 0.02), gloss=0.4)
    belt, wheel = height * 0.58, 0.31
    cabin = length * rng.uniform(0.5, 0.6)
    solids = [
        box(paint, (length, width * 0.97, belt - 0.22), (0, 0, 0.22)),
        box(glass, (cabin, width * 0.86, height - belt - 0.04), (-length * 0.06, 0, belt)),
        box(paint, (cabin * 0.82, width * 0.82, 0.06), (-length * 0.06, 0, height - 0.06)),
        box(glass, (0.03, width * 0.6, 0.16), (length / 2, 0, 0.35)),
    ]
    for along in (-1, 1):
        for side in (-1, 1):
            hub = (along * length * 0.31, side * (width / 2 - 0.1), wheel)
            solids.append(ellipsoid(tyre, (wheel, 0.13, wheel), hub))
            solids.append(ellipsoid(rim, (wheel * 0.6, 0.135, wheel * 0.6), hub))
            light = lamp if along > 0 else tail
            spot = (along * length / 2, side * width * 0.36, belt - 0.22)
            solids.append(box(light, (0.03, 0.3, 0.12), spot, casts_shadow=False))
    return Assembly("car", tuple(solids), length / 2 + 0.02, width / 2 + 0.04)


def tree(rng: Rng, paints: Paints) -> Assembly:
    """A tree: trunk and a crown of some ellipsoids."""
    height, radius = sizes.TREE_HEIGHT.draw(rng), sizes.TRUNK_RADIUS.draw(rng)
    bark = Material(
        (0.12, 0.09, 0.06), grain=0.35, grain_size=0.05, grain_stretch=0.3, phase=rng.uniform(0, 50)
    )
    leaves = paints.foliage()
    crown = height * rng.uniform(0.22, 0.35)
    solids = [frustum(bark, radius, height * 0.7, (0, 0, 0), top_radius=radius * 0.5)]
    for _ in range(int(rng.integers(4, 8))):
        spot = rng.uniform(-0.6, 0.6, 3) * crown
        size = rng.uniform(0.45, 0.8, 3) * crown
        centre = (float(spot[0]), float(spot[1]), float(height - crown + spot[2]))
        half = (float(size[0]), float(size[1]), float(size[2] * 0.9))
        solids.append(ellipsoid(leaves.scaled(rng.uniform(0.75, 1.3)), half, centre))
    return Assembly("tree", tuple(solids), radius + 0.05, radius + 0.05)


def fence(rng: Rng, paints: Paints) -> Assembly:
    """A run of fence: boards, or rails between posts."""
    length, height = float(rng.uniform(3, 9)), sizes.FENCE_HEIGHT.draw(rng)
    wood = paints.wood() if rng.random() < 0.7 else paints.metal()
    solids: list[Solid] = []
    if rng.random() < 0.5:
        board = float(rng.uniform(0.09, 0.16))
        boards = Material(
            wood.color,
            (0.03, 0.03, 0.03),
            board,
            20.0,
            0.012,
            0.0,
            cell_contrast=0.2,
            grain=0.15,
            grain_size=0.05,
        )
        solids.append(box(boards, (length, 0.03, height - 0.05), (0, 0, 0.05)))
    else:
        for rail in range(3):
            solids.append(box(wood, (length, 0.04, 0.1), (0, 0, height * (0.25 + 0.33 * rail) - 0.05)))
    posts = max(2, round(length / 2))
    for post in range(posts + 1):
        solids.append(
            box(wood.scaled(0.8), (0.09, 0.09, height), (post * length / posts - length / 2, 0.05, 0))
        )
    return Assembly("fence", tuple(solids), length / 2, 0.1)


def hedge(rng: Rng, paints: Paints) -> Assembly:
    """A clipped hedge."""
    length, height, depth = (
        float(rng.uniform(1.5, 7)),
        sizes.HEDGE_HEIGHT.draw(rng),
        float(rng.uniform(0.4, 0.9)),
    )
    return Assembly(
        "hedge", (box(paints.foliage(), (length, depth, height), (0, 0, 0)),), length / 2, depth / 2
    )


def bollard(rng: Rng, paints: Paints) -> Assembly:
    """A bollard."""
    height, radius = sizes.BOLLARD_HEIGHT.draw(rng), float(rng.uniform(0.04, 0.09))
    post = paints.metal(paints.any_color())
    solids = (frustum(post, radius, height, (0, 0, 0)), ellipsoid(post, (radius,) * 3, (0, 0, height)))
    return Assembly("bollard", solids, radius, radius)


def lamp_post(rng: Rng, paints: Paints) -> Assembly:
    """A street lamp."""
    height, steel = sizes.LAMP_POST_HEIGHT.draw(rng), paints.metal()
    head = box(steel, (0.8, 0.2, 0.1), (0.35, 0, height))
    return Assembly("lamp post", (frustum(steel, 0.08, height, (0, 0, 0), top_radius=0.05), head), 0.1, 0.1)


def bench(rng: Rng, paints: Paints) -> Assembly:
    """A park bench."""
    length, seat = float(rng.uniform(1.4, 2.0)), sizes.SEAT_HEIGHT.draw(rng)
    wood, foot = paints.wood(), paints.concrete()
    solids = [
        box(wood, (length, 0.42, 0.05), (0, 0, seat - 0.05)),
        box(wood, (length, 0.04, 0.3), (0, 0.22, seat + 0.1)),
    ]
    for side in (-1, 1):
        solids.append(box(foot, (0.08, 0.4, seat - 0.05), (side * length * 0.38, 0, 0)))
        solids.append(box(foot, (0.06, 0.05, 0.45), (side * length * 0.38, 0.2, seat - 0.05)))
    return Assembly("bench", tuple(solids), length / 2, 0.27)


def facade_material(rng: Rng, paints: Paints) -> Material:
    """A house front: windows as cells, the wall between them as joints."""
    storey, axis = sizes.STOREY.draw(rng), float(rng.uniform(1.8, 3.5))
    wall = paints.wall_color()
    return Material(
        (0.06, 0.07, 0.09), wall, axis, storey, axis * rng.uniform(0.45, 0.65), storey * rng.uniform(0.4, 0.55),
        cell_contrast=0.5, grain=0.08, grain_size=0.3, gloss=0.1, phase=float(rng.uniform(0, 2)),
    )  # fmt: skip
