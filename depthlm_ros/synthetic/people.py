"""People, scaled from one set of body proportions."""

from __future__ import annotations

import numpy as np

from depthlm_ros.synthetic import sizes
from depthlm_ros.synthetic.assembly import Assembly
from depthlm_ros.synthetic.materials import Paints, hsv
from depthlm_ros.synthetic.solids import box, ellipsoid, frustum


def person(rng: np.random.Generator, paints: Paints) -> Assembly:
    """A standing or walking adult; proportions after ISO 7250-1 (crotch 0.46, shoulder 0.82 of the stature)."""
    height = sizes.BODY_HEIGHT.draw(rng)
    skin = paints.plain(
        hsv(rng.uniform(0.04, 0.08), rng.uniform(0.3, 0.6), rng.uniform(0.15, 0.65)), grain=0.03
    )
    hair = paints.plain(
        hsv(rng.uniform(0.04, 0.12), rng.uniform(0.2, 0.6), rng.uniform(0.02, 0.3)), grain=0.1
    )
    shirt, trousers = paints.fabric(), paints.fabric().scaled(0.6)
    if rng.random() < 0.2:
        shirt = paints.plain(hsv(rng.choice([0.09, 0.16]), 0.9, 0.75), grain=0.05)
    shoes = paints.plain((0.04, 0.035, 0.03))
    crotch, shoulder = 0.46 * height, 0.82 * height
    girth = rng.uniform(0.9, 1.2)
    stride = rng.uniform(0, 0.25) if rng.random() < 0.5 else 0.02
    solids = []
    for side in (-1, 1):
        lean = float(side * np.arctan2(stride, crotch))
        # Legs tilt about their own y, so they are built walking along x and the whole person is turned by placing.
        middle = -side * stride / 2
        solids.append(
            frustum(
                trousers,
                0.055 * girth,
                crotch,
                (middle, side * 0.09, 0.04),
                top_radius=0.085 * girth,
                tilt=lean,
            )
        )
        solids.append(box(shoes, (0.26, 0.09, 0.07), (0.04 - side * stride, side * 0.09, 0)))
        arm = (0.0, side * 0.2 * girth + side * 0.03, crotch - 0.03)
        solids.append(frustum(shirt, 0.04, shoulder - crotch, arm, top_radius=0.05, tilt=-lean * 0.8))
        hand = (side * stride * 0.6, arm[1], crotch - 0.06)
        solids.append(ellipsoid(skin, (0.05, 0.035, 0.08), hand))
    solids += [
        ellipsoid(trousers, (0.11 * girth, 0.16 * girth, 0.12), (0, 0, crotch + 0.03)),
        frustum(
            shirt, 0.145 * girth, shoulder - crotch - 0.05, (0, 0, crotch + 0.02), top_radius=0.165 * girth
        ),
        ellipsoid(shirt, (0.11, 0.21 * girth, 0.07), (0, 0, shoulder - 0.03)),
        frustum(skin, 0.055, 0.1, (0, 0, shoulder)),
        ellipsoid(skin, (0.095, 0.075, 0.12), (0.01, 0, height - 0.12)),
        ellipsoid(hair, (0.095, 0.082, 0.10), (-0.02, 0, height - 0.10)),
    ]
    return Assembly("person", tuple(solids), 0.2 + stride, 0.3)
