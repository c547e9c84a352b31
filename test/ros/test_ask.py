"""The service ``~/ask``: against the running node, and its parts against scripted answers."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: run `make setup`, or source ROS 2")

from builtin_interfaces.msg import Time
from graph import FOCAL, HEIGHT, WIDTH, Bench, NodeProcess, alone, image_message, info_message
from std_msgs.msg import Header

from depthlm_ros.config import CameraConfig, StreamConfig
from depthlm_ros.engines.factory import CHECKPOINTS
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.msg import SparseDepth
from depthlm_ros.profile import PROFILE_FILE, CheckpointProfile
from depthlm_ros.ros.ask import AskService
from depthlm_ros.ros.desk import MAX_WAITING, ServiceDesk, Serving
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair
from depthlm_ros.ros.recent import KEPT, RecentFrames
from depthlm_ros.ros.worker import NewestFirstWorker
from depthlm_ros.spatial.request import SpatialRequest, SpatialStatus
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


def pair_at(seconds: float, arrived: float) -> Pair:
    header = Header(stamp=Time(sec=int(seconds), nanosec=int(seconds % 1 * 1e9)), frame_id="optical")
    return Pair(image_message(header), info_message(header), arrived)


def stamp_of(pair: Pair) -> int:
    return pair.header.stamp.sec * 10**9 + pair.header.stamp.nanosec


def test_answered_frames_are_kept_for_a_while_and_only_so_many() -> None:
    frames = RecentFrames()
    assert (frames.newest, frames.oldest, frames.find(10**9)) == (None, None, None)
    pairs = [pair_at(1 + k / 4, k / 4) for k in range(40)]  # 10 s at 4 Hz
    for pair in pairs:
        frames.see(pair)
        frames.keep(pair, 2.0)
    kept = [pair for pair in pairs if frames.find(stamp_of(pair)) is pair]
    assert kept == pairs[-9:]  # the newest and 2 s before it
    assert frames.oldest is pairs[-9]
    for pair in pairs:
        frames.keep(pair, 1000.0)
    assert [pair for pair in pairs if frames.find(stamp_of(pair)) is pair] == pairs[-KEPT:]
    frames.clear()
    assert (frames.newest, frames.oldest) == (None, None)


def test_the_newest_frame_is_found_unanswered_and_is_no_older_frame() -> None:
    frames = RecentFrames()
    only = pair_at(1.0, 0.0)
    frames.see(only)
    assert frames.newest is frames.find(10**9) is only
    assert frames.oldest is None
    frames.keep(only, 2.0)
    assert frames.oldest is None


def pipeline(engine: FakeEngine, *tasks: SpatialTask) -> FramePipeline:
    names = tuple(task.value for task in tasks)
    profile = CheckpointProfile("test", FOCAL / 2, max_new_tokens=20, spatial_tasks=names)
    return FramePipeline(DepthEstimator(engine, profile), CameraConfig(), lambda _: 0.0)


def test_a_trained_checkpoint_is_asked_in_the_tasks_words() -> None:
    said = " 0.50 meters. </think>\n\n<answer> 0.30 0.00 0.40 0.0 5.0 0.0 </answer>"
    with FakeEngine(lambda _: said) as engine:
        answer = pipeline(engine, SpatialTask.CAMERA_MOTION).ask(
            [pair_at(1.0, 0.0), pair_at(2.0, 1.0)],
            SpatialRequest(SpatialTask.CAMERA_MOTION),
            max_age_s=5.0,
            deadline=time.monotonic() + 9,
        )
    assert not answer.derived
    assert answer.value == pytest.approx(0.5)
    assert len(engine.prompts) == 1
    assert len(engine.prompts[0].images) == 2


def test_a_pixel_outside_the_first_image_is_refused_before_anything_is_asked() -> None:
    with FakeEngine(lambda _: " 2.00 meters") as engine:
        with pytest.raises(FrameRefusedError, match=r"\(160, 3\) is outside the image of 160x120"):
            pipeline(engine).ask(
                [pair_at(1.0, 0.0)],
                SpatialRequest(SpatialTask.PRINCIPAL_AXIS_DISTANCE, ((160, 3),)),
                max_age_s=5.0,
                deadline=time.monotonic() + 9,
            )
        assert engine.prompts == []


class Offering:
    """In the node's place: keeps the callback of the service that is offered."""

    def create_service(self, kind: Any, name: str, callback: Any, callback_group: Any) -> None:
        assert (kind, name) == (AskSpatial, "~/ask")
        self.callback = callback


