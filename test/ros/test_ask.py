"""The service ``~/ask`` against the running node."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from builtin_interfaces.msg import Time
from graph import FOCAL, HEIGHT, WIDTH, Bench, NodeProcess, alone, image_message, info_message
from std_msgs.msg import Header

from depthlm_ros.engines.factory import CHECKPOINTS
from depthlm_ros.msg import SparseDepth
from depthlm_ros.profile import PROFILE_FILE
from depthlm_ros.spatial.request import SpatialStatus
from depthlm_ros.spatial.tasks import SpatialTask
from depthlm_ros.srv import AskSpatial, QueryDepth

Request = AskSpatial.Request
AHEAD, APART, SPEED, TIME, MOTION = (getattr(Request, f"TASK_{task.name}") for task in SpatialTask)
LENGTH_PER_METRE = math.hypot((100 - (WIDTH - 1) / 2) / FOCAL, (80 - (HEIGHT - 1) / 2) / FOCAL, 1.0)
"""Of the ray through pixel (100, 80)."""


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded checkpoint as one that knows depth alone, so that every answer is derived."""
    folder = shutil.copytree(CHECKPOINTS / "embedded", tmp_path_factory.mktemp("untaught") / "embedded")
    profile = json.loads((folder / PROFILE_FILE).read_text(encoding="utf-8"))
    (folder / PROFILE_FILE).write_text(json.dumps({**profile, "spatial_tasks": []}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def node(untaught: Path) -> Iterator[NodeProcess]:
    process = NodeProcess(
        "lifecycle.autostart:=true",
        "stream.max_age_s:=20.0",
        f"engine.checkpoint:={untaught}",
        namespace="/asked",
    )
    yield process
    assert process.end() == 0, "\n".join(process.log)


@pytest.fixture(scope="module")
def bench(node: NodeProcess) -> Iterator[Bench]:
    bench = Bench("/asked")
    bench.ask = bench.create_client(AskSpatial, "depthlm/ask")  # type: ignore[attr-defined]
    bench.send_until_answered()
    yield bench
    bench.close()


def ask(bench: Bench, **fields: Any) -> AskSpatial.Response:
    return bench.call(bench.ask, Request(timeout_s=20.0, **fields))  # type: ignore[attr-defined]


def test_a_two_point_distance_is_that_of_the_points_of_query_depth(bench: Bench) -> None:
    header = bench.send()
    bench.wait_for("sparse_depth", header)
    pixels = {"u": [40, 100], "v": [50, 80]}
    depth = bench.call(bench.query, QueryDepth.Request(timeout_s=20.0, **pixels))
    answer = ask(bench, task=APART, **pixels)
    assert depth.success, depth.message
    assert answer.success, answer.message
    a, b = (np.array([p.x, p.y, p.z]) for p in depth.points)
    assert answer.value == pytest.approx(float(np.linalg.norm(a - b)), rel=1e-5)
    assert (answer.unit, answer.derived, answer.status) == ("m", True, SparseDepth.STATUS_OK)
    assert answer.header == header
    assert answer.header == answer.depths[0].header
    assert answer.depths[0].depth == depth.result.depth
    assert answer.earlier_header == Header()
    assert math.isnan(answer.motion.translation.x)
    assert math.isnan(answer.motion.rotation.w)
    assert answer.sigma > 0.0
    assert 0.0 < answer.confidence < 1.0


def test_speed_and_time_are_the_length_of_the_ray_divided(bench: Bench) -> None:
    bench.wait_for("sparse_depth", bench.send())
    pixel = {"u": [100], "v": [80]}
    ahead, speed, needed = (
        ask(bench, task=AHEAD, **pixel),
        ask(bench, task=SPEED, seconds=4.0, **pixel),
        ask(bench, task=TIME, speed=0.5, **pixel),
    )
    assert [answer.unit for answer in (ahead, speed, needed)] == ["m", "m/s", "s"]
    assert ahead.value == pytest.approx(float(ahead.depths[0].depth[0]))
    assert speed.value == pytest.approx(ahead.value * LENGTH_PER_METRE / 4.0, rel=1e-5)
    assert needed.value == pytest.approx(ahead.value * LENGTH_PER_METRE / 0.5, rel=1e-5)
    assert speed.confidence == ahead.confidence


def test_a_pixel_that_cannot_be_asked_is_nan_with_its_reason(bench: Bench) -> None:
    bench.send()
    answer = ask(bench, task=AHEAD, u=[1], v=[60])
    assert answer.success
    assert answer.status == SparseDepth.STATUS_UNDRAWABLE
    assert math.isnan(answer.value)
    assert "(1, 60) cannot be asked" in answer.message
    assert list(answer.depths[0].status) == [SparseDepth.STATUS_UNDRAWABLE]


BAD = {
    "unknown task": ({"task": 77}, "task: expected one of 0 (principal_axis_distance), 1 "),
    "too few pixels": ({"task": APART, "u": [40], "v": [50]}, "expected 2 pixels, got 1"),
    "one pixel twice": ({"task": APART, "u": [40, 40], "v": [50, 50]}, "expected different pixels"),
    "u without v": ({"task": AHEAD, "u": [40], "v": []}, "u and v must have one length, got 1 and 0"),
    "outside": ({"task": AHEAD, "u": [5000], "v": [3]}, "(5000, 3) is outside the image of 160x120"),
    "no time": ({"task": SPEED, "u": [40], "v": [50]}, "expected seconds from 0.01 to 10000 s, got none"),
    "negative speed": ({"task": TIME, "u": [40], "v": [50], "speed": -1.0}, "m/s, got -1"),
    "speed too many": ({"task": AHEAD, "u": [40], "v": [50], "speed": 1.0}, "expected no speed, got 1"),
    "no such frame": (
        {"task": AHEAD, "u": [40], "v": [50], "stamp": Time(sec=5)},
        "stamp: no frame of 5.000000000 is kept",
    ),
    "an earlier frame too many": (
        {"task": AHEAD, "u": [40], "v": [50], "earlier_stamp": Time(sec=5)},
        "earlier_stamp: expected zero",
    ),
    "no such earlier frame": ({"task": MOTION, "earlier_stamp": Time(sec=5)}, "earlier_stamp: no frame of 5"),
    "pixels of a motion": ({"task": MOTION, "u": [40], "v": [50]}, "expected 0 pixels, got 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_question_is_refused_with_what_was_wrong(name: str, bench: Bench, node: NodeProcess) -> None:
    fields, says = BAD[name]
    bench.wait_for("sparse_depth", bench.send())
    answer = ask(bench, **fields)
    assert not answer.success
    assert answer.status == AskSpatial.Response.STATUS_REFUSED
    assert says in answer.message
    assert math.isnan(answer.value)
    assert node.process.poll() is None


def test_a_negative_timeout_is_refused(bench: Bench) -> None:
    answer = bench.call(bench.ask, Request(task=AHEAD, u=[40], v=[50], timeout_s=-1.0))  # type: ignore[attr-defined]
    assert not answer.success
    assert "timeout_s" in answer.message


def test_the_motion_between_two_frames_is_asked_by_stamps_and_the_stream_goes_on(bench: Bench) -> None:
    from depthlm_ros.spatial.pairs import pair_motion, sample_pair
    from depthlm_ros.synthetic import Domain, Intrinsics

    views = sample_pair((21, 4), Domain.ROBOT, intrinsics=Intrinsics(400.0, 400.0, 319.5, 239.5, 640, 480))
    k = [400.0, 0.0, 319.5, 0.0, 400.0, 239.5, 0.0, 0.0, 1.0]
    p = [400.0, 0.0, 319.5, 0.0, 0.0, 400.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    headers = []
    for view in views:
        header = bench.header()
        image = image_message(header, height=480, width=640, step=640 * 3)
        image.data = np.ascontiguousarray(view.rgb).tobytes()
        bench.send(image, info_message(header, width=640, height=480, k=k, p=p))
        bench.wait_for("sparse_depth", header)
        headers.append(header)
    bench.wait_for("sparse_depth", bench.send())  # neither of the two is the newest
    answer = ask(bench, task=MOTION, earlier_stamp=headers[0].stamp, stamp=headers[1].stamp)
    assert answer.success, answer.message
    assert (answer.earlier_header, answer.header) == tuple(headers)
    assert answer.derived
    assert answer.status == SparseDepth.STATUS_OK, answer.message
    shift = answer.motion.translation
    assert answer.value == pytest.approx(math.hypot(shift.x, shift.y, shift.z))
    turn = answer.motion.rotation
    assert math.hypot(turn.x, turn.y, turn.z, turn.w) == pytest.approx(1.0)
    assert 2 * math.degrees(math.acos(abs(turn.w))) == pytest.approx(pair_motion(*views).angle, abs=5.0)
    assert [depths.header for depths in answer.depths] == headers
    swapped = ask(bench, task=MOTION, earlier_stamp=headers[1].stamp, stamp=headers[0].stamp)
    assert not swapped.success
    assert "expected a frame before that of `stamp`" in swapped.message
    assert bench.send_until_answered()


def test_without_stamps_the_motion_is_that_from_the_oldest_kept_frame_to_the_newest(bench: Bench) -> None:
    header = bench.send()
    bench.wait_for("sparse_depth", header)
    answer = ask(bench, task=MOTION)
    assert answer.success, answer.message
    assert answer.header == header
    earlier = answer.earlier_header.stamp
    assert (earlier.sec, earlier.nanosec) < (header.stamp.sec, header.stamp.nanosec)


def test_before_the_first_frame_and_while_inactive_questions_are_refused() -> None:
    with alone() as (_, other):
        other.wait(lambda: other.state() == "unconfigured", 60.0)
        client = other.create_client(AskSpatial, "depthlm/ask")
        inactive = other.call(client, Request(task=AHEAD, u=[40], v=[50]))
        assert not inactive.success
        assert "activate it" in inactive.message


def test_the_numbers_of_the_service_are_those_of_the_core() -> None:
    assert list(range(len(SpatialTask))) == [AHEAD, APART, SPEED, TIME, MOTION]
    for status in SpatialStatus:
        holder = AskSpatial.Response if status >= 32 else SparseDepth
        assert getattr(holder, f"STATUS_{status.name}") == status
    assert AskSpatial.Response.STATUS_REFUSED not in set(SpatialStatus)
