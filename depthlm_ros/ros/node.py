"""The node ``depthlm``: camera images in, metric points out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from depthlm_ros.config import DepthLMConfig
from depthlm_ros.engines.base import EngineError
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.ros.ask import AskService
from depthlm_ros.ros.bond import Bond, bond_of
from depthlm_ros.ros.clicks import Clicks
from depthlm_ros.ros.clock import NodeClock
from depthlm_ros.ros.desk import ServiceDesk, Serving
from depthlm_ros.ros.diagnostics import Watched
from depthlm_ros.ros.ending import CLOSE_S, STOP_S
from depthlm_ros.ros.health import Health
from depthlm_ros.ros.inputs import Inputs
from depthlm_ros.ros.loading import LoadedEngine
from depthlm_ros.ros.outputs import Outputs
from depthlm_ros.ros.parameters import NodeConfig
from depthlm_ros.ros.pipeline import FramePipeline, FrameRefusedError, Pair
from depthlm_ros.ros.queries import QueryService
from depthlm_ros.ros.recent import HISTORY, RecentFrames
from depthlm_ros.ros.shared_queries import SharedQueries
from depthlm_ros.ros.shared_questions import SharedQuestions
from depthlm_ros.ros.transitions import Failure, in_full, in_words, kept
from depthlm_ros.ros.watch import Watch
from depthlm_ros.ros.worker import NewestFirstWorker


class DepthLMNode(LifecycleNodeMixin, Node):  # type: ignore[misc]
    """Pairs images with their CameraInfo, asks the model, publishes depth, points and obstacles."""

    def __init__(self, **kwargs: Any) -> None:
        Node.__init__(self, "depthlm", **kwargs)
        # Their own group, or ~/get_state would not answer while ~/change_state loads a model. rclpy's LifecycleNode
        # leaves no choice of it.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._options = NodeConfig(self)
        self.health = Health(self.get_logger().warning)
        self.frames = RecentFrames()
        self.failure: Failure | None = None
        self.worker: NewestFirstWorker[Pair] | None = None
        self._engine: LoadedEngine | None = None
        self._pipeline: FramePipeline | None = None
        self._outputs: Outputs | None = None
        self._queries: SharedQueries | None = None
        self._questions: SharedQuestions | None = None
        self._clicks: Clicks | None = None
        self._bond: Bond | None = None
        self._retired: NewestFirstWorker[Pair] | None = None
        self._closing = threading.Event()
        self._inputs: Inputs | None = None
        self._input_group = MutuallyExclusiveCallbackGroup()
        self._time = NodeClock(self, self._went_back)
        self._watch = Watch(self, self.health, self._time, self._watched, lambda: self._inputs)
        desk, group = ServiceDesk(self.health, self._serving), ReentrantCallbackGroup()
        self._offered = [kind(self, group, self.health, desk) for kind in (QueryService, AskService)]
        if self.config.lifecycle.autostart:
            # The node's own group, which /clock and the parameter services are in, would be held while a model loads.
            alone = MutuallyExclusiveCallbackGroup()
            self._autostart = self.create_timer(0.0, self._start_by_itself, callback_group=alone)

    @property
    def config(self) -> DepthLMConfig:
        """The configuration at this moment."""
        return self._options.now

    @property
    def busy(self) -> bool:
        """Whether a thread of a worker that was told to stop is still inside the engine."""
        return self._retired is not None and self._retired.is_alive()

    @kept
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the engine; FAILURE, with a sentence that says what to do, when it cannot start."""
        try:
            self._configure()
        except Exception as error:  # also what nobody foresaw: a broken torch or CUDA raises anything
            text = in_words(error)
            self.get_logger().error(in_full(f"cannot configure: {text}", error))
            self._release()
            self.health.engine_is("failed", text)
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self._options.fix()
        engine = self.config.engine
        self.get_logger().info(f"loading engine {engine.name!r} with checkpoint {engine.checkpoint!r}")
        self.health.engine_is("loading")
        self._outputs = Outputs(self, self.health, self.config.obstacles.target_frame)
        self._bond = bond_of(self, self.config.lifecycle.bond)
        self._engine = LoadedEngine(self.config, self._closing)
        estimator = self._engine.estimator
        self._pipeline = FramePipeline(
            estimator, self.config.camera, self._time.age_s, self._time.rate, lambda: self._time.step_s
        )
        self._clicks = Clicks(self, self.health, lambda: self.config, self._serving)
        self.health.engine_is("ready")
        self.get_logger().info(f"configured with {estimator.engine.model_name}")

    @kept
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and begin to answer."""
        if self.busy:
            self.get_logger().error("cannot activate: the engine still works on its last batch; try again")
            return TransitionCallbackReturn.FAILURE
        result = super().on_activate(state)
        self.health.reset()
        self.worker = NewestFirstWorker(self._process, self._worker_failed)
        if self._pipeline is not None:
            self._queries = SharedQueries(self.worker, self._pipeline, self.frames, self.health)
            self._questions = SharedQuestions(self.worker, self._pipeline, self.frames)
        self.worker.start()
        self._inputs = Inputs(self, self._input_group, self.config.stream, self.health, self._on_pair)
        if self._clicks is not None:
            self._clicks.open()
        if self._bond is not None:
            self._bond.form()
        self.get_logger().info(
            f"active: waiting for {self._inputs.image_topic} and {self._inputs.info_topic}"
        )
        return result

    @kept
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop publishing at once, and unsubscribe."""
        self._halt()
        return super().on_deactivate(state)

    @kept
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the engine's memory."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @kept
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs and free everything."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unforeseen exception in a transition: tell it, stop, free everything, be unconfigured again."""
        failure, self.failure = self.failure, None
        text = f"a transition from {state.label!r} failed and gave no reason"
        if failure is None:
            self.get_logger().error(text)
        else:
            text = f"{failure.transition} failed: {in_words(failure.error)}"
            self.get_logger().error(in_full(text, failure.error))
        # Finalized is what a shutdown was to lead to; and what cannot be tidied up cannot be trusted again.
        end = TransitionCallbackReturn.FAILURE
        result = end if self._closing.is_set() else TransitionCallbackReturn.SUCCESS
        for step in (self._halt, self._release):
            try:
                step()
            except Exception as error:
                what = f"{in_words(error)}, and this after {text}: restart this process"
                self.get_logger().error(in_full(what, error))
                result = end
        self.health.engine_is("failed", text)
        return result

    def close(self) -> None:
        """Stop the worker and free the engine within ``CLOSE_S``, for the end of the node's life."""
        by = time.monotonic() + CLOSE_S
        self._closing.set()
        self._time.close()
        self._halt()
        self._release(by)

    def _start_by_itself(self) -> None:
        self.destroy_timer(self._autostart)
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _halt(self) -> None:
        worker, self.worker, self._queries, self._questions = self.worker, None, None, None
        inputs, self._inputs = self._inputs, None
        with contextlib.ExitStack() as steps:  # the last comes first; each is taken even where another fails
            if worker is not None:
                steps.callback(self._stop, worker)
            steps.callback(self.frames.clear)
            for part in (self._clicks, inputs):
                if part is not None:
                    steps.callback(part.close)
            if self._bond is not None:
                steps.callback(self._bond.break_off)

    def _stop(self, worker: NewestFirstWorker[Pair]) -> None:
        self._retired = worker
        cancel = self._pipeline.cancel if self._pipeline is not None else lambda: None
        if not worker.stop(STOP_S, interrupt=cancel):
            self.get_logger().warning("the engine still works on its last batch; its answers are discarded")

    def _release(self, by: float | None = None) -> None:
        engine, self._engine, self._pipeline = self._engine, None, None
        outputs, self._outputs = self._outputs, None
        clicks, self._clicks = self._clicks, None
        bond, self._bond = self._bond, None
        with contextlib.ExitStack() as steps:  # as above
            steps.callback(self._options.free)
            if engine is not None:
                steps.callback(self.health.engine_is, "none")
                left_s = None if by is None else max(by - time.monotonic(), 0.0)
                steps.callback(engine.close, 0.0 if self.busy else left_s)
            for publishing in (bond, clicks, outputs):
                if publishing is not None:
                    steps.callback(publishing.destroy)

    def _serving(self) -> Serving:
        return Serving(
            self.worker, self._pipeline, self.frames, self.config.stream, self._queries, self._questions
        )

    def _on_pair(self, pair: Pair) -> None:
        """Store the pair and return: the executor must stay free."""
        worker = self.worker
        if worker is None:
            return
        self.health.frame_arrived(self._time.age_s(pair.header))
        self.frames.see(pair)
        if worker.submit(pair):
            self.health.dropped_frame("newer")

    def _process(self, pair: Pair) -> Iterator[None]:
        """Work on one frame, in a worker's thread; questions have their turn at every ``yield``."""
        pipeline, outputs, stream = self._pipeline, self._outputs, self.config.stream
        if pipeline is None or outputs is None:
            return
        try:
            sparse, frame = yield from pipeline.estimate(pair, self.config.sampling, stream)
        except FrameRefusedError as error:
            self._refuse(error.reason, str(error), error.answers)
        except EngineError as error:
            self._refuse("engine", str(error), None)
        else:
            if self._has_a_say():
                self.frames.keep(pair, HISTORY * stream.max_age_s)
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
        # A signal can end ROS in the middle of a frame: then there is nobody left to publish to.
        if not self.context.ok():
            return
        self.health.dropped_frame("internal", f"{type(error).__name__}: {error}")

    def _watched(self) -> Watched:
        state = self._state_machine.current_state[1]
        name, loaded, limits = self.get_fully_qualified_name()[1:], self._engine, self.config.diagnostics
        engine = loaded.estimator.engine.details() if loaded else {}
        return Watched(
            name,
            state,
            self.health.snapshot(limits.window_s),
            self.config.stream,
            limits,
            engine,
            self._time.details(),
            self._time.unset,
        )

    def _went_back(self, how: str) -> None:
        """Forget what belongs to the time before the clock went back."""
        self.health.clock_jumped()
        self.health.say("clock_jump", f"the clock {how}: frames from before are forgotten")
        worker = self.worker
        for part in (self._pipeline, self._inputs, self._outputs, self._clicks):
            if part is not None:
                part.forget()
        if worker is not None and worker.discard():
            self.health.dropped_frame("clock_jump")
        self.frames.clear()
