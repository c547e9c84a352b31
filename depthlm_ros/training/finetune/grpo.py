"""GRPO through TRL on the data of SFT, so that both can be compared from one checkpoint on equal samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from depthlm_ros.training.finetune.config import GrpoConfig
from depthlm_ros.training.finetune.data import TrainingSamples
from depthlm_ros.training.finetune.export import export_run
from depthlm_ros.training.finetune.log import RunLog
from depthlm_ros.training.finetune.model import (
    build_optimiser,
    build_schedule,
    load_trainable,
    open_base,
)
from depthlm_ros.training.finetune.reward import DepthReward
from depthlm_ros.training.finetune.rollouts import rollout_processor, rollout_rows
from depthlm_ros.training.finetune.state import STATE_FILE, load_state, save_state, saved_step, step_seed
from depthlm_ros.training.finetune.validation import Validation

_LOGGED = ("reward", "reward_std", "frac_reward_zero_std", "grad_norm", "entropy", "step_time")


def train_grpo(config: GrpoConfig, run: Path, *, on_step: Callable[[int], None] = lambda step: None) -> Path:
    """Tune a checkpoint by GRPO.

    Arguments, result, files, errors and going on are those of :func:`~depthlm_ros.training.finetune.sft.train_sft`.
    A step sees ``batch x accumulate x processes / completions`` labels, each answered ``completions`` times.

    Raises:
        EngineError: The checkpoint cannot be loaded, or is no Qwen-VL.
    """
    base = open_base(config.model)
    arguments = _arguments(config, run)
    answers = config.run.batch * config.run.accumulate * arguments.world_size
    labels = answers // config.group.completions
    recipe = {"recipe": "grpo", **dataclasses.asdict(config), "processes": arguments.world_size}
    done = saved_step(run / STATE_FILE, recipe)
    if done < config.run.steps:
        arguments.max_steps = config.run.steps - done
        torch.manual_seed(config.run.seed)
        model = load_trainable(base, config.model)
        ends = _end_tokens(model, base.encoder.tokenizer, base.profile.stop)
        model.generation_config.eos_token_id = sorted(ends)
        samples = TrainingSamples(config, base.profile, config.run.steps * labels)
        arguments.max_completion_length = base.profile.max_new_tokens
        trainer = _Trainer(
            model=model,
            reward_funcs=DepthReward(base.profile, config.group.penalty_m, ends),
            args=arguments,
            train_dataset=rollout_rows(samples, done * labels),
            processing_class=rollout_processor(base),
        )
        trainer.begin(config, done)
        validation = Validation(config.validation, base.encoder, base.profile)
        trainer.add_callback(_Steps(trainer, config, run, recipe, labels, done, validation, on_step))
        trainer.train()
        main, wait = trainer.accelerator.is_main_process, trainer.accelerator.wait_for_everyone
    else:
        main, wait = arguments.process_index == 0, arguments.distributed_state.wait_for_everyone
    if main:
        export_run(config.model, base, recipe, run)
    wait()
    return run / "export"


def _arguments(config: GrpoConfig, run: Path) -> Any:
    return GRPOConfig(
        output_dir=str(run),
        per_device_train_batch_size=config.run.batch,
        gradient_accumulation_steps=config.run.accumulate,
        num_generations=config.group.completions,
        temperature=config.group.temperature,
        max_grad_norm=config.optimiser.max_grad_norm,
        bf16=config.model.arithmetic == "bfloat16",
        gradient_checkpointing=config.model.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_num_workers=config.run.workers,
        use_cpu=config.run.device == "cpu",
        seed=config.run.seed,
        logging_steps=config.run.log_every,
        shuffle_dataset=False,
        # Its own checkpoints hold pickles; ours are written by the callback below.
        save_strategy="no",
        report_to="none",
    )


def _end_tokens(model: Any, tokenizer: Any, stop: tuple[str, ...]) -> frozenset[int]:
    """Tokens that end an answer: the checkpoint's, and the stop strings that are one token, as " meters" is."""
    own = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *([own] if isinstance(own, int) else own or [])}
    for text in stop:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            ends.add(ids[0])
    return frozenset(ends)


class _Trainer(GRPOTrainer):  # type: ignore[misc]  # trl is untyped
    """TRL's trainer with the optimiser and the schedule of SFT."""

    def begin(self, config: GrpoConfig, done: int) -> None:
        """Say what is optimised how, and how many steps of it are done."""
        self._config, self._done = config, done

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """See :class:`transformers.Trainer`."""
        self.optimizer = build_optimiser(self.model if model is None else model, self._config.optimiser)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """See :class:`transformers.Trainer`."""
        steps, chosen = self._config.run.steps, self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = build_schedule(chosen, self._config.optimiser, steps, self._done)
        return self.lr_scheduler


class _Steps(TrainerCallback):  # type: ignore[misc]
    """What happens around the steps: state, record, validation, seeds."""

    def __init__(
        self,
        trainer: _Trainer,
        config: GrpoConfig,
        run: Path,
        recipe: dict[str, Any],
        labels: int,
        done: int,
        validation: Validation,
        on_step: Callable[[int], None],
    ) -> None:
        self._trainer, self._config, self._path, self._recipe = trainer, config, run / STATE_FILE, recipe
        self._labels, self._done, self._validation, self._on_step = labels, done, validation, on_step
        self._log = RunLog(run, done, writes=trainer.accelerator.is_main_process)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up the saved state; measure an untouched model."""
        if self._done:
            load_state(self._path, self._trainer.model_wrapped, self._plain_optimiser())
        else:
            self._validate(0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw answers and dropout anew from the step, so that a run that goes on draws what it would have."""
        step = self._done + state.global_step
        torch.manual_seed(step_seed(self._config.run.seed, step, args.process_index))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Take TRL's figures into metrics.jsonl."""
        figures = {name: logs[name] for name in _LOGGED if name in logs}
        if "reward" in figures:
            step = self._done + state.global_step
            self._log.add(step, step * self._labels, lr=logs.get("learning_rate"), **figures)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validate and save."""
        step, run = self._done + state.global_step, self._config.run
        self._validate(step)
        if step % run.save_every == 0 or step == run.steps:
            optimiser = self._plain_optimiser()
            save_state(self._path, self._trainer.model_wrapped, optimiser, step, self._recipe)
            self._log.draw()
        self._on_step(step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the curve with its last point."""
        self._log.draw()

    def _plain_optimiser(self) -> torch.optim.Optimizer:
        optimiser: torch.optim.Optimizer = self._trainer.optimizer
        return getattr(optimiser, "optimizer", optimiser)

    def _validate(self, step: int) -> None:
        if self._validation.due(step, self._config.run.steps):
            model = self._trainer.accelerator.unwrap_model(self._trainer.model_wrapped)
            self._log.add(step, step * self._labels, **self._validation.measure(model))
