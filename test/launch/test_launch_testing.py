"""The one-line launch under launch_testing: active, one output per frame with its stamp, a quiet log, a clean end."""

# ruff: noqa: E402, PT009

import sys
import time
import unittest
import uuid
from pathlib import Path

import pytest

REASON = "needs launch_testing and launch_ros: they come with a ROS 2 installation, not from PyPI"
pytest.importorskip("launch_testing.actions", reason=REASON)
pytest.importorskip("launch_ros.actions", reason=REASON)

import launch_testing
import launch_testing.actions
import launch_testing.markers
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.srv import GetState

REPOSITORY = Path(__file__).parents[2]
NAMESPACE = f"/launch_testing_{uuid.uuid4().hex[:8]}"
FORBIDDEN = ("[ERROR]", "[FATAL]", "Traceback", "terminate called")
FRAMES = 4


@pytest.mark.launch_test
@launch_testing.markers.keep_alive
def generate_test_description():
    depth = str(REPOSITORY / "launch" / "depth.launch.py")
    arguments = {"namespace": NAMESPACE}
    return LaunchDescription(
        [
            SetEnvironmentVariable("OMP_NUM_THREADS", "1"),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(depth), launch_arguments=arguments.items()
            ),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestRunning(unittest.TestCase):
    def test_one_output_per_frame_with_its_stamp_and_a_quiet_log(self, proc_output):
        sys.path.insert(0, str(REPOSITORY / "test" / "ros"))
        from graph import Bench

        bench = Bench(NAMESPACE)
        try:
            client = bench.create_client(GetState, "depthlm/get_state")
            end = time.monotonic() + 120.0
            while time.monotonic() < end:
                if client.service_is_ready() and bench.state() == "active":
                    break
                bench.spin(0.2)
            self.assertEqual(bench.state(), "active")
            bench.send_until_answered()
            bench.got["points"].clear()
            sent = []
            for _ in range(FRAMES):
                header = bench.send()
                sent.append((header.stamp.sec, header.stamp.nanosec))
                bench.wait_for("points", header)
            stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in bench.got["points"]]
            # The frame that was under way before may come in between; none comes twice, none is another's.
            self.assertEqual([s for s in stamps if s in sent], sent)
            self.assertEqual(len(stamps), len(set(stamps)))
        finally:
            bench.close()
        text = "".join(io.text.decode() for io in proc_output)
        self.assertIn("active: waiting for", text)
        for word in FORBIDDEN:
            self.assertNotIn(word, text)


@launch_testing.post_shutdown_test()
class TestAfterShutdown(unittest.TestCase):
    def test_the_node_ended_cleanly(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
