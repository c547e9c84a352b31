"""``config/nav2_costmap.yaml`` and ``config/collision_monitor.yaml`` against the rules of Nav2's own source."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
FACTS = json.loads((REPOSITORY / "test" / "data" / "nav2_facts.json").read_text())
COSTMAP = yaml.safe_load((REPOSITORY / "config" / "nav2_costmap.yaml").read_text())
LOCAL = COSTMAP["local_costmap"]["local_costmap"]["ros__parameters"]
VOXEL, STVL = LOCAL["depthlm_layer"], LOCAL["depthlm_stvl_layer"]
MONITOR = yaml.safe_load((REPOSITORY / "config" / "collision_monitor.yaml").read_text())["collision_monitor"][
    "ros__parameters"
]
CAMERA_HEIGHTS_M = (0.2, 1.5)
"""Cameras of robots that the values are meant for."""


def latency_s() -> float:
    """Camera to cloud, as the README measured it with `make demo`."""
    found = re.search(r"camera to cloud ([\d.]+) s", (REPOSITORY / "README.md").read_text())
    assert found, "the README no longer says how long it takes from camera to cloud"
    return float(found[1])


def source(layer):
    name = layer["observation_sources"]
    assert name in layer, f"observation_sources names {name!r}, which has no parameters"
    return layer[name]


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ({k: v for k, v in VOXEL.items() if k != "depthlm"}, "voxel_layer"),
        (source(VOXEL), "voxel_source"),
        ({k: v for k, v in STVL.items() if k != "depthlm"}, "stvl_layer"),
        (source(STVL), "stvl_source"),
        ({k: v for k, v in MONITOR.items() if k not in ("depthlm", "DepthLMSlow")}, "monitor"),
        (MONITOR["DepthLMSlow"], "monitor_polygon"),
        (MONITOR["depthlm"], "monitor_source"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_parameter_is_one_that_nav2_reads(section, kind):
    assert set(section) <= set(FACTS["parameters"][kind])


def test_the_layers_are_where_the_costmap_looks_for_them():
    assert LOCAL["plugins"] == ["depthlm_layer", "inflation_layer"]
    assert all(name in LOCAL for name in LOCAL["plugins"])
    assert VOXEL["plugin"] == "nav2_costmap_2d::VoxelLayer"
    assert STVL["plugin"] == "spatio_temporal_voxel_layer/SpatioTemporalVoxelLayer"
    assert set(MONITOR["polygons"]) == {"DepthLMSlow"}
    assert MONITOR["observation_sources"] == ["depthlm"]


@pytest.mark.parametrize("layer", [VOXEL, STVL], ids=["voxel", "stvl"])
def test_clouds_reach_the_layer(layer):
    got = source(layer)
    assert got["data_type"] == "PointCloud2"
    # The default of the obstacle layers is 0.0, which takes out everything above the floor.
    assert got["max_obstacle_height"] > 1.0
    assert got["marking"]
    assert layer["mark_threshold"] == 0
    assert got["topic"] == MONITOR["depthlm"]["topic"] == "/depthlm/obstacles"


def test_nothing_is_left_to_nav2s_defaults_which_expect_a_scan_and_keep_nothing_above_the_ground():
    defaults = FACTS["source_defaults"]
    assert (defaults["data_type"], defaults["max_obstacle_height"], defaults["clearing"]) == (
        "LaserScan", 0.0, False,
    )  # fmt: skip
    assert set(defaults) <= set(source(VOXEL))


def test_the_floor_clears_but_does_not_mark():
    got = source(VOXEL)
    assert got["clearing"]
    assert got["min_obstacle_height"] < 0.0 < VOXEL["min_obstacle_height"]
    assert got["raytrace_max_range"] > got["obstacle_max_range"]
    # Here nothing is traced, and a source's heights are all there are, looked at by this filter.
    assert not source(STVL)["clearing"]
    assert source(STVL)["min_obstacle_height"] > 0.0
    assert source(STVL)["filter"] in ("passthrough", "voxel")
    assert source(STVL)["voxel_min_points"] == 0


def test_the_voxels_hold_the_camera_and_all_that_is_marked():
    top = VOXEL["origin_z"] + VOXEL["z_voxels"] * VOXEL["z_resolution"]
    assert VOXEL["z_voxels"] <= FACTS["max_voxels"]
    assert top >= VOXEL["max_obstacle_height"]
    assert all(VOXEL["origin_z"] < height < top for height in CAMERA_HEIGHTS_M)


@pytest.mark.parametrize("layer", [VOXEL, STVL], ids=["voxel", "stvl"])
def test_a_costmap_outlives_the_wait_for_the_next_cloud(layer):
    got = source(layer)
    assert got["expected_update_rate"] > 2 * latency_s()
    assert got["observation_persistence"] == 0.0 or got["observation_persistence"] > 2 * latency_s()


def test_a_fading_voxel_outlives_several_clouds_and_marks_once():
    assert STVL["decay_model"] == 0
    assert STVL["voxel_decay"] > 4 * latency_s()
    assert source(STVL)["clear_after_reading"]


def test_the_monitor_waits_for_the_next_cloud_and_moves_the_old_one():
    assert MONITOR["source_timeout"] > 2 * latency_s()
    assert MONITOR["base_shift_correction"]
    assert MONITOR["DepthLMSlow"]["min_points"] == 1
    assert MONITOR["DepthLMSlow"]["action_type"] == "slowdown"
    ahead = max(x for x, _ in json.loads(MONITOR["DepthLMSlow"]["points"]))
    front_m, speed_m_s, braking_m = 0.4, 0.3, 0.3
    assert ahead >= front_m + speed_m_s * 2 * latency_s() + braking_m
    assert 0.0 < MONITOR["depthlm"]["min_height"] < MONITOR["depthlm"]["max_height"]


def test_the_comment_for_humble_says_the_same_polygon():
    text = (REPOSITORY / "config" / "collision_monitor.yaml").read_text()
    found = re.search(r"# humble: (points: \[.*\]), (max_points: \d+)", text)
    assert found, "humble reads a flat list and max_points (humble_polygon)"
    humble = {**yaml.safe_load(found[1]), **yaml.safe_load(found[2])}
    assert humble["points"] == [x for corner in json.loads(MONITOR["DepthLMSlow"]["points"]) for x in corner]
    assert humble["max_points"] + 1 == MONITOR["DepthLMSlow"]["min_points"]


@pytest.mark.parametrize(
    "page", ["docs/nav2.md", "config/nav2_costmap.yaml", "config/collision_monitor.yaml"]
)
def test_the_latency_that_the_values_rest_on_is_the_measured_one(page):
    text = " ".join((REPOSITORY / page).read_text().replace("#", " ").split())
    found = re.search(r"cloud comes (?:about |some )?([\d.]+) s after its image", text)
    assert found, "the page no longer says what its values rest on"
    assert float(found[1]) == pytest.approx(latency_s(), rel=0.2)


def test_the_demo_names_a_controller_that_needs_no_parameters_and_looks_for_its_package():
    """Read as text: launch, which the file imports, need not be installed."""
    tree = ast.parse((REPOSITORY / "launch" / "nav2_demo.launch.py").read_text())
    said = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("NEEDED", "CONTROLLER")
    }
    (name,) = said["CONTROLLER"]["controller_plugins"]
    plugin = said["CONTROLLER"][f"{name}.plugin"]
    (rule,) = (fact["rule"] for fact in FACTS["rules"] if fact["id"] == "controller_default")
    assert f"Every parameter of {plugin} has a default" in rule
    assert plugin.split("::")[0] in said["NEEDED"]
