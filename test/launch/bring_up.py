"""The launch files, started in a test or only asked what they would start. Needs launch."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import EmitEvent, IncludeLaunchDescription, RegisterEventHandler, TimerAction
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.launch_description_sources.python_launch_file_utilities import load_python_launch_file_as_module

FOLDER = Path(__file__).parents[2] / "launch"
FILES = {path.name.removesuffix(".launch.py"): str(path) for path in FOLDER.glob("*.launch.py")}
DEPTH = FILES["depth"]


def run(path, says="active: waiting for", times=1, seconds=150.0, first=None, meanwhile=None, **arguments):
    """Launch until nodes said something so often, or are gone.

    Args:
        path: Launch file.
        says: A part of the line that is waited for; None waits for the end of `meanwhile`.
        times: How often it is said.
        seconds: The longest that it may take; None leaves the end to the processes.
        first: Is given the event in which it was said for the first time.
        meanwhile: Runs in a thread of its own while the launch runs.
        arguments: Of the launch file.

    Returns:
        launch's code, the lines with what was said, and the exit codes of the processes.
    """
    said, codes = [], []

    def heard(event):
        lines = [line for line in event.text.decode().splitlines() if says is not None and says in line]
        if lines and not said and first is not None:
            first(event)
        before = len(said)
        said.extend(lines)
        # Once: a second shutdown is an error of launch_ros.
        return EmitEvent(event=Shutdown()) if before < times <= len(said) else None

    late = EmitEvent(event=Shutdown(reason="it took too long"))
    service = LaunchService(noninteractive=True)
    service.include_launch_description(
        LaunchDescription(
            [
                RegisterEventHandler(OnProcessIO(on_stdout=heard, on_stderr=heard)),
                RegisterEventHandler(OnProcessExit(on_exit=lambda event, _: codes.append(event.returncode))),
                *([TimerAction(period=seconds, actions=[late])] if seconds is not None else []),
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource(path), launch_arguments=arguments.items()
                ),
            ]
        )
    )
    if meanwhile is None:
        return service.run(), said, codes
    with ThreadPoolExecutor(1) as pool:
        # Also a failure ends the launch; it is raised here then.
        found = pool.submit(meanwhile)
        found.add_done_callback(lambda _: service.shutdown())
        code = service.run()
        found.result()
    return code, said, codes


def start(path, **given):
    """What a launch file would start; it is not started."""
    module, context = load_python_launch_file_as_module(path), LaunchContext()
    for argument in module.generate_launch_description().get_launch_arguments():
        argument.execute(context)
    context.launch_configurations.update(given)
    return module._start(context)


@contextmanager
def bench_of(namespace):
    """The counterpart of a node, as the tests of the node use it."""
    sys.path.insert(0, str(FOLDER.parent / "test" / "ros"))
    from graph import Bench

    bench = Bench(namespace)
    try:
        yield bench
    finally:
        bench.close()
