"""The camera and the listener of the tests, and the node ``depthlm`` as a process beside them."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from tether import Tether

from depthlm_ros.msg import SparseDepth
from depthlm_ros.srv import QueryDepth

WIDTH, HEIGHT, FOCAL = 160, 120, 140.0
OUTPUTS = {
    "depth/image": Image,
    "depth/camera_info": CameraInfo,
    "points": PointCloud2,
    "obstacles": PointCloud2,
    "sparse_depth": SparseDepth,
    "debug/image": Image,
}


def picture(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A floor, a wall and some noise: enough for the model to say a number."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 150, np.uint8)
    image[height // 2 :] = (90, 70, 50)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def image_message(header: Header, **changes: Any) -> Image:
    rgb = picture()
    msg = Image(header=header, height=HEIGHT, width=WIDTH, encoding="rgb8", step=WIDTH * 3)
    msg.data.frombytes(rgb.tobytes())
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


def info_message(header: Header, **changes: Any) -> CameraInfo:
    cx, cy = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    msg = CameraInfo(
        header=header,
        width=WIDTH,
        height=HEIGHT,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[FOCAL, 0.0, cx, 0.0, FOCAL, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[FOCAL, 0.0, cx, 0.0, 0.0, FOCAL, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


class NodeProcess:
    """The node, started as a user starts it, its log collected; it ends with us, also where we are killed."""

    def __init__(
        self,
        *parameters: str,
        namespace: str = "/robot",
        file: Path | None = None,
        program: tuple[str, ...] = ("-m", "depthlm_ros.ros.main"),
    ) -> None:
        command = [sys.executable, *program, "--ros-args", "-r", f"__ns:={namespace}"]
        if file is not None:
            command += ["--params-file", str(file)]
        for parameter in ("engine.threads:=1", "sampling.columns:=3", "sampling.rows:=2", *parameters):
            command += ["-p", parameter]
        self.log: list[str] = []
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            cwd=Path(__file__).parents[2],
        )
        self._tether = Tether(self.process.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line.rstrip())
        self._tether.release()

    def logged(self, text: str) -> list[str]:
        return [line for line in self.log if text in line]

    def end(self, signum: int = signal.SIGINT, timeout: float = 10.0) -> int:
        """Signal the process group, wait, and return the exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signum)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        self._reader.join(1.0)
        return code


@contextmanager
def alone(*parameters: str, **options: Any) -> Iterator[tuple[NodeProcess, Bench]]:
    """A node and a bench in a namespace of their own, beside those of other tests."""
    namespace = f"/robot_{next(_namespaces)}"
    node, bench = NodeProcess(*parameters, namespace=namespace, **options), Bench(namespace)
    try:
        yield node, bench
    finally:
        bench.close()
        if node.process.poll() is None:
            assert node.end() == 0, "\n".join(node.log)


_namespaces = itertools.count(1)


class Bench(Node):
    """Publishes frames, keeps what the node publishes."""

    def __init__(self, namespace: str = "/robot") -> None:
        self.ros = rclpy.Context()
        rclpy.init(context=self.ros)
        super().__init__("bench", namespace=namespace, context=self.ros)
        qos = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.RELIABLE)
        self.images = self.create_publisher(Image, "image", qos)
        self.compressed = self.create_publisher(CompressedImage, "image/compressed", qos)
        self.infos = self.create_publisher(CameraInfo, "camera_info", qos)
        self.got: dict[str, list[Any]] = defaultdict(list)
        for name, kind in OUTPUTS.items():
            self.create_subscription(kind, f"depthlm/{name}", self.got[name].append, qos)
        self.create_subscription(DiagnosticArray, "/diagnostics", self.got["diagnostics"].append, 10)
        self.query = self.create_client(QueryDepth, "depthlm/query_depth")
        self._change = self.create_client(ChangeState, "depthlm/change_state")
        self._state = self.create_client(GetState, "depthlm/get_state")
        self._set = self.create_client(SetParameters, "depthlm/set_parameters")
        self._executor = SingleThreadedExecutor(context=self.ros)
        self._executor.add_node(self)
        self._met: list[Any] = []

    def close(self) -> None:
        self._executor.shutdown()
        self.destroy_node()
        rclpy.try_shutdown(context=self.ros)

    def header(self, frame_id: str = "camera_optical_frame") -> Header:
        return Header(stamp=self.get_clock().now().to_msg(), frame_id=frame_id)

    def send(self, image: Image | None = None, info: CameraInfo | None = None) -> Header:
        """Publish a pair; what is not given is good, and of the same stamp."""
        given = image or info
        header = given.header if given is not None else self.header()
        self.infos.publish(info or info_message(header))
        self.images.publish(image or image_message(header))
        return header

    def wait(self, condition: Callable[[], Any], timeout: float = 20.0) -> Any:
        """Spin until the condition holds and return its value; it is an error when it never does."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            self._executor.spin_once(timeout_sec=0.05)
        raise AssertionError(f"did not happen within {timeout} s")

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=min(left, 0.05))

    def wait_for(self, name: str, header: Header, timeout: float = 20.0) -> Any:
        """The output of that name with the header's stamp."""
        return self.wait(
            lambda: next((m for m in self.got[name] if m.header.stamp == header.stamp), None), timeout
        )

    def send_until_answered(self, timeout: float = 60.0) -> Any:
        """Publish good frames until the node answers one; returns its SparseDepth."""
        end = time.monotonic() + timeout
        sent = []

        def answer() -> Any:
            return next((m for m in self.got["sparse_depth"] if m.header.stamp in sent), None)

        while time.monotonic() < end:
            sent.append(self.send().stamp)
            try:
                return self.wait(answer, 2.0)
            except AssertionError:
                continue
        raise AssertionError(f"no frame was answered within {timeout} s: {self.counters()}")

    def call(self, client: Any, request: Any, timeout: float = 30.0) -> Any:
        self.wait(client.service_is_ready, timeout)
        if client not in self._met:  # a node drops the response to a client that it has not discovered yet
            self._met.append(client)
            self.spin(0.5)
        future = client.call_async(request)
        self.wait(future.done, timeout)
        return future.result()

    def transition(self, number: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.call(self._change, request, 60.0).success)

    def begin(self, number: int) -> None:
        """Ask for a transition and do not wait for its end."""
        self.wait(self._change.service_is_ready)
        self._change.call_async(ChangeState.Request(transition=Transition(id=number)))

    def state(self) -> str:
        """Asked again where no answer comes: a node drops the response to a client that it has not discovered yet."""
        for _ in range(12):
            with suppress(AssertionError):
                return str(self.call(self._state, GetState.Request(), 5.0).current_state.label)
        raise AssertionError("the node does not say its state")

    def set_parameter(self, name: str, value: Any) -> tuple[bool, str]:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self.call(self._set, request).results[0]
        return bool(result.successful), str(result.reason)

    def counters(self) -> dict[str, str]:
        """The newest diagnostics of the node."""
        self.got["diagnostics"].clear()

        def own() -> list[Any]:
            return [
                m for m in self.got["diagnostics"] if m.status[0].name.startswith(self.get_namespace()[1:])
            ]

        return {v.key: v.value for status in self.wait(own)[-1].status for v in status.values}