@contextmanager
def served(
    engine: FakeEngine, health: Health, frames: RecentFrames, *tasks: SpatialTask
) -> Iterator[Callable[[AskSpatial.Request], AskSpatial.Response]]:
    """The service's callback over a pipeline whose engine is scripted."""
    failed: list[BaseException] = []
    worker: NewestFirstWorker[Pair] = NewestFirstWorker(lambda _: None, failed.append)
    worker.start()
    serving = Serving(worker, pipeline(engine, *tasks), frames, StreamConfig())
    offering = Offering()
    AskService(offering, None, health, ServiceDesk(health, lambda: serving))  # type: ignore[arg-type]
    yield lambda request: offering.callback(request, AskSpatial.Response())
    assert worker.stop(5.0)
    assert not failed


def test_what_became_of_a_direct_question_is_counted() -> None:
    health, frames = Health(print), RecentFrames()
    frames.see(pair_at(1.0, time.monotonic()))
    said = iter([" far away", " 2.00 meters", " 0.00 meters", " far away"])
    question = Request(task=AHEAD, u=[80], v=[60])
    with (
        FakeEngine(lambda _: next(said)) as engine,
        served(engine, health, frames, SpatialTask.PRINCIPAL_AXIS_DISTANCE) as call,
    ):
        answers = [call(question) for _ in range(4)]
    assert [answer.status for answer in answers] == [
        SparseDepth.STATUS_NO_NUMBER,
        SparseDepth.STATUS_OK,
        SparseDepth.STATUS_NOT_POSITIVE,
        SparseDepth.STATUS_NO_NUMBER,
    ]
    assert all(answer.success and not answer.derived and math.isnan(answer.confidence) for answer in answers)
    status = health.diagnostics(Time(), "n", "active", 2.0, 5.0).status[0]
    told = {value.key: value.value for value in status.values}
    assert {key: told[key] for key in told if "questions" in key} == {
        "questions_asked": "4",
        "failed_questions/no_number": "2",
        "failed_questions/not_positive": "1",
    }
    assert told["points_asked"] == "0"  # no depth was asked


def test_a_derived_question_is_counted_beside_its_points() -> None:
    health, frames = Health(print), RecentFrames()
    frames.see(pair_at(1.0, time.monotonic()))
    with FakeEngine(lambda _: " 2.00 meters") as engine, served(engine, health, frames) as call:
        assert call(Request(task=APART, u=[40, 100], v=[50, 80])).status == SparseDepth.STATUS_OK
        assert call(Request(task=AHEAD, u=[40], v=[50], seconds=3.0)).status == 255  # refused: never asked
    assert (health.questions_asked, dict(health.failed_questions)) == (1, {})
    assert (health.counters()["points_asked"], health.counters()["points_answered"]) == (2, 2)


def test_frames_that_are_forgotten_in_between_do_not_change_which_is_the_newest() -> None:
    class Forgetting(RecentFrames):
        @property
        def newest(self) -> Pair | None:
            pair = super().newest
            self.clear()
            return pair

    frames = Forgetting()
    frames.see(pair_at(1.0, time.monotonic()))
    with FakeEngine(lambda _: " 2.00 meters") as engine, served(engine, Health(print), frames) as call:
        answer = call(Request(task=AHEAD, u=[80], v=[60]))
        assert answer.success, answer.message
        assert answer.header.stamp.sec == 1
        assert "check the image and camera_info topics" in call(Request(task=AHEAD, u=[80], v=[60])).message


def test_no_exception_leaves_the_desk_and_places_are_given_back() -> None:
    said: list[str] = []
    desk = ServiceDesk(Health(said.append), lambda: None)  # type: ignore[arg-type,return-value]

    def fails(_: Any) -> None:
        raise KeyError("surprise")

    for _ in range(MAX_WAITING + 1):
        response = desk.serve("~/ask", AskSpatial.Response(success=True), fails)
        assert not response.success
        assert "internal error: KeyError" in response.message
    assert len(said) == 1

    def nested(depth: int) -> AskSpatial.Response:
        inner: list[AskSpatial.Response] = []
        work = (lambda _: inner.append(nested(depth - 1))) if depth else (lambda _: None)
        response = desk.serve("~/ask", AskSpatial.Response(), work)
        return inner[-1] if inner else response

    assert nested(MAX_WAITING - 1).success
    full = nested(MAX_WAITING)
    assert not full.success
    assert f"{MAX_WAITING} queries wait already" in full.message


def test_the_numbers_of_the_service_are_those_of_the_core() -> None:
    assert list(range(len(SpatialTask))) == [AHEAD, APART, SPEED, TIME, MOTION]
    for status in SpatialStatus:
        holder = AskSpatial.Response if status >= 32 else SparseDepth
        assert getattr(holder, f"STATUS_{status.name}") == status
    assert AskSpatial.Response.STATUS_REFUSED not in set(SpatialStatus)
