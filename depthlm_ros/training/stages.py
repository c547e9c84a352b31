"""The two stages: the vision tower on dense rendered depth, then the whole model on text answers."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from depthlm_ros.profile import DEPTHLM_ANSWER, DEPTHLM_QUESTION
from depthlm_ros.training.augment import Batch, Limits, Variety, training_batch
from depthlm_ros.training.config import StageConfig, TrainingConfig
from depthlm_ros.training.distributed import average_gradients
from depthlm_ros.training.losses import DepthHeads, answer_mask, as_plain, text_loss, vision_loss
from depthlm_ros.training.model import (
    answer_logits,
    build_model,
    tower_block,
    tower_tokens,
    whiten_patches,
)
from depthlm_ros.training.optim import MuonAdamW, NamedParameters
from depthlm_ros.training.state import Progress, load_state, save_state
from depthlm_ros.training.tokenizer import IMAGE_PAD, build_tokenizer, prompt_text
from depthlm_ros.training.views import ViewCache

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
        rank: int = 0,
        workers: int = 1,
        on_interval: Callable[[Trainer], dict[str, Any]] | None = None,
    ) -> None:
        """Build the model, or take it up where ``run`` left it.

        Args:
            config: The recipe.
            run: Folder of states and logs.
            cache: The training views.
            rank: Number of this process.
            workers: Processes in all.
            on_interval: Validates; its result goes into the log.
        """
        self.config = config
        self.limits = Limits(config.data.min_depth_m, config.data.max_depth_m)
        self.tokenizer = build_tokenizer()
        self.model = build_model(config.model, self.tokenizer, config.seed).train()
        self.heads = DepthHeads(config.model.text_width, config.depth_bins, self.limits)
        self.progress = Progress()
        self.on_interval = on_interval
        self._run, self._cache, self._rank, self._workers = run, cache, rank, workers
        self._memory: dict[str, Tensor] = {}
        self._variety = Variety(config.data.crop_share, config.data.look_share)
        self._block = torch.compile(tower_block, dynamic=True) if config.compile else tower_block
        saved = load_state(self.state_path)
        if saved is not None:
            self.progress, tensors = saved
            self._load(tensors)
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

    def _stage(
        self,
        name: str,
        stage: StageConfig,
        groups: list[NamedParameters],
        loss_at: Callable[[StageConfig, Batch, float], tuple[Tensor, dict[str, float]]],
    ) -> None:
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
            batch = training_batch(
                self._cache,
                stage.batch // self._workers,
                self.limits,
                self._variety,
                np.random.default_rng([*seed, step]),
                np.random.default_rng([*seed, step, self._rank]),
            )
            optimiser.zero_grad()
            loss, parts = loss_at(stage, batch, done)
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

    def _vision_step(self, stage: StageConfig, batch: Batch, done: float) -> tuple[Tensor, dict[str, float]]:
        tokens = tower_tokens(self.model.model.visual, batch.views, self._block)
        return vision_loss(self.heads, tokens, batch, self.limits, self.config.model.patch_px, stage)

    def _text_step(self, stage: StageConfig, batch: Batch, done: float) -> tuple[Tensor, dict[str, float]]:
        frozen = done < stage.frozen_share
        with torch.set_grad_enabled(not frozen):
            tokens = tower_tokens(self.model.model.visual, batch.views, self._block)
        loss, parts = self._answer_loss(tokens, batch)
        if not frozen:
            patch_px = self.config.model.patch_px
            auxiliary, more = vision_loss(self.heads, tokens, batch, self.limits, patch_px, stage)
            loss, parts = loss + auxiliary, {**more, **parts}
        return loss, parts

    def _answer_loss(self, tokens: Tensor, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        side = 2 * self.config.model.patch_px
        grid = (batch.views.shape[1] // side, batch.views.shape[2] // side)
        prompt = prompt_text(DEPTHLM_QUESTION).replace(IMAGE_PAD, IMAGE_PAD * (grid[0] * grid[1]))
        texts = [
            f"{prompt}{DEPTHLM_ANSWER.format(depth=d)}{self.tokenizer.eos_token}"
            for d in batch.target.tolist()
        ]
        ids = self.tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")["input_ids"]
        start = len(self.tokenizer(prompt)["input_ids"])
        mask = answer_mask(ids, start, self.tokenizer.pad_token_id)
        logits = answer_logits(self.model, tokens, ids, grid, start - 1)
        return text_loss(logits, ids, mask, start - 1)

    def _save(self, optimiser: MuonAdamW | None) -> None:
        if self._rank != 0:
            return
        tensors = {f"model.{n}": p for n, p in self.model.named_parameters()}
        tensors |= self._head_parameters()
        if optimiser is not None:
            tensors |= {f"optimiser.{n}": t for n, t in optimiser.state().items()}
        save_state(self.state_path, self.progress, tensors)

    def _load(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
            for name, parameter in self._head_parameters().items():
                parameter.copy_(tensors[name])
        prefix = "optimiser."
        self._memory = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}

    def _log(self, record: dict[str, Any]) -> None:
        line = {**dataclasses.asdict(self.progress), **record}
        with (self._run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def share_done(stage: StageConfig, steps: int, seconds: float) -> float:
    """How much of a stage is done, by its steps or by its minutes, whichever is further."""
    by_clock = seconds / (60.0 * stage.minutes) if stage.minutes > 0.0 else 0.0
    return max(steps / stage.steps, by_clock)
