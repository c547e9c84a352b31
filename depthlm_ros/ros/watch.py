"""Once a second: diagnostics, and what to look at when nothing arrives."""

from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from depthlm_ros.ros.clock import NodeClock
from depthlm_ros.ros.diagnostics import Watched, diagnostics
from depthlm_ros.ros.health import Health, Snapshot
from depthlm_ros.ros.inputs import Inputs


class Watch:
    """Publishes the diagnostics, and says what is missing."""

    def __init__(
        self,
        node: Node,
        health: Health,
        clock: NodeClock,
        watched: Callable[[], Watched],
        inputs: Callable[[], Inputs | None],
    ) -> None:
        """Begin to watch.

        Args:
            node: Publishes.
            health: Says what is missing.
            clock: The node's clock, which is looked at as well.
            watched: The node as it stands now.
            inputs: Its subscriptions now; None while it is not active.
        """
        self._clock = clock
        self._node, self._health, self._watched, self._inputs = node, health, watched, inputs
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        # Not on the node's clock, which stands still while /clock is silent: that is to be said, too.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(1.0, self._look, callback_group=MutuallyExclusiveCallbackGroup(), clock=steady)

    def _look(self) -> None:
        self._clock.look()
        now, inputs = self._watched(), self._inputs()
        self._diagnostics.publish(diagnostics(now, self._node.get_clock().now().to_msg()))
        if inputs is not None:
            self._say_what_is_missing(now.health, inputs, now.stream.stall_s)

    def _say_what_is_missing(self, health: Snapshot, inputs: Inputs, stall_s: float) -> None:
        if self._clock.unset and health.age_s > stall_s:
            self._health.say(
                "no_clock",
                "use_sim_time is set but nothing came on /clock: start the simulation, play the bag with --clock, or "
                "set use_sim_time to false",
            )
        images, last_s = health.total.images_in, health.frame_age_s
        if not images and health.age_s > stall_s:
            self._health.say(
                "no_image",
                f"no image came on {inputs.image_topic}: is the camera running, the topic right, and the "
                "publisher's QoS compatible (ros2 topic info -v)?",
            )
        elif images and last_s is None:
            self._health.say(
                "no_camera_info",
                f"{images} images came but none with a CameraInfo of the same stamp on "
                f"{inputs.info_topic}: publish it, remap camera_info, or raise stream.sync_slop_s",
            )
        elif last_s is not None and last_s > stall_s:
            self._health.say("stall", f"no frame for more than {stall_s:g} s: is the camera still there?")
