"""The node ``depthlm``: camera images in, metric points out."""

from __future__ import annotations

import contextlib
import sys
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
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from depthlm_ros.config import ConfigError
from depthlm_ros.engines.base import EngineError
from depthlm_ros.geometry import SparseDepth, confident, within_range
from depthlm_ros.msg import SparseDepth as SparseDepthMsg
from depthlm_ros.overlay import draw_overlay
from depthlm_ros.profile import ProfileError
from depthlm_ros.ros import messages, parameters
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair
from depthlm_ros.ros.queries import MAX_WAITING, QueryService, Serving
from depthlm_ros.ros.worker import NewestFirstWorker
from depthlm_ros.session import open_estimator

STOP_S = 1.5
"""How long a transition waits for the worker; a shutdown must be over within 2 s."""


class DepthLMNode(LifecycleNode):  # type: ignore[misc]
    """Pairs images with their CameraInfo, asks the model, publishes depth, points and obstacles."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("depthlm", **kwargs)
        parameters.declare(self)
        self.config = parameters.read(self)
        self.health = Health(self.get_logger().warning)
        self.newest: Pair | None = None
        self.pipeline: FramePipeline | None = None
        self.worker: NewestFirstWorker[Pair] | None = None
        self._active = False
        self._resources = contextlib.ExitStack()
        self._images_seen, self._activated, self._image_topic = 0, 0.0, "image"
        self._inputs: list[Subscriber] = []
        self._input_group = MutuallyExclusiveCallbackGroup()
        self._watch_group = MutuallyExclusiveCallbackGroup()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.create_timer(1.0, self._watch, callback_group=self._watch_group)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.queries = QueryService(self, ReentrantCallbackGroup(), self.health, self._serving)
        if self.config.lifecycle.autostart:
            self._autostart = self.create_timer(0.0, self._start_by_itself)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm the engine; FAILURE, with a sentence that says what to do, when it cannot start."""
        try:
            estimator = self._resources.enter_context(open_estimator(self.config))
        except (EngineError, ProfileError, ConfigError) as error:
            self.get_logger().error(f"cannot configure: {error}")
            self._resources.close()
            return TransitionCallbackReturn.FAILURE
        self.pipeline = FramePipeline(estimator, self.config.camera, self._age_s)
        self._depth_pub = self.create_lifecycle_publisher(Image, "~/depth/image", 1)
        self._info_pub = self.create_lifecycle_publisher(CameraInfo, "~/depth/camera_info", 1)
        self._points_pub = self.create_lifecycle_publisher(PointCloud2, "~/points", 1)
        self._obstacles_pub = self.create_lifecycle_publisher(PointCloud2, "~/obstacles", 1)
        self._sparse_pub = self.create_lifecycle_publisher(SparseDepthMsg, "~/sparse_depth", 1)
        self._debug_pub = self.create_lifecycle_publisher(Image, "~/debug/image", 1)
        self.get_logger().info(f"configured with {estimator.engine.model_name}")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and begin to answer."""
        result = super().on_activate(state)
        self.health.reset()
        self._images_seen, self._activated = 0, time.monotonic()
        self.worker = NewestFirstWorker(self._process, self._worker_failed)
        self.worker.start()
        self._active = True
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
        self._halt()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unforeseen exception in a transition: stop, free everything, and be unconfigured again."""
        self.get_logger().error(f"a transition failed in state {state.label}; see the traceback above")
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop the worker and free the engine without a transition, for the end of the process."""
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
        self._image_topic = topic
        group = self._input_group
        images = Subscriber(self, kind, topic, qos_profile=qos, callback_group=group)
        infos = Subscriber(self, CameraInfo, "camera_info", qos_profile=qos, callback_group=group)
        images.registerCallback(self._count_image)
        self._inputs = [images, infos]
        self._pairs = ApproximateTimeSynchronizer(self._inputs, stream.sync_queue, stream.sync_slop_s)
        self._pairs.registerCallback(self._on_pair)
        names = " and ".join(self.resolve_topic_name(name) for name in (topic, "camera_info"))
        self.get_logger().info(f"active: waiting for {names}")

    def _halt(self) -> None:
        self._active = False
        for source in self._inputs:
            self.destroy_subscription(source.sub)
        self._inputs = []
        worker, self.worker, self.newest = self.worker, None, None
        if worker is not None and not worker.stop(STOP_S, interrupt=self._cancel):
            self.get_logger().warning("the engine still works on its last batch; its answers are discarded")

    def _cancel(self) -> None:
        if self.pipeline is not None:
            self.pipeline.cancel()

    def _release(self) -> None:
        if self.pipeline is None:
            return
        self.pipeline = None
        for publisher in (
            self._depth_pub, self._info_pub, self._points_pub, self._obstacles_pub, self._sparse_pub,
            self._debug_pub,
        ):  # fmt: skip
            self.destroy_publisher(publisher)
        self._resources.close()

    def _serving(self) -> Serving:
        return Serving(self.worker, self.pipeline, self.newest, self.config.stream)

    def _count_image(self, _: Image | CompressedImage) -> None:
        self._images_seen += 1

    def _on_pair(self, image: Image | CompressedImage, info: CameraInfo) -> None:
        """Store the pair and return: the executor must stay free."""
        worker = self.worker
        if worker is None:
            return
        self.health.frame_arrived()
        self.newest = pair = Pair(image, info, time.monotonic())
        if worker.submit(pair):
            self.health.dropped_frame("newer")

    def _process(self, pair: Pair) -> None:
        """Work on one frame, in the worker's thread."""
        pipeline, limit = self.pipeline, self.config.stream.max_age_s
        if pipeline is None:
            return
        try:
            deadline = time.monotonic() + limit - self._age_s(pair.header)
            sparse, frame = pipeline.estimate(pair, self.config.sampling, max_age_s=limit, deadline=deadline)
            if not sparse.answered.any():
                self.health.asked_points(sparse.reasons())
                raise FrameRefusedError("no_answer", f"no pixel was answered: {sparse.reasons()}")
            if self._age_s(pair.header) > limit:
                self.health.asked_points(sparse.reasons())
                raise FrameRefusedError("late", f"answered only when the frame was older than {limit:g} s")
        except FrameRefusedError as error:
            self.health.dropped_frame(error.reason, str(error))
        except EngineError as error:
            self.health.dropped_frame("engine", str(error))
        else:
            if self._active:
                self._publish(pair, sparse, frame.source)

    def _publish(self, pair: Pair, sparse: SparseDepth, source: Any) -> None:
        header, latency = pair.header, time.monotonic() - pair.arrived
        self.health.answered_frame(sparse.reasons(), latency)
        self._depth_pub.publish(messages.depth_image(sparse, header))
        self._info_pub.publish(messages.rectified_info(sparse.camera, header))
        self._points_pub.publish(messages.point_cloud(sparse, header))
        self._publish_obstacles(sparse, header)
        self._sparse_pub.publish(
            messages.sparse_depth(sparse, header, latency_s=latency, counters=self.health.counters())
        )
        if self._debug_pub.get_subscription_count():
            self._debug_pub.publish(messages.rgb_image(draw_overlay(source, sparse), header))

    def _publish_obstacles(self, sparse: SparseDepth, header: Header) -> None:
        """An empty cloud says "looked, nothing there"; where no point is sure, nothing is said at all."""
        limits = self.config.obstacles
        sure = confident(sparse, limits.min_confidence)
        if not sure.any():
            self.health.say(
                "unsure",
                f"no point reaches obstacles.min_confidence ({limits.min_confidence:g}), so ~/obstacles is not "
                "published; lower it, or calibrate the checkpoint if all confidences are NaN",
            )
            return
        near = within_range(sparse, limits.min_range_m, limits.max_range_m)
        self._obstacles_pub.publish(messages.obstacle_cloud(sparse, sure & near, header))

    def _worker_failed(self, error: BaseException) -> None:
        self.health.dropped_frame("internal", f"{type(error).__name__}: {error}")

    def _watch(self) -> None:
        """Once a second: diagnostics, and what to look at when nothing arrives."""
        state = "active" if self._active else ("inactive" if self.pipeline else "unconfigured")
        name = f"{self.get_fully_qualified_name()[1:]}: depth"
        stamp = self.get_clock().now().to_msg()
        stall_s = self.config.stream.stall_s
        self._diagnostics.publish(self.health.diagnostics(stamp, name, state, stall_s))
        if self._active:
            self._say_what_is_missing(stall_s)

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
        self.config, result = parameters.applied(changes, self.config)
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
    node.close()
    executor.shutdown(timeout_sec=0.5)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
