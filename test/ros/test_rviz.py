"""``config/depthlm.rviz`` against what the node publishes and what rviz2 understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from graph import OUTPUTS
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from depthlm_ros.ros.camera_sim import FRAME_ID
from depthlm_ros.ros.messages import point_cloud

REPOSITORY = Path(__file__).parents[2]
MANAGER = yaml.safe_load((REPOSITORY / "config" / "depthlm.rviz").read_text())["Visualization Manager"]
DISPLAYS: dict[str, dict[str, Any]] = {display["Name"]: display for display in MANAGER["Displays"]}

SHOWS = {"rviz_default_plugins/Image": Image, "rviz_default_plugins/PointCloud2": PointCloud2}
"""Displays that show a topic, with its type (rviz_default_plugins/plugins_description.xml, rviz 14.3)."""

COSTMAP = "rviz_default_plugins/Map"
PLAIN = {"rviz_default_plugins/Grid", "rviz_default_plugins/TF"}
TOOLS = {"MoveCamera", "Select", "FocusCamera", "Measure", "PublishPoint"}


def test_every_display_is_one_of_rviz_and_of_a_topic_of_the_node() -> None:
    assert {d["Class"] for d in DISPLAYS.values()} <= PLAIN | set(SHOWS) | {COSTMAP}
    topics = {}
    for name, display in DISPLAYS.items():
        if display["Class"] in SHOWS:
            topics[name] = display["Topic"]["Value"]
            assert OUTPUTS[topics[name].removeprefix("/depthlm/")] is SHOWS[display["Class"]]
            assert display["Topic"]["Reliability Policy"] == "Reliable"
            assert display["Topic"]["Durability Policy"] == "Volatile"
    assert set(topics.values()) == {"/depthlm/debug/image", "/depthlm/points", "/depthlm/obstacles"}
    assert all(d["Enabled"] for d in DISPLAYS.values() if d["Class"] != COSTMAP)


def test_nav2s_costmap_can_be_switched_on() -> None:
    """Nav2 latches it (costmap_2d_publisher.cpp); without Nav2 the display would only warn."""
    (costmap,) = (d for d in DISPLAYS.values() if d["Class"] == COSTMAP)
    assert costmap["Enabled"] is False
    assert costmap["Topic"]["Value"] == "/local_costmap/costmap"
    assert costmap["Topic"]["Durability Policy"] == "Transient Local"


def test_the_cloud_is_coloured_by_a_channel_that_it_has() -> None:
    from test_nav2_clouds import answers

    display = DISPLAYS["Points by confidence"]
    assert (display["Color Transformer"], display["Channel Name"]) == ("Intensity", "confidence")
    assert (display["Min Intensity"], display["Max Intensity"]) == (0, 1)
    assert display["Autocompute Intensity Bounds"] is False
    cloud = point_cloud(answers([(2.0, 0.1, 0.3)]), Header())
    assert display["Channel Name"] in [field.name for field in cloud.fields]
    assert np.isfinite(np.frombuffer(bytes(cloud.data), np.float32)[:3]).all()


def test_points_can_be_clicked() -> None:
    tools = {tool["Class"].removeprefix("rviz_default_plugins/"): tool for tool in MANAGER["Tools"]}
    assert set(tools) == TOOLS
    assert tools["PublishPoint"]["Topic"]["Value"] == "/clicked_point"
    assert tools["PublishPoint"]["Single click"] is False


@pytest.mark.parametrize("part", ["Transformation", "Views"])
def test_what_rviz_needs_beside_displays_is_there(part: str) -> None:
    assert MANAGER[part]["Current"]["Class"].startswith("rviz_default_plugins/")


def test_the_fixed_frame_is_the_demo_cameras() -> None:
    """The launch file names another one only where it is given one."""
    assert MANAGER["Global Options"]["Fixed Frame"] == FRAME_ID
