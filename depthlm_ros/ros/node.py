"""The node ``depthlm``: camera images in, metric points out."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from message_filters import ApproximateTimeSynchronizer, Subscriber
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.signals import uninstall_signal_handlers
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from depthlm_ros.config import ConfigError
from depthlm_ros.engines.base import EngineError
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.profile import ProfileError
from depthlm_ros.ros import messages, parameters
from depthlm_ros.ros.ask import HISTORY, AskService
from depthlm_ros.ros.desk import MAX_WAITING, ServiceDesk, Serving
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.loading import LoadedEngine
from depthlm_ros.ros.outputs import Outputs
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair
from depthlm_ros.ros.queries import QueryService
from depthlm_ros.ros.recent import RecentFrames
from depthlm_ros.ros.worker import NewestFirstWorker

STOP_S = 1.5
"""How long a transition waits for the worker; a shutdown must be over within 2 s."""


class DepthLMNode(LifecycleNode):  # type: ignore[misc]
    """Pairs images with their CameraInfo, asks the model, publishes depth, points and obstacles."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("depthlm", **kwargs)
        parameters.declare(self)
        self.config = parameters.read(self)
        self.health = Health(self.get_logger().warning)
        self.frames = RecentFrames()
        self.worker: NewestFirstWorker[Pair] | None = None
        self._engine: LoadedEngine | None = None
        self._pipeline: FramePipeline | None = None
        self._outputs: Outputs | None = None
        self._retired: NewestFirstWorker[Pair] | None = None
        self._closing = threading.Event()
        self._images_seen, self._activated, self._image_topic = 0, 0.0, "image"
        self._inputs: list[Subscriber] = []
        self._input_group = MutuallyExclusiveCallbackGroup()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.create_timer(1.0, self._watch, callback_group=MutuallyExclusiveCallbackGroup())
        self.add_on_set_parameters_callback(self._on_parameters)
        desk, group = ServiceDesk(self.health, self._serving), ReentrantCallbackGroup()
        self._offered = [kind(self, group, self.health, desk) for kind in (QueryService, AskService)]
        if self.config.lifecycle.autostart:
            self._autostart = self.create_timer(0.0, self._start_by_itself)

    @property
    def busy(self) -> bool:
        """Whether a thread of a worker that was told to stop is still inside the engine."""
        return self._retired is not None and self._retired.is_alive()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the engine; FAILURE, with a sentence that says what to do, when it cannot start."""
        engine = self.config.engine
        self.get_logger().info(f"loading engine {engine.name!r} with checkpoint {engine.checkpoint!r}")
        try:
            self._engine = LoadedEngine(self.config, self._closing)
        except (EngineError, ProfileError, ConfigError) as error:
            self.get_logger().error(f"cannot configure: {error}")
            return TransitionCallbackReturn.FAILURE
        estimator = self._engine.estimator
        self._pipeline = FramePipeline(estimator, self.config.camera, self._age_s)
        self._outputs = Outputs(self, self.health)
        self.get_logger().info(f"configured with {estimator.engine.model_name}")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and begin to answer."""
        if self.busy:
            self.get_logger().error("cannot activate: the engine still works on its last batch; try again")
            return TransitionCallbackReturn.FAILURE
        result = super().on_activate(state)
        self.health.reset()
        self._images_seen, self._activated = 0, time.monotonic()
        self.worker = NewestFirstWorker(self._process, self._worker_failed)
        self.worker.start()
        self._subscribe()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop publishing at once, and unsubscribe."""
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the engine's memory."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs and free everything."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unforeseen exception in a transition: stop, free everything, and be unconfigured again."""
        self.get_logger().error(f"a transition failed in state {state.label}; see the traceback above")
        self._halt()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop the worker and free the engine, for the end of the process."""
        self._closing.set()
        self._halt()
        self._release()

    def _start_by_itself(self) -> None:
        self.destroy_timer(self._autostart)
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _subscribe(self) -> None:
        stream = self.config.stream
        qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy[stream.reliability.upper()])
        compressed = stream.transport == "compressed"
        kind, topic = (CompressedImage, "image/compressed") if compressed else (Image, "image")
        self._image_topic, group = topic, self._input_group
        images = Subscriber(self, kind, topic, qos_profile=qos, callback_group=group)
        infos = Subscriber(self, CameraInfo, "camera_info", qos_profile=qos, callback_group=group)
        images.registerCallback(self._count_image)
        self._inputs = [images, infos]
        self._pairs = ApproximateTimeSynchronizer(self._inputs, stream.sync_queue, stream.sync_slop_s)
        self._pairs.registerCallback(self._on_pair)
        names = " and ".join(self.resolve_topic_name(name) for name in (topic, "camera_info"))
        self.get_logger().info(f"active: waiting for {names}")

    def _halt(self) -> None:
        worker, self.worker = self.worker, None
        for source in self._inputs:
            self.destroy_subscription(source.sub)
        self._inputs, self._pairs = [], None
        self.frames.clear()
        if worker is None:
            return
        self._retired = worker
        cancel = self._pipeline.cancel if self._pipeline is not None else lambda: None
        if not worker.stop(STOP_S, interrupt=cancel):
            self.get_logger().warning("the engine still works on its last batch; its answers are discarded")

    def _release(self) -> None:
        engine, self._engine, self._pipeline = self._engine, None, None
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            outputs.destroy()
        if engine is not None:
            engine.close(wait=not self.busy)

    def _serving(self) -> Serving:
        return Serving(self.worker, self._pipeline, self.frames, self.config.stream)

    def _count_image(self, _: Image | CompressedImage) -> None:
        self._images_seen += 1

    def _on_pair(self, image: Image | CompressedImage, info: CameraInfo) -> None:
        """Store the pair and return: the executor must stay free."""
        worker = self.worker
        if worker is None:
            return
        self.health.frame_arrived()
        pair = Pair(image, info, time.monotonic())
        self.frames.see(pair)
        if worker.submit(pair):
            self.health.dropped_frame("newer")

    def _process(self, pair: Pair) -> None:
        """Work on one frame, in a worker's thread."""
        pipeline, outputs, limit = self._pipeline, self._outputs, self.config.stream.max_age_s
        if pipeline is None or outputs is None:
            return
        try:
            sparse, frame = pipeline.estimate(pair, self.config.sampling, max_age_s=limit)
        except FrameRefusedError as error:
            self._refuse(error.reason, str(error), error.answers)
        except EngineError as error:
            self._refuse("engine", str(error), None)
        else:
            if self._has_a_say():
                self.frames.keep(pair, HISTORY * limit)
                outputs.publish(pair, sparse, frame.source, self.config.obstacles)

    def _has_a_say(self) -> bool:
        """A worker that was told to stop has no say any more, whatever it still finishes."""
        return threading.current_thread() is self.worker

    def _refuse(self, reason: str, explanation: str, answers: SparseDepth | None) -> None:
        if self._has_a_say():
            self.health.dropped_frame(reason, explanation)
            if answers is not None:
                self.health.asked_points(answers)

    def _worker_failed(self, error: BaseException) -> None:
        self.health.dropped_frame("internal", f"{type(error).__name__}: {error}")

    def _watch(self) -> None:
        """Once a second: diagnostics, and what to look at when nothing arrives."""
        active, stream = self.worker is not None, self.config.stream
        state = "active" if active else ("inactive" if self._pipeline else "unconfigured")
        name = f"{self.get_fully_qualified_name()[1:]}: depth"
        stamp = self.get_clock().now().to_msg()
        silence_s = max(stream.stall_s, stream.max_age_s)
        loaded = self._engine
        engine = loaded.estimator.engine.details() if loaded else None
        status = self.health.diagnostics(stamp, name, state, stream.stall_s, silence_s, engine)
        self._diagnostics.publish(status)
        if active:
            self._say_what_is_missing(stream.stall_s)

    def _say_what_is_missing(self, stall_s: float) -> None:
        now, last = time.monotonic(), self.health.last_frame
        if not self._images_seen and now - self._activated > stall_s:
            self.health.say(
                "no_image",
                f"no image came on {self.resolve_topic_name(self._image_topic)}: is the camera running, the topic "
                "right, and the publisher's QoS compatible (ros2 topic info -v)?",
            )
        elif self._images_seen and last is None:
            self.health.say(
                "no_camera_info",
                f"{self._images_seen} images came but none with a CameraInfo of the same stamp on "
                f"{self.resolve_topic_name('camera_info')}: publish it, remap camera_info, or raise "
                "stream.sync_slop_s",
            )
        elif last is not None and now - last > stall_s:
            self.health.say("stall", f"no frame for more than {stall_s:g} s: is the camera still there?")

    def _age_s(self, header: Header) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9 - messages.stamp_seconds(header)

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        self.config, result = parameters.applied(changes, self.config, configured=self._pipeline is not None)
        return result


def main(args: list[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM; exit code 0 then, 2 when the parameters are refused."""
    rclpy.init(args=args)
    try:
        node = DepthLMNode()
    except ConfigError as error:
        rclpy.logging.get_logger("depthlm").fatal(str(error))
        rclpy.try_shutdown()
        sys.exit(2)
    executor = MultiThreadedExecutor(num_threads=4 + MAX_WAITING)
    executor.add_node(node)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()
    # Without a terminal, `ros2 launch` passes SIGINT on a second time: the clean-up must survive it.
    uninstall_signal_handlers()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    node.close()
    executor.shutdown(timeout_sec=0.5)
    busy = node.busy or any(thread.name == "depthlm_load" for thread in threading.enumerate())
    node.destroy_node()
    rclpy.try_shutdown()
    if busy:
        # A thread inside the model cannot be stopped, and taking the interpreter down around it can crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
