"""The model of Nav2 does what each rule of ``data/nav2_facts.json`` says; each check is worked out from its rule."""

import json
from pathlib import Path

import numpy as np
import pytest
from nav2_model import Buffer, StvlLayer, VoxelLayer, monitor_stops

FACTS = json.loads((Path(__file__).parent / "data" / "nav2_facts.json").read_text())
ELSEWHERE = {
    "voxel_bits", "monitor_height", "controller_waits", "controller_default", "humble_monitor", "humble_polygon",
}  # fmt: skip
"""No matter of a cloud's way: those are held by test_nav2.py and said in docs/nav2.md."""

SOURCE = {
    "min_obstacle_height": -9.0, "max_obstacle_height": 9.0, "observation_persistence": 0.0,
    "expected_update_rate": 0.0, "marking": True, "clearing": True, "obstacle_min_range": 0.0,
    "obstacle_max_range": 9.0, "raytrace_min_range": 0.0, "raytrace_max_range": 9.0,
}  # fmt: skip
LAYER = {
    "observation_sources": "s", "z_voxels": 16, "origin_z": 0.0, "z_resolution": 0.1, "mark_threshold": 0,
    "min_obstacle_height": 0.0, "max_obstacle_height": 2.0,
}  # fmt: skip
STVL = {"observation_sources": "s", "voxel_size": 0.1, "voxel_decay": 3.0, "mark_threshold": 0}
STVL_SOURCE = {
    "min_obstacle_height": 0.0, "max_obstacle_height": 2.0, "observation_persistence": 0.0,
    "expected_update_rate": 0.0, "clear_after_reading": True, "obstacle_range": 2.0, "filter": "passthrough",
}  # fmt: skip
EYE = (0.0, 0.0, 0.55)


def voxels(source=None, **layer):
    """Cells of 0.1 m, 6 m wide."""
    return VoxelLayer({**LAYER, **layer, "s": {**SOURCE, **(source or {})}}, 0.1, 6.0)


def stvl(source=None, **layer):
    return StvlLayer({**STVL, **layer, "s": {**STVL_SOURCE, **(source or {})}})


def see(layer, *points, origin=EYE, now=0.0):
    layer.buffer.take(np.asarray(points, float).reshape(-1, 3), origin, now, now)
    layer.update(now)


def marked_then_seen(layer, near, behind, origin=EYE):
    """Whether a marked point is lethal still once another is seen behind it."""
    see(layer, near, origin=EYE)
    assert layer.lethal(near[0], near[1])
    see(layer, behind, origin=origin)
    return layer.lethal(near[0], near[1])


def height_both():
    buffer = Buffer({**SOURCE, "min_obstacle_height": 0.0, "max_obstacle_height": 1.0})
    buffer.take([[1.0, 0.0, z] for z in (-0.1, 0.0, 0.5, 1.0, 1.1)], EYE, 0.0, 0.0)
    assert buffer.observations(0.0)[0].points[:, 2].tolist() == [0.0, 0.5, 1.0]
    low = {"max_obstacle_height": 0.6}
    assert not marked_then_seen(voxels(low), (1.05, 0.05, 0.55), (2.05, 0.1, 0.55))
    assert marked_then_seen(voxels(low), (1.05, 0.05, 0.55), (2.05, 0.1, 0.7))


def height_layer():
    layer = voxels(min_obstacle_height=0.3)
    assert not marked_then_seen(layer, (1.05, 0.05, 0.35), (2.05, 0.1, 0.15))
    assert not layer.lethal(2.05, 0.1)


def newest_kept():
    buffer = Buffer({**SOURCE})
    for stamp in (1.0, 2.0):
        buffer.take([[1.0, 0.0, 0.5]], EYE, stamp, stamp)
    assert [o.stamp for o in buffer.observations(1e6)] == [2.0]
    buffer = Buffer({**SOURCE, "observation_persistence": 2.0})
    for stamp in (1.0, 2.0):
        buffer.take([[1.0, 0.0, 0.5]], EYE, stamp, stamp + 50.0)
    assert sorted(o.stamp for o in buffer.observations(3.0)) == [1.0, 2.0]
    assert [o.stamp for o in buffer.observations(3.5)] == [2.0]
    assert buffer.observations(4.5) == []


def current():
    buffer = Buffer({**SOURCE, "expected_update_rate": 1.0})
    buffer.take([[1.0, 0.0, 0.5]], EYE, 2.0, 5.0)
    assert buffer.current(6.0)
    assert not buffer.current(6.1)
    assert Buffer(SOURCE).current(1e9)


def current_at_start():
    buffer = Buffer({**SOURCE, "expected_update_rate": 1.0}, updated=3.0)
    assert buffer.current(4.0)
    assert not buffer.current(4.1)


def range_voxel():
    layer = voxels({"obstacle_min_range": 0.5, "obstacle_max_range": 2.0, "clearing": False})
    see(layer, (0.45, 0.0, 0.55), (0.0, 0.5, 0.55), (0.0, -1.95, 0.55), (-2.0, 0.0, 0.55), (1.9, 0.0, 1.45))
    assert not layer.lethal(0.45, 0.0)
    assert layer.lethal(0.0, 0.5)
    assert layer.lethal(0.0, -1.95)
    assert not layer.lethal(-2.0, 0.0)
    assert not layer.lethal(1.9, 0.0)  # 2.1 m away, though 1.9 m along the floor


