"""Validation while training: held-out labels asked through the ordinary estimator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.fsdp import FSDPModule

from depthlm_ros.engines.base import Answer, Prompt
from depthlm_ros.engines.hf_batch import BatchCall
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.evaluation.benchmark import BenchmarkError, LabelledImage, read_benchmark
from depthlm_ros.evaluation.metrics import score
from depthlm_ros.evaluation.run import evaluate
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.training.finetune.config import ValidationConfig
from depthlm_ros.training.finetune.views import MAX_MEGAPIXELS


class ModelEngine:
    """An engine around a model that is in memory already, the one in training; see :class:`VlmEngine`.

    Args:
        model: The model.
        encoder: The engine's encoder of its checkpoint.
        batch: Queries answered at once.
    """

    model_name = "in training"

    def __init__(self, model: Any, encoder: Any, batch: int) -> None:
        self._model, self._encoder, self._batch = model, _OnDevice(encoder, model.device), batch

    def details(self) -> dict[str, str]:
        """Where the model is."""
        return {"device": str(self._model.device)}

    def __enter__(self) -> ModelEngine:
        """Nothing is to be started."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is to be freed."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        deadline: float | None = None,
    ) -> list[Answer]:
        """Answer every prompt greedily; there is no deadline in training."""
        call = BatchCall(
            self._model, self._encoder, max_new_tokens, tuple(stop), lambda: False, in_training=True
        )
        answers: list[Answer] = []
        for first in range(0, len(prompts), self._batch):
            if isinstance(self._model, FSDPModule):
                # transformers encodes the images outside of the model's own forward, which would gather these.
                self._model.unshard()
            answers += call.run(prompts[first : first + self._batch])
        return answers

    def cancel(self) -> None:
        """A validation runs to its end."""


class _OnDevice:
    """The encoder on the CPU, whose batches go to the model's device."""

    reentrant = False

    def __init__(self, encoder: Any, device: Any) -> None:
        self.tokenizer, self.encode = encoder.tokenizer, encoder.encode
        self._encoder, self._device = encoder, device

    def batch(self, prompts: Sequence[Any]) -> dict[str, Any]:
        return {name: value.to(self._device) for name, value in self._encoder.batch(prompts).items()}


class Validation:
    """The held-out labels of a run.

    Args:
        config: Which labels.
        encoder: The engine's encoder of the checkpoint.
        profile: How it is asked.

    Raises:
        BenchmarkError: The labels cannot be read.
    """

    def __init__(self, config: ValidationConfig, encoder: Any, profile: CheckpointProfile) -> None:
        self._config, self._encoder, self._profile = config, encoder, profile
        self._images: list[LabelledImage] = []
        if config.labels:
            self._images = read_benchmark(Path(config.labels), Path(config.images), limit=config.limit)

    def due(self, step: int, last: int) -> bool:
        """Whether the model is measured after ``step`` of ``last`` steps."""
        return bool(self._images) and (step % self._config.every == 0 or step == last)

    def measure(self, model: Any) -> dict[str, float | None]:
        """Ask for all labels.

        Args:
            model: The model, unwrapped; every process of a sharded one must call this.

        Returns:
            ``delta1``, ``abs_rel`` (None without an answer) and ``answered``, as
            :func:`~depthlm_ros.evaluation.metrics.score` defines them.

        Raises:
            BenchmarkError: An image cannot be used: without it the curve would be one of other labels.
        """
        with _evaluating(model):
            engine = ModelEngine(model, self._encoder, self._config.batch)
            estimator = DepthEstimator(engine, self._profile, max_megapixels=MAX_MEGAPIXELS)
            measured = evaluate(estimator, self._images, max_megapixels=MAX_MEGAPIXELS)
        if measured.failures:
            failed = measured.failures[0]
            raise BenchmarkError(
                f"validation: {len(measured.failures)} of {len(self._images)} images cannot be used, such as "
                f"{failed.image} ({failed.reason}): mend them or take their lines out of {self._config.labels}"
            )
        results = measured.results
        figures = score([r.sample.depth for r in results], [r.predicted for r in results])
        return {name: figures[name] for name in ("delta1", "abs_rel", "answered")}


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout and gradient checkpointing; put back afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
