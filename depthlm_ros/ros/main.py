"""The process of the node ``depthlm``: it spins until a signal, and ends cleanly in the middle of whatever runs."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, MultiThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from depthlm_ros.config import ConfigError
from depthlm_ros.ros.desk import MAX_WAITING
from depthlm_ros.ros.ending import Watchdog, end_callbacks, leave, own_threads
from depthlm_ros.ros.exits import PARAMETERS_REFUSED
from depthlm_ros.ros.node import DepthLMNode
from depthlm_ros.ros.transitions import in_full


def spin(executor: Executor, until: threading.Event) -> None:
    """Spin until told to stop or the context is shut down, also while subscriptions come and go.

    A transition destroys subscriptions in one thread while the executor collects what it waits for in another.
    rclpy guards the subscriptions against that but not the events of each (``EventHandler.add_to_wait_set``), and
    the exception would end the process.
    """
    while executor.context.ok() and not until.is_set():
        with contextlib.suppress(InvalidHandle):
            executor.spin_once()


def end_spin(executor: Executor, until: threading.Event) -> None:
    """Let :func:`spin` return in its thread."""
    until.set()
    executor.create_task(
        lambda: None
    )  # being woken is not enough: it goes on to wait until there is something to do


def main(args: list[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM; exit code 0 then, PARAMETERS_REFUSED where they are."""
    # Not rclpy's handlers: they take ROS down before the node could tell a lifecycle manager that it goes. These are
    # kept: without a terminal, `ros2 launch` passes SIGINT on a second time.
    ended, end = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.write(end, b"."))
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = DepthLMNode()
    except ConfigError as error:
        rclpy.logging.get_logger("depthlm").fatal(str(error))
        rclpy.try_shutdown()
        sys.exit(PARAMETERS_REFUSED)
    executor = MultiThreadedExecutor(num_threads=4 + MAX_WAITING)
    executor.add_node(node)
    watchdog, enough, thread = Watchdog(), threading.Event(), ThreadPoolExecutor(1, "spin")
    spinning = thread.submit(spin, executor, enough)
    spinning.add_done_callback(lambda _: os.write(end, b"."))
    thread.shutdown(wait=False)
    os.read(ended, 1)
    watchdog.begin()
    # What collects garbage now, engines and the interpreter, would walk every object of torch and transformers: over
    # a second of CPU time that frees nothing the process's end does not free, of the two that a shutdown may take.
    gc.freeze()
    try:
        node.close()
        end_spin(executor, enough)
        quiet = end_callbacks(executor, spinning)
        if spinning.done():
            node.destroy_node()
        rclpy.try_shutdown()
        if spinning.done():
            spinning.result()
    except Exception as error:
        rclpy.logging.get_logger("depthlm").fatal(in_full("the process did not end as it should", error))
        leave(1)
    if not quiet or own_threads():
        leave(0)


if __name__ == "__main__":
    main()