def mark_voxel():
    one, two = (1.05, 0.05, 0.55), (1.05, 0.05, 0.75)
    for threshold, points, lethal in ((0, [one], True), (1, [one], False), (1, [one, two], True)):
        layer = voxels(mark_threshold=threshold)
        see(layer, *points)
        assert layer.lethal(1.05, 0.05) is lethal
    layer = voxels(origin_z=0.2)
    see(layer, (1.05, 0.05, 0.1))
    assert np.argwhere(layer.voxels)[:, 2].tolist() == [0]


def origin_inside():
    points = (1.05, 0.05, 0.45), (2.05, 0.1, 0.35)
    assert not marked_then_seen(voxels(z_voxels=6), *points)  # the map ends at 0.6 m, the sensor is at 0.55 m
    assert marked_then_seen(voxels(z_voxels=5), *points)


def ray_voxel():
    wall = (2.05, 0.0, 0.55)
    assert not marked_then_seen(voxels(), (1.75, 0.0, 0.55), wall)
    assert marked_then_seen(voxels(), (1.95, 0.0, 0.55), wall)
    short = {"raytrace_max_range": 1.0}
    assert not marked_then_seen(voxels(short), (0.75, 0.0, 0.55), wall)
    assert marked_then_seen(voxels(short), (1.15, 0.0, 0.55), wall)
    # From 0.55 m up to 0.55 m below the floor: the floor is met half way, at 2.0 m.
    below = (4.0, 0.0, -0.55)
    assert not marked_then_seen(voxels(min_obstacle_height=0.01), (1.65, 0.0, 0.1), below)
    assert marked_then_seen(voxels(min_obstacle_height=0.01), (2.25, 0.0, 0.01), below)
    layer = voxels()
    see(layer, (1.75, 0.0, 0.55))
    see(layer)
    assert layer.lethal(1.75, 0.0)


def order():
    layer = voxels()
    see(layer, (1.05, 0.0, 0.55), (2.05, 0.0, 0.55))
    assert layer.lethal(1.05, 0.0)


def monitor_age():
    assert not monitor_stops(2.0, 10.0, 12.0)
    assert monitor_stops(2.0, 10.0, 12.1)
    assert not monitor_stops(0.0, 10.0, 1e9)


def monitor_stop():
    assert monitor_stops(2.0, None, 0.0)
    assert not monitor_stops(0.0, None, 0.0)


def stvl_newest():
    for clears, left in ((True, 0), (False, 1)):
        layer = stvl({"clear_after_reading": clears})
        for stamp in (1.0, 2.0):
            layer.buffer.take([[1.0, 0.0, 0.5]], EYE, stamp, stamp)
        layer.update(9.0)
        assert len(layer.buffer.observations(9.0)) == left
        assert set(layer.voxels.values()) == {9.0}


def stvl_mark():
    layer = stvl()
    layer.buffer.take([[2.0, 0.0, 0.5], [0.0, 2.1, 0.5], [0.0, 0.0, 0.505]], (0.0, 0.0, 0.5), 1.0, 1.0)
    layer.update(7.0)
    assert layer.voxels == {(20, 0, 5): 7.0}


def stvl_decay():
    layer = stvl()
    see(layer, (1.05, 0.05, 0.55), now=10.0)
    layer.update(13.0)
    assert layer.lethal(1.05, 0.05)
    layer.update(13.1)
    assert not layer.lethal(1.05, 0.05)


def stvl_order():
    layer = stvl()
    see(layer, (1.05, 0.05, 0.55), now=10.0)
    assert not layer.lethal(1.05, 0.05)
    layer.update(10.2)
    assert layer.lethal(1.05, 0.05)
    assert not layer.lethal(1.15, 0.05)
    for points, lethal in (([(1.05, 0.05, 0.55)], False), ([(1.05, 0.05, 0.55), (1.05, 0.05, 0.75)], True)):
        layer = stvl(mark_threshold=2)
        see(layer, *points)
        layer.update(0.2)
        assert layer.lethal(1.05, 0.05) is lethal


def stvl_height():
    for chosen, kept in (("passthrough", 1), ("voxel", 1), ("", 2)):
        layer = stvl({"filter": chosen, "max_obstacle_height": 0.6})
        see(layer, (1.05, 0.05, 0.55), (1.05, 0.05, 0.75))
        assert len(layer.voxels) == kept


CHECKS = {
    check.__name__: check
    for check in (
        height_both, height_layer, newest_kept, current, current_at_start, range_voxel, mark_voxel, origin_inside,
        ray_voxel, order, monitor_age, monitor_stop, stvl_newest, stvl_mark, stvl_decay, stvl_order, stvl_height,
    )
}  # fmt: skip


@pytest.mark.parametrize("rule", [f["id"] for f in FACTS["rules"] if f["id"] not in ELSEWHERE])
def test_the_model_keeps_the_rule(rule):
    assert rule in CHECKS, "a rule that no check holds: write one, or say what holds it in ELSEWHERE"
    CHECKS[rule]()


def test_rules_and_checks_are_the_same_and_each_rule_has_a_source():
    ids = [fact["id"] for fact in FACTS["rules"]]
    assert sorted(ids) == sorted({*CHECKS, *ELSEWHERE})
    assert all(fact["file"].endswith((".cpp", ".hpp")) for fact in FACTS["rules"])
