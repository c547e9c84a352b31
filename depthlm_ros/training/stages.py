"""The two stages: the vision tower on dense rendered depth, then the whole model on text answers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from depthlm_ros.synthetic import Intrinsics
from depthlm_ros.training.augment import Batch, Limits, Variety, training_batch
from depthlm_ros.training.base import take_weights
from depthlm_ros.training.config import StageConfig, TrainingConfig
from depthlm_ros.training.distributed import average_gradients
from depthlm_ros.training.log import append_log, trim_log
from depthlm_ros.training.losses import DepthHeads, answer_loss, as_plain, pointed_tokens, vision_loss
from depthlm_ros.training.model import (
    build_model,
    tower_block,
    tower_tokens,
    whiten_patches,
)
from depthlm_ros.training.optim import MuonAdamW, NamedParameters
from depthlm_ros.training.pairs import PairCache
from depthlm_ros.training.questions import (
    MARKER,
    TEXT,
    Questions,
    depth_answers,
    depth_questions,
    motion_questions,
    task_questions,
)
from depthlm_ros.training.state import Progress, load_state, save_state
from depthlm_ros.training.tokenizer import build_tokenizer
from depthlm_ros.training.views import ViewCache, synthetic_camera

Rng = np.random.Generator
Loss = tuple[Tensor, dict[str, float]]
LossAt = Callable[[StageConfig, float, Rng, Rng], Loss]

_STAGE_SEED = {"vision": 1, "text": 2}
_LOG_EVERY = 25
_WHITENING_VIEWS = 400


class Trainer:
    """One training process.

    Attributes:
        model: The model, float32.
        heads: The readouts of stage 1.
        tokenizer: The tokenizer.
        progress: Where the run stands.
        on_interval: Called in the first process every ``evaluate_every`` steps and at the end of a stage.
    """

    def __init__(
        self,
        config: TrainingConfig,
        run: Path,
        cache: ViewCache,
        *,
        pairs: PairCache | None = None,
        rank: int = 0,
        workers: int = 1,
        on_interval: Callable[[Trainer], dict[str, Any]] | None = None,
    ) -> None:
        """Build the model, or take it up where ``run`` left it.

        Args:
            config: The recipe.
            run: Folder of states and logs.
            cache: The training views.
            pairs: The training pairs; needed where ``data.motion_share`` is above 0.
            rank: Number of this process.
            workers: Processes in all.
            on_interval: Validates; its result goes into the log.
        """
        if config.data.motion_share > 0.0 and pairs is None:
            raise ValueError(
                "data.motion_share is above 0 but there are no pairs of views: render them first"
            )
        self.config = config
        self.limits = Limits(config.data.min_depth_m, config.data.max_depth_m)
        self.tokenizer = build_tokenizer()
        self.model = build_model(config.model, self.tokenizer, config.seed).train()
        self.heads = DepthHeads(config.model.text_width, config.depth_bins, self.limits)
        self.progress = Progress()
        self.on_interval = on_interval
        self._run, self._cache, self._rank, self._workers = run, cache, rank, workers
        self._memory: dict[str, Tensor] = {}
        data = config.data
        self._variety = Variety(
            data.crop_share,
            data.look_share,
            config.pixel_reference == MARKER,
            data.fill_grid,
            data.labels_per_view,
        )
        self._pairs = pairs
        self._block = torch.compile(tower_block, dynamic=True) if config.compile else tower_block
        saved = load_state(self.state_path, config.as_dict())
        if saved is not None:
            self.progress, tensors = saved
            self._load(tensors)
            if rank == 0:
                trim_log(run, self.progress)
        elif config.base:
            take_weights(self.model, Path(config.base))
        else:
            side = 2 * config.model.patch_px
            whole = [k for k in range(len(cache)) if not (cache.sizes[k] % side).any()][:_WHITENING_VIEWS]
            whiten_patches(
                self.model.model.visual, [torch.tensor(cache[k][0])[None] for k in whole], config.seed
            )

    @property
    def state_path(self) -> Path:
        """The resumable state."""
        return self._run / "state.safetensors"

    def train(self) -> None:
        """Go through what is left of both stages."""
        if self.progress.stage == "vision":
            self._stage("vision", self.config.vision, self._vision_groups(), self._vision_step)
            self._advance("text")
        if self.progress.stage == "text":
            self._stage("text", self.config.text, self._text_groups(), self._text_step)
            self._advance("done")

    def _advance(self, stage: str) -> None:
        self.progress = dataclasses.replace(self.progress, stage=stage, step=0, done=0.0)
        self._memory = {}
        self._save(None)

    def _stage(self, name: str, stage: StageConfig, groups: list[NamedParameters], loss_at: LossAt) -> None:
        optimiser = MuonAdamW(groups, stage)
        if self._memory:
            optimiser.load_state(self._memory)
        seed = [self.config.seed, _STAGE_SEED[name]]
        clock, saved = time.monotonic(), time.monotonic()
        first = self.progress.step
        done = self.progress.done
        for step in tqdm(
            range(first, stage.steps), desc=name, initial=first, total=stage.steps, disable=self._rank != 0
        ):
            # What all processes draw alike (task, canvas), so that none waits long for another; and the rest.
            shared = np.random.default_rng([*seed, step])
            own = np.random.default_rng([*seed, step, self._rank])
            optimiser.zero_grad()
            loss, parts = loss_at(stage, done, shared, own)
            loss.backward()  # type: ignore[no-untyped-call]
            now = time.monotonic()
            spent, clock = getattr(self.progress, f"{name}_s") + now - clock, now
            done = average_gradients(optimiser.parameters.values(), share_done(stage, step + 1, spent))
            optimiser.step(step, done)
            changes = {"step": step + 1, "done": done, f"{name}_s": spent}
            self.progress = dataclasses.replace(self.progress, **changes)
            last = done >= 1.0
            if self._rank == 0:
                if step % _LOG_EVERY == 0 or last:
                    self._log({"loss": round(float(loss.detach()), 5), **as_plain(parts)})
                if now - saved > self.config.save_every_s or last:
                    self._save(optimiser)
                    saved = now
                if ((step + 1) % stage.evaluate_every == 0 or last) and self.on_interval is not None:
                    self._log(self.on_interval(self))
                    self.model.train()
            if last:
                break

    def _vision_groups(self) -> list[NamedParameters]:
        tower = {f"visual.{n}": p for n, p in self.model.model.visual.named_parameters()}
        return [NamedParameters(tower | self._head_parameters())]

    def _text_groups(self) -> list[NamedParameters]:
        tower = {f"visual.{n}": p for n, p in self.model.model.visual.named_parameters()}
        words = {f"text.{n}": p for n, p in self.model.model.language_model.named_parameters()}
        share = self.config.text.tower_lr_share
        return [NamedParameters(words), NamedParameters(tower | self._head_parameters(), share)]

    def _head_parameters(self) -> dict[str, torch.nn.Parameter]:
        return {f"heads.{n}": p for n, p in self.heads.named_parameters()}

    def _vision_step(self, stage: StageConfig, done: float, shared: Rng, own: Rng) -> Loss:
        batch = self._views(stage, shared, own)
        with self._arithmetic():
            tokens = tower_tokens(self.model.model.visual, batch.views, self._block)
        return self._depth_loss(tokens, batch, stage)

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(
            "cpu", dtype=torch.bfloat16, enabled=self.config.arithmetic == "bfloat16"
        )  # the losses stay outside

    def _depth_loss(self, tokens: Tensor, batch: Batch, stage: StageConfig) -> Loss:
        if self.config.pixel_reference == TEXT:  # no arrow is drawn, so none can be found
            stage = dataclasses.replace(stage, pointing_weight=0.0)
        return vision_loss(self.heads, tokens, batch, self.limits, self.config.model.patch_px, stage)

    def _text_step(self, stage: StageConfig, done: float, shared: Rng, own: Rng) -> Loss:
        asked = self._questions(stage, shared, own)
        frozen = done < stage.frozen_share
        with torch.set_grad_enabled(not frozen), self._arithmetic():
            tokens = tower_tokens(self.model.model.visual, asked.views.flatten(0, 1), self._block)
        if asked.depth is not None and stage.median_share > 0.0:
            asked = self._with_medians(asked, asked.depth, tokens, stage.median_share, own)
        with self._arithmetic():
            loss, parts = answer_loss(self.model, self.tokenizer, tokens, asked, self.config.model.patch_px)
        if asked.depth is None:
            return (
                loss,
                {},
            )  # the logged parts are of depth answers alone, and so comparable from step to step
        if not frozen:
            auxiliary, more = self._depth_loss(tokens, asked.depth, stage)
            loss, parts = loss + auxiliary, {**more, **parts}
        return loss, parts

    @torch.no_grad()
    def _with_medians(
        self, asked: Questions, batch: Batch, tokens: Tensor, share: float, own: Rng
    ) -> Questions:
        at = pointed_tokens(batch, self.config.model.patch_px)
        median = self.heads.metres(self.heads.pointed(tokens[torch.arange(len(at)), at]))
        chosen = torch.from_numpy(own.random(len(at)) < share)
        return dataclasses.replace(asked, answers=depth_answers(torch.where(chosen, median, batch.target)))

    def _views(self, stage: StageConfig, shared: Rng, own: Rng) -> Batch:
        return training_batch(
            self._cache, stage.batch // self._workers, self.limits, self._variety, shared, own
        )

    def _questions(self, stage: StageConfig, shared: Rng, own: Rng) -> Questions:
        size, kind = stage.batch // self._workers, shared.random()
        data = self.config.data
        if kind < data.motion_share and self._pairs is not None:
            # Two views each: half as many questions for about the same time.
            return motion_questions(self._pairs, size // 2, self._variety, shared, own)
        if kind < data.motion_share + data.task_share:
            return task_questions(self._cache, self._camera, size, self.limits, self._variety, shared, own)
        return depth_questions(self._views(stage, shared, own), self.config.pixel_reference)

    def _camera(self, index: int) -> Intrinsics:
        data = self.config.data
        domain = "robot" if self._cache.robot[index] else "wide"
        return synthetic_camera(data.train_seed + index, domain, data.canonical_focal_px)

    def _save(self, optimiser: MuonAdamW | None) -> None:
        if self._rank != 0:
            return
        tensors = {f"model.{n}": p for n, p in self.model.named_parameters()}
        tensors |= self._head_parameters()
        if optimiser is not None:
            tensors |= {f"optimiser.{n}": t for n, t in optimiser.state().items()}
        save_state(self.state_path, self.progress, tensors, self.config.as_dict())

    def _load(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
            for name, parameter in self._head_parameters().items():
                parameter.copy_(tensors[name])
        prefix = "optimiser."
        self._memory = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}

    def _log(self, record: dict[str, Any]) -> None:
        append_log(self._run, self.progress, record)


def share_done(stage: StageConfig, steps: int, seconds: float) -> float:
    """How much of a stage is done, by its steps or by its minutes, whichever is further."""
    by_clock = seconds / (60.0 * stage.minutes) if stage.minutes > 0.0 else 0.0
    return max(steps / stage.steps, by_clock)
