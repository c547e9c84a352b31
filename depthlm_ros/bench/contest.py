"""The three procedures on one checkpoint, device and dtype, each timed by the same clock."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from depthlm_ros.bench.clock import IN_ENGINE, StageClock, Watch, settle_for
from depthlm_ros.bench.frames import BenchError, BenchFrame
from depthlm_ros.bench.official import BATCH, OfficialProcedure
from depthlm_ros.bench.ours import OurProcedure, WatchedEngine
from depthlm_ros.bench.script import Heard, Script
from depthlm_ros.bench.shapes import SHAPES, Shape, shape_of
from depthlm_ros.config import EMBEDDED, EngineConfig
from depthlm_ros.engines.hf_checkpoint import pick_device, read_json
from depthlm_ros.profile import TEXT_QUESTION, CheckpointProfile, load_profile

ARMS = ("official", "marker", "text")


@dataclass(frozen=True)
class BenchOptions:
    """What is timed, and on what.

    Attributes:
        shape: One of :data:`~depthlm_ros.bench.shapes.SHAPES`, or ``embedded``.
        points: Queries of a frame.
        width: Of the camera's image in pixels.
        height: Of the camera's image in pixels.
        rounds: Frames that every procedure answers.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: Empty takes float32 on a CPU and bfloat16 on a GPU, for all procedures.
        threads: CPU threads of torch, for all procedures; 0 leaves torch's choice.
        batch_size: The most queries that our engine answers at once; the official script's are 3.
        marker_batch: The same for ``marker`` alone; 0 leaves it to the engine.
    """

    shape: str = "small"
    points: int = 64
    width: int = 1280
    height: int = 720
    rounds: int = 1
    device: str = "auto"
    dtype: str = ""
    threads: int = 0
    batch_size: int = EngineConfig().batch_size
    marker_batch: int = 0

    def __post_init__(self) -> None:
        known = [*SHAPES, EMBEDDED]
        if self.shape not in known:
            raise BenchError(f"--shape: expected one of {', '.join(known)}, got {self.shape!r}")
        for name in ("points", "width", "height", "rounds", "batch_size"):
            if getattr(self, name) < 1:
                raise BenchError(f"--{name.replace('_', '-')}: expected 1 or more, got {getattr(self, name)}")


@dataclass
class Run:
    """One procedure on one frame.

    Attributes:
        queries: How many points were asked.
        wall_s: From opening the file to the last answer (ours: to the built messages).
        cpu_s: Processor time of the whole process meanwhile.
        first_s: Until the first answer was in hand; ours is asked alone for it, by ``first_point``.
        seconds: {stage: seconds}; they add up to ``wall_s``.
        beside: {stage: seconds of other threads}, which nobody waited for.
        tokens: Decoded tokens per query.
        metres: The answers; None without a number.
        heard: What random weights would have said.
    """

    queries: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    first_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    beside: dict[str, float] = field(default_factory=dict)
    tokens: float = 0.0
    metres: list[float | None] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)

    @property
    def engine_s(self) -> float:
        """Seconds inside of the engine."""
        return sum(self.seconds.get(stage, 0.0) for stage in IN_ENGINE)

    @property
    def outside_share(self) -> float:
        """Share of the frame's time that is not the engine's."""
        return 1.0 - self.engine_s / self.wall_s if self.wall_s > 0.0 else 0.0


class Contest:
    """Opens the procedures; used as a context manager.

    Args:
        options: What is timed.
        publish: Turns answers into what a node publishes; None where that cannot be measured.
    """

    def __init__(self, options: BenchOptions, publish: Callable[[Any], object] | None = None) -> None:
        self.options, self._publish = options, publish
        self._stack = ExitStack()

    def __enter__(self) -> Contest:
        """Make the checkpoint and load it twice: once for the official procedure, once for our engine.

        Raises:
            EngineError: The device is not there.
            BenchError: The shape is too large for it.
        """
        import torch
        from transformers.utils import logging as hf_logging

        options = self.options
        self.device = str(pick_device(options.device))
        self.dtype = options.dtype or ("bfloat16" if self.device.startswith("cuda") else "float32")
        if options.shape == "3b" and not self.device.startswith("cuda"):
            raise BenchError(
                "--shape 3b is for a GPU, and none is used: a CPU takes minutes per query and 30 GB; "
                "use --shape small, which has its proportions"
            )
        if options.threads:
            torch.set_num_threads(options.threads)
        bars = hf_logging.is_progress_bar_enabled()
        hf_logging.disable_progress_bar()
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        finally:
            if bars:
                hf_logging.enable_progress_bar()
        return self

    def _open(self) -> None:
        options = self.options
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="depthlm_bench_")))
        self.checkpoint, self.profile, self.shape = self._checkpoint()
        text = replace(self.profile, pixel_reference="text", question=TEXT_QUESTION, calibration=None)
        self.official = OfficialProcedure(
            self.checkpoint, self.profile.question, self.profile.canonical_focal_px,
            device=self.device, dtype=self.dtype,
        )  # fmt: skip
        self.engine = WatchedEngine(
            self.checkpoint, device=self.device, dtype=self.dtype, batch_size=options.batch_size,
            images_at_once=options.marker_batch or None, threads=options.threads,
        )  # fmt: skip
        self._stack.enter_context(self.engine)
        self.batch_sizes = {
            "official": BATCH, "marker": self.engine.images_at_once, "text": options.batch_size,
        }  # fmt: skip
        self.watches = {"official": self.official.watch, "ours": Watch(self.engine.model)}
        for watch in self.watches.values():
            self._stack.enter_context(watch)
        self.ours = {
            "marker": OurProcedure(self.engine, self.profile, self.watches["ours"]),
            "text": OurProcedure(self.engine, text, self.watches["ours"]),
        }
        self.scripts: dict[str, Script] = {}
        if options.shape != EMBEDDED:
            for name, model in (("official", self.official.model), ("ours", self.engine.model)):
                script = Script(self.watches[name], model.lm_head, self.engine.tokenizer)
                self.scripts[name] = self._stack.enter_context(script)
            self.scripts["ours"].start = self.scripts["ours"].prefix

    def _checkpoint(self) -> tuple[Path, CheckpointProfile, Shape]:
        from depthlm_ros.bench.random_checkpoint import write_random_checkpoint
        from depthlm_ros.engines.factory import resolve_checkpoint

        name = self.options.shape
        if name == EMBEDDED:
            path = resolve_checkpoint(EngineConfig())
            # The official procedure leaves whole squares to the processor's resize: only so do both see equal views.
            profile = replace(load_profile(path), patch_grid_px=0)
            return path, profile, shape_of(name, read_json(path / "config.json"), profile.canonical_focal_px)
        shape = SHAPES[name]
        path = write_random_checkpoint(self.folder / name, shape, device=self.device, dtype=self.dtype)
        return path, CheckpointProfile(name, shape.focal_px, system="You are a helpful assistant."), shape

    def __exit__(self, *_: object) -> None:
        """Close the procedures and drop the checkpoint."""
        self._stack.close()

    def clock(self) -> StageClock:
        """A clock for one run."""
        return StageClock(settle=settle_for(self.device))

    def run_official(
        self, run: Run, frame: BenchFrame, pixels: Sequence[tuple[int, int]], done: Callable[[int], None]
    ) -> None:
        """Let the official procedure answer some more pixels of a frame.

        Args:
            run: Is added to: the procedure shares nothing between batches, so it can be timed in portions.
            frame: The frame.
            pixels: Source pixels (u, v).
            done: Called with the number of answers after each batch.
        """
        clock, watch, script = self.clock(), self.official.watch, self.scripts.get("official")
        steps = [0]

        def count() -> None:
            steps[0] += 1

        watch.clock = clock
        watch.on_step.append(count)
        if script is not None:
            script.heard = run.heard
        began, busy = time.perf_counter(), time.process_time()
        try:
            for first in range(0, len(pixels), BATCH):
                batch = pixels[first : first + BATCH]
                run.metres += self.official.ask(frame.rectified, frame.intrinsics, batch, clock)
                run.first_s = run.first_s or time.perf_counter() - began
                done(len(batch))
        finally:
            watch.clock = None
            watch.on_step.remove(count)
        # The first token of a batch comes with its prefill, the others with a step each.
        batches = -(-len(pixels) // BATCH)
        decoded = run.tokens * run.queries + (steps[0] / batches + 1) * len(pixels)
        self._add(run, clock, len(pixels), time.perf_counter() - began, time.process_time() - busy)
        run.tokens = decoded / run.queries

    def run_ours(self, arm: str, run: Run, frame: BenchFrame, pixels: Sequence[tuple[int, int]]) -> None:
        """Let our procedure answer pixels of a frame.

        Args:
            arm: ``marker`` or ``text``.
            run: Is added to.
            frame: The frame.
            pixels: Source pixels (u, v).
        """
        clock = self.clock()
        self.engine.tokens = 0
        if "ours" in self.scripts:
            self.scripts["ours"].heard = run.heard
        began, busy = time.perf_counter(), time.process_time()
        sparse, _ = self.ours[arm].ask(frame.raw, frame.camera, pixels, clock)
        if self._publish is not None:
            with clock.stage("publish"):
                self._publish(sparse)
        self._add(run, clock, len(pixels), time.perf_counter() - began, time.process_time() - busy)
        depth = sparse.at(pixels).depth
        run.metres += [float(value) if value == value else None for value in depth]
        run.tokens = self.engine.tokens / len(pixels)

    @staticmethod
    def _add(run: Run, clock: StageClock, queries: int, wall: float, busy: float) -> None:
        for stage, seconds in clock.seconds.items():
            run.seconds[stage] = run.seconds.get(stage, 0.0) + seconds
        for stage, seconds in clock.beside.items():
            run.beside[stage] = run.beside.get(stage, 0.0) + seconds
        run.seconds["other"] = run.seconds.get("other", 0.0) + wall - clock.total
        run.queries += queries
        run.wall_s += wall
        run.cpu_s += busy
