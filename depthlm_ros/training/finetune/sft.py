"""Supervised fine-tuning on text answers (Cai et al.): one loop for a CPU, a GPU and many, through accelerate."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset

from depthlm_ros.training.finetune.config import SftConfig
from depthlm_ros.training.finetune.data import TrainingSamples
from depthlm_ros.training.finetune.export import export_run
from depthlm_ros.training.finetune.log import RunLog
from depthlm_ros.training.finetune.model import (
    Base,
    build_optimiser,
    build_schedule,
    load_trainable,
    open_base,
)
from depthlm_ros.training.finetune.state import STATE_FILE, load_state, save_state, saved_step, step_seed
from depthlm_ros.training.finetune.tokens import (
    IGNORED,
    AnswerSequence,
    AnswerTokens,
    answer_loss,
)
from depthlm_ros.training.finetune.validation import Validation


def train_sft(config: SftConfig, run: Path, *, on_step: Callable[[int], None] = lambda step: None) -> Path:
    """Fine-tune a checkpoint, going on where an interrupted run of the same options stopped.

    Under ``accelerate launch`` every process calls this; ``run.batch`` is then per process.

    Args:
        config: The run.
        run: Its directory: state, metrics.jsonl, curve.png and, at the end, ``export``.
        on_step: Called with the number of finished steps after each step and what belongs to it.

    Returns:
        The exported checkpoint's directory.

    Raises:
        ConfigError: The options do not fit the data, or the run was begun with others.
        BenchmarkError: A data set cannot be read.
        EngineError: The checkpoint cannot be loaded.
        ProfileError: It has no profile.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(
        cpu=config.run.device == "cpu",
        mixed_precision="bf16" if config.model.arithmetic == "bfloat16" else "no",
    )
    base = open_base(config.model)
    loop = _Loop(config, run, base, accelerator)
    loop.train(on_step)
    if accelerator.is_main_process:
        export_run(config.model, base, loop.recipe, run)
    accelerator.wait_for_everyone()
    return run / "export"


class _Loop:
    """The objects of a run and its steps."""

    def __init__(self, config: SftConfig, run: Path, base: Base, accelerator: Any) -> None:
        self._config, self._run, self._accelerator = config, run, accelerator
        self.recipe = {"recipe": "sft", **dataclasses.asdict(config), "processes": accelerator.num_processes}
        self._state = run / STATE_FILE
        self._done = saved_step(self._state, self.recipe)
        self._per_step = config.run.batch * config.run.accumulate * accelerator.num_processes
        samples = TrainingSamples(config, base.profile, config.run.steps * self._per_step)
        self._tokens = AnswerTokens(base.encoder, base.profile)
        self._sequences = _Sequences(samples, self._tokens)
        self._validation = Validation(config.validation, base.encoder, base.profile)
        torch.manual_seed(config.run.seed)
        model = load_trainable(base, config.model)
        self.model, optimiser = accelerator.prepare(model, build_optimiser(model, config.optimiser))
        self._optimiser = optimiser.optimizer
        if self._done:
            load_state(self._state, self.model, self._optimiser)
        self._schedule = build_schedule(self._optimiser, config.optimiser, config.run.steps, self._done)

    def train(self, on_step: Callable[[int], None]) -> None:
        """Take the steps that are left."""
        from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

        steps, run, first = self._config.run.steps, self._config.run, self._done
        main = self._accelerator.is_main_process
        log = RunLog(self._run, first, writes=main)
        # A sharded model must have been trained once before parts of it can run alone, as in generation.
        if not first and not isinstance(self.model, FSDPModule):
            self._validate(log, 0)
        windows = self._windows(first)
        self.model.train()
        bar = tqdm(range(first + 1, steps + 1), initial=first, total=steps, unit="step", disable=not main)
        since, started = first, time.monotonic()
        losses: list[float] = []
        for step in bar:
            window = next(windows)
            # Dropout is drawn anew from the step, so that a run that goes on draws what it would have drawn. After
            # the data, since a loader draws from the same generator when it starts.
            torch.manual_seed(step_seed(run.seed, step, self._accelerator.process_index))
            loss, norm = self._step(window)
            losses.append(loss)
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            if step % run.log_every == 0 or step == steps:
                seconds = (time.monotonic() - started) / (step - since)
                rate = float(self._schedule.get_last_lr()[0])
                mean = sum(losses) / len(losses)
                log.add(
                    step, step * self._per_step, loss=mean, grad_norm=norm, lr=rate, seconds_per_step=seconds
                )
                losses, since, started = [], step, time.monotonic()
            self._validate(log, step)
            if step % run.save_every == 0 or step == steps:
                save_state(self._state, self.model, self._optimiser, step, self.recipe)
                log.draw()
            on_step(step)
        log.draw()

    def _step(self, window: list[dict[str, Tensor]]) -> tuple[float, float]:
        """One optimiser step; returns the loss per answer token of all processes, and the gradient's norm."""
        accelerator = self._accelerator
        count = sum(int((batch["labels"] != IGNORED).sum()) for batch in window)
        learnt = accelerator.reduce(torch.tensor(float(count), device=accelerator.device))
        total = torch.zeros((), device=accelerator.device)
        for index, batch in enumerate(window):
            last = index == len(window) - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                loss = answer_loss(self.model, batch)
                total += loss.detach()
                # Gradients are averaged over processes; every answer token is to count alike in the step.
                accelerator.backward(loss * accelerator.num_processes / learnt)
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self._config.optimiser.max_grad_norm)
        self._optimiser.step()
        self._schedule.step()
        self._optimiser.zero_grad()
        return float(accelerator.reduce(total) / learnt), float(
            norm.full_tensor() if isinstance(norm, DTensor) else norm
        )

    def _validate(self, log: RunLog, step: int) -> None:
        if self._validation.due(step, self._config.run.steps):
            figures = self._validation.measure(self._accelerator.unwrap_model(self.model))
            log.add(step, step * self._per_step, **figures)

    def _windows(self, done: int) -> Iterator[list[dict[str, Tensor]]]:
        """The batches of each step that is left, this process's share of them, on its device."""
        run, rank, count = self._config.run, self._accelerator.process_index, self._accelerator.num_processes
        batches = [
            [(micro * count + rank) * run.batch + place for place in range(run.batch)]
            for micro in range(done * run.accumulate, run.steps * run.accumulate)
        ]
        loader: DataLoader[Any] = DataLoader(
            self._sequences, batch_sampler=batches, collate_fn=self._tokens.collate, num_workers=run.workers
        )
        stream = iter(loader)
        for _ in range(done, run.steps):
            window = [next(stream) for _ in range(run.accumulate)]
            yield [
                {name: value.to(self._accelerator.device) for name, value in batch.items()}
                for batch in window
            ]


class _Sequences(Dataset[AnswerSequence]):
    """The samples of a run as sequences of tokens."""

    def __init__(self, samples: TrainingSamples, tokens: AnswerTokens) -> None:
        self._samples, self._tokens = samples, tokens

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> AnswerSequence:
        return self._tokens.encode(self._samples[index])
