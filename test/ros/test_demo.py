"""The demo as a user runs it, with few frames: a real graph, its files, and numbers that can be checked."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from PIL import Image

from depthlm_ros.ros.bag import full_definition
from depthlm_ros.ros.demo import DemoError, run_demo

FRAMES = 3


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo")
    return out, run_demo(out, frames=FRAMES, timeout_s=180.0)


@pytest.fixture(scope="module")
def bag(demo: tuple[Path, dict[str, Any]]) -> dict[str, list[Any]]:
    messages: dict[str, list[Any]] = defaultdict(list)
    with (demo[0] / "demo.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        assert reader.get_header().profile == "ros2"
        for _, channel, _, decoded in reader.iter_decoded_messages():
            messages[channel.topic].append(decoded)
    return messages


def stamp(msg: Any) -> tuple[int, int]:
    return msg.header.stamp.sec, msg.header.stamp.nanosec


def test_the_summary_agrees_with_the_bag(
    demo: tuple[Path, dict[str, Any]], bag: dict[str, list[Any]]
) -> None:
    out, summary = demo
    assert json.loads((out / "summary.json").read_text()) == summary
    truth = {stamp(m): m for m in bag["/camera_sim/depth_truth"]}
    hits, errors, asked = 0, [], 0
    answers = [m for m in bag["/depthlm/sparse_depth"] if stamp(m) in truth][:FRAMES]
    for msg in answers:
        exact = truth[stamp(msg)]
        depth = np.frombuffer(exact.data, "<f4").reshape(exact.height, exact.width)
        for u, v, z in zip(msg.u, msg.v, msg.depth, strict=True):
            if np.isfinite(depth[v, u]):
                asked += 1
                errors.append(z - depth[v, u])
                hits += max(z / depth[v, u], depth[v, u] / z) < 1.25
    ours = summary["predictors"]["depthlm"]
    assert summary["frames"] == len(answers) == FRAMES
    assert ours["n"] == asked
    assert ours["delta1"] == pytest.approx(hits / asked)
    assert ours["rmse"] == pytest.approx(float(np.sqrt(np.mean(np.square(errors)))), rel=1e-5)
    assert summary["points_asked"] == sum(len(m.u) for m in answers)
    assert {"best_constant", "row_prior"} < set(summary["predictors"])


def test_every_output_in_the_bag_answers_a_frame_of_the_camera(bag: dict[str, list[Any]]) -> None:
    images = {stamp(m) for m in bag["/camera/image_raw"]}
    for topic in ("depth/image", "depth/camera_info", "points", "sparse_depth"):
        outputs = [stamp(m) for m in bag[f"/depthlm/{topic}"]]
        assert len(outputs) >= FRAMES
        assert len(set(outputs)) == len(outputs), topic
        assert set(outputs) <= images, topic


def test_the_pictures_and_the_cloud_are_there(demo: tuple[Path, dict[str, Any]]) -> None:
    sheet = cv2.imread(str(demo[0] / "contact_sheet.png"))
    assert sheet.shape == (28 + FRAMES * 240, 4 * 320, 3)
    with Image.open(demo[0] / "demo.webp") as film:
        assert film.n_frames == FRAMES
    assert (demo[0] / "cloud.ply").read_bytes().startswith(b"ply")


def test_a_definition_in_the_bag_contains_what_it_is_made_of() -> None:
    text = full_definition("depthlm_ros/msg/SparseDepth")
    for part in ("std_msgs/Header", "builtin_interfaces/Time", "builtin_interfaces/Duration"):
        assert f"MSG: {part}\n" in text


def test_a_demo_that_cannot_end_in_time_says_what_its_parts_last_said(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"not done within 1 s.*recorder.*camera.*node"):
        run_demo(tmp_path, frames=100, timeout_s=1.0)
    assert not list(tmp_path.glob("summary.json"))
