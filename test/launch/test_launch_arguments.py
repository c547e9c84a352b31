"""What the arguments of ``depth.launch.py`` do to the node that it starts."""

# ruff: noqa: E402

import os
import signal
import sys
from pathlib import Path

import pytest

REASON = "needs launch and launch_ros: they come with a ROS 2 installation, not from PyPI"
# `launch` alone would also find this repository's folder of that name.
pytest.importorskip("launch.actions", reason=REASON)
pytest.importorskip("launch_ros.actions", reason=REASON)

from bring_up import DEPTH, FOLDER, bench_of, run

from depthlm_ros.ros.exits import PARAMETERS_REFUSED


def test_a_node_that_does_not_start_by_itself_is_told_to_and_hears_the_topics_that_were_named(launched):
    from lifecycle_msgs.msg import Transition
    from rcl_interfaces.srv import GetParameters

    robot = "/" + launched["namespace"]

    def manage():
        with bench_of(robot) as bench:
            bench.wait(bench.query.service_is_ready, 100.0)
            assert bench.state() == "unconfigured"
            asked = GetParameters.Request(names=["use_sim_time", "stream.transport"])
            client = bench.create_client(GetParameters, "depthlm/get_parameters")
            simulated, transport = bench.call(client, asked).values
            assert (simulated.bool_value, transport.string_value) == (True, "compressed")
            assert bench.transition(Transition.TRANSITION_CONFIGURE)
            assert bench.transition(Transition.TRANSITION_ACTIVATE)
            for topic in ("cam/raw/compressed", "cam/info"):
                bench.wait(lambda topic=topic: bench.count_subscribers(f"{robot}/{topic}"))
            assert not bench.count_subscribers(f"{robot}/image/compressed")
            assert not bench.count_subscribers(f"{robot}/camera_info")

    code, said, codes = run(
        DEPTH, says=None, meanwhile=manage, autostart="false", use_sim_time="true", transport="compressed",
        image="cam/raw", camera_info="cam/info", **launched,
    )  # fmt: skip
    assert (code, said, codes) == (0, [], [0])


def saying(launched, *lines):
    """A parameter file of the user's, beside what keeps the node quick."""
    file = Path(launched["params_file"])
    file.write_text(
        "\n    ".join([file.read_text(encoding="utf-8").rstrip(), *lines]) + "\n", encoding="utf-8"
    )
    return launched


def test_what_the_parameter_file_says_of_the_start_and_of_the_clock_holds(launched):
    from rcl_interfaces.srv import GetParameters

    def look():
        with bench_of("/" + launched["namespace"]) as bench:
            bench.wait(bench.query.service_is_ready, 100.0)
            asked = GetParameters.Request(names=["use_sim_time", "lifecycle.autostart"])
            client = bench.create_client(GetParameters, "depthlm/get_parameters")
            simulated, autostart = bench.call(client, asked).values
            assert (simulated.bool_value, autostart.bool_value) == (True, False)
            assert bench.state() == "unconfigured"

    given = saying(launched, "use_sim_time: true", "lifecycle.autostart: false")
    assert run(DEPTH, says=None, meanwhile=look, **given) == (0, [], [0])


def test_an_argument_holds_against_the_parameter_file(launched):
    given = saying(launched, "lifecycle.autostart: false")
    code, said, codes = run(DEPTH, autostart="true", **given)
    assert (code, len(said), codes) == (0, 1, [0])


def test_raw_images_come_from_the_topic_that_was_named(launched):
    robot = "/" + launched["namespace"]
    says = f"active: waiting for {robot}/cam/raw and {robot}/cam/info"
    code, said, _ = run(DEPTH, says=says, image="cam/raw", camera_info="cam/info", **launched)
    assert (code, len(said)) == (0, 1)


def test_the_log_level_is_the_nodes(launched):
    code, said, _ = run(DEPTH, says="[DEBUG]", log_level="debug", autostart="false", **launched)
    assert code == 0
    assert said


def test_a_node_that_died_is_started_again(launched):
    code, said, codes = run(
        DEPTH, times=2, first=lambda event: os.kill(event.pid, signal.SIGKILL), use_respawn="true", **launched
    )
    assert (code, len(said), codes) == (0, 2, [-signal.SIGKILL, 0])


def test_a_node_that_refuses_its_parameters_is_not_started_again(launched):
    """It would refuse them for ever; the launch ends, as it does without use_respawn."""
    given = saying(launched, "engine.thread: 1")
    code, said, codes = run(
        DEPTH, says="did you mean 'engine.threads'", times=2, seconds=None, use_respawn="true", **given
    )
    assert (code, len(said), codes) == (0, 1, [PARAMETERS_REFUSED])


@pytest.fixture
def rviz_words(launched, monkeypatch, tmp_path):
    """Launches with a stand-in for rviz2 that says how it was called, and returns its arguments."""
    index = tmp_path / "prefix" / "share" / "ament_index" / "resource_index" / "packages" / "rviz2"
    stand_in = tmp_path / "prefix" / "lib" / "rviz2" / "rviz2"
    for file in (index, stand_in):
        file.parent.mkdir(parents=True)
    index.touch()
    stand_in.write_text(
        f"#!{sys.executable}\nimport sys\nprint(' '.join(['rviz2 is called with', *sys.argv[1:]]), flush=True)\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"), prepend=os.pathsep)

    def words(**given):
        code, said, _ = run(
            DEPTH, says="rviz2 is called with", rviz="true", autostart="false", **launched, **given
        )
        assert code == 0
        return said[0].split()

    return words


def test_rviz_is_started_with_our_displays_of_that_node(launched, rviz_words):
    words = rviz_words(rviz_frame="my_optical_frame")
    assert Path(words[words.index("-d") + 1]).samefile(FOLDER.parent / "config" / "depthlm.rviz")
    assert words[words.index("-f") + 1] == "my_optical_frame"
    for topic in ("debug/image", "points", "obstacles"):
        assert f"/depthlm/{topic}:=/{launched['namespace']}/depthlm/{topic}" in words
    assert "--params-file" not in words


def test_rviz_has_the_clock_of_the_node_and_its_own_frame(launched, rviz_words):
    saying(launched, "use_sim_time: true")
    words = rviz_words()
    assert "-f" not in words
    parameters = Path(words[words.index("--params-file") + 1]).read_text(encoding="utf-8")
    assert "use_sim_time: true" in parameters
