"""Our half of a bond: a lifecycle manager that holds the other half learns when this process is gone.

The protocol is that of ``bondcpp`` (github.com/ros/bond_core: ``bondcpp/src/bond.cpp``, ``bond/BondSM.sm``), used as
Nav2's own nodes use it (``nav2_util/src/lifecycle_node.cpp``, ``createBond``): on the topic ``bond``, under the
node's name, a ``bond/msg/Status`` ten times a second while the node is active, and one with ``active: false`` when it
ceases to be. The manager (``nav2_lifecycle_manager``) makes its half after ``activate`` and waits for ours for half
of its ``bond_timeout``.

``bondpy`` is not used: it gives its signs of life from a thread of its own, so that a node whose executor hangs would
still say that it is well, and it is a package that Nav2 does not bring along.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from depthlm_ros.config import ConfigError

PERIOD_S, TIMEOUT_S = 0.1, 4.0
"""Between two signs of life, and how long the other side might wait for one; both as in Nav2's nodes."""

CONNECT_S = 10.0
"""How long a half without a counterpart gives signs of life (``bond/msg/Constants``, ``DEFAULT_CONNECT_TIMEOUT``)."""


def bond_of(node: Node, wanted: str) -> Bond | None:
    """The node's half of a bond, if one is wanted (``lifecycle.bond``) and possible.

    Args:
        node: Who is watched over.
        wanted: ``auto``, ``required`` or ``never``.

    Returns:
        None where there is no bond; then the log says why, unless nobody wanted one.

    Raises:
        ConfigError: It is required, but the package ``bond`` is not installed.
    """
    if wanted == "never":
        return None
    try:
        from bond.msg import Status
    except ImportError as error:
        missing = f"the package 'bond' is not installed ({error})"
        if wanted == "required":
            raise ConfigError(
                f"lifecycle.bond is 'required', but {missing}: install ros-$ROS_DISTRO-bond, or set it to 'auto'"
            ) from error
        node.get_logger().info(
            f"no bond: {missing}; for a lifecycle manager that expects one, install ros-$ROS_DISTRO-bond"
        )
        return None
    return Bond(node, Status)


class Bond:
    """Gives signs of life while the node is active, through the executor: one that hangs gives none.

    The other side's signs of life are not waited for, as Nav2's nodes do not: a node goes on without its manager.
    """

    def __init__(self, node: Node, status: Any) -> None:
        """Make publisher and subscription; nothing is said yet.

        Args:
            node: Who is watched over; its name is the bond's.
            status: The message type ``bond/msg/Status``.
        """
        self._node, self._status = node, status
        self._group = MutuallyExclusiveCallbackGroup()
        self._publisher = node.create_publisher(status, "bond", 5)
        self._subscription = node.create_subscription(
            status, "bond", self._hear, 100, callback_group=self._group
        )
        self._lock = threading.Lock()
        self._timer: Any = None
        self._instance = self._sister = self._former = self._left_us = ""
        self._connect_by = 0.0

    def form(self) -> None:
        """Begin to give signs of life."""
        # Not on the node's clock: signs of life do not wait for /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        with self._lock:
            self._former, self._sister, self._left_us = self._sister or self._former, "", ""
            self._instance, self._connect_by = str(uuid.uuid4()), time.monotonic() + CONNECT_S
            self._say(active=True)
            self._timer = self._node.create_timer(
                PERIOD_S, self._beat, callback_group=self._group, clock=steady
            )

    def break_off(self) -> None:
        """Tell the other side that it is over, if it is not over yet."""
        with self._lock:
            if self._timer is not None:
                self._end()
                self._say(active=False)

    def destroy(self) -> None:
        """Take publisher and subscription down."""
        self.break_off()
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_publisher(self._publisher)

    def _beat(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            if self._sister or time.monotonic() < self._connect_by:
                self._say(active=True)
            else:
                self._end()

    def _hear(self, message: Any) -> None:
        with self._lock:
            sister = message.instance_id
            # The last word of a bond that is over may come when the next one has begun.
            if message.id != self._node.get_name() or sister in (self._instance, self._former):
                return
            if self._timer is not None:
                if not self._sister:
                    self._node.get_logger().info("bound to a lifecycle manager")
                self._sister = sister
                if not message.active:
                    self._node.get_logger().info("the lifecycle manager has ended the bond")
                    self._end()
                    self._left_us = sister
            if not message.active and sister == self._left_us:
                self._say(active=False)  # as often as it is asked: it waits for this answer

    def _end(self) -> None:
        self._node.destroy_timer(self._timer)
        self._timer = None

    def _say(self, *, active: bool) -> None:
        message = self._status(id=self._node.get_name(), instance_id=self._instance, active=active)
        message.heartbeat_period, message.heartbeat_timeout = PERIOD_S, TIMEOUT_S
        message.header.stamp = self._node.get_clock().now().to_msg()
        try:
            self._publisher.publish(message)
        except Exception:
            # A signal can end ROS at any moment: then there is nobody left to tell.
            if self._node.context.ok():
                raise
