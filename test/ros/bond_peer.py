"""The other half of a bond, as a lifecycle manager holds it: a process that says what becomes of it, line by line.

The states and what leads from one to the other are those of ``BondSM.sm`` in github.com/ros/bond_core, the messages
those that ``bondcpp/src/bond.cpp`` sends in each: nothing of the node's own half is used here. ``break`` on its
standard input breaks the bond.

It is a process of its own, as ``bond`` may be importable only in an environment made for it.
"""

from __future__ import annotations

import argparse
import sys
import threading
import uuid

import rclpy
from bond.msg import Status
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

WAITING, ALIVE, AWAITING_DEATH, DEAD = "waiting", "alive", "awaiting the other's death", "dead"
PERIOD_S, DEAD_PERIOD_S, DISCONNECT_S = 0.1, 0.05, 2.0


class Peer(Node):
    def __init__(self, namespace: str, name: str, connect_s: float, heartbeat_s: float, misses: int) -> None:
        super().__init__("manager", namespace=namespace)
        self.name, self.instance, self.state = name, str(uuid.uuid4()), WAITING
        self.heartbeat_s, self.timeout = heartbeat_s, threading.Timer(0.0, lambda: None)
        self.misses = misses
        self.status = self.create_publisher(Status, "bond", 5)
        self.create_subscription(Status, "bond", self.hear, 100)
        self.lock = threading.RLock()
        self.enter(WAITING, "")
        self.limit(connect_s, "no counterpart")
        self.create_timer(PERIOD_S, self.alive)
        self.create_timer(DEAD_PERIOD_S, self.dying)

    def enter(self, state: str, why: str) -> None:
        self.state = state
        print(f"{state} {why}".strip(), flush=True)

    def limit(self, seconds: float, why: str) -> None:
        """Die unless something else happens first."""
        self.timeout.cancel()
        self.timeout = threading.Timer(seconds, self.die, (why,))
        self.timeout.daemon = True
        self.timeout.start()

    def die(self, why: str) -> None:
        with self.lock:
            if self.state != DEAD:
                self.timeout.cancel()
                self.enter(DEAD, why)

    def say(self, active: bool) -> None:
        message = Status(id=self.name, instance_id=self.instance, active=active)
        message.heartbeat_period, message.heartbeat_timeout = PERIOD_S, self.heartbeat_s
        self.status.publish(message)

    def alive(self) -> None:
        with self.lock:
            if self.state in (WAITING, ALIVE):
                self.say(True)

    def dying(self) -> None:
        with self.lock:
            if self.state == AWAITING_DEATH:
                self.say(False)

    def break_off(self) -> None:
        with self.lock:
            if self.state == WAITING:
                self.die("broken here")
            elif self.state == ALIVE:
                self.enter(AWAITING_DEATH, "")
                self.limit(DISCONNECT_S, "no answer")
            self.say(False)

    def hear(self, message: Status) -> None:
        with self.lock:
            if message.id != self.name or message.instance_id == self.instance or self.state == DEAD:
                return
            if message.active and self.state == WAITING:
                self.timeout.cancel()
                self.enter(ALIVE, "")
            elif message.active and self.state == ALIVE:
                self.limit(self.heartbeat_s, "no heartbeat")
            elif not message.active and self.misses:
                self.misses -= 1
            elif not message.active:
                answered = self.state == AWAITING_DEATH
                self.die("answered" if answered else "broken by the other")
                if not answered:
                    self.say(False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("namespace")
    parser.add_argument("name")
    parser.add_argument("--connect", type=float)
    parser.add_argument("--heartbeat", type=float)
    parser.add_argument("--misses", type=int, help="how many of the other's last words are lost")
    given = parser.parse_args()
    rclpy.init()
    peer = Peer(given.namespace, given.name, given.connect, given.heartbeat, given.misses)
    executor = SingleThreadedExecutor()
    executor.add_node(peer)
    spinning = threading.Thread(target=executor.spin)
    spinning.start()
    for line in sys.stdin:
        assert line == "break\n"
        peer.break_off()
    # The test is over, or the test is gone.
    executor.create_task(executor.shutdown, 0.0)
    spinning.join()
    peer.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
