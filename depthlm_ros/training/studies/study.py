"""What a study is: a question, arms with equal budgets, figures, and claims fixed before any number is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from depthlm_ros.training.config import ModelConfig
from depthlm_ros.training.studies.verdict import Claim

LEAD = 0.05
"""How far above a predictor without eyes the better arm's mean delta1 must be for a claim to be judged.

No claim's margin is larger, so that an arm at such a predictor's level is never found hardly worse than another.
"""


class StudyError(ValueError):
    """A study cannot be run as asked; the message says what to do."""


@dataclass(frozen=True)
class Options:
    """How a study is run; everything that decides its numbers.

    Attributes:
        run: The study's directory.
        seeds: Repetitions of every arm, with the seeds 0, 1, ...
        steps: Optimiser steps of a training run, or frames of a study without training.
        batch: Views (or labels) per step.
        queries: Held-out queries per domain.
        views: Directory of the rendered views of the embedded recipe, with ``train`` and ``validation_*``; what it
            lacks is rendered.
        base: Checkpoint directory that all arms start from; None takes the embedded checkpoint.
        train_views: Views that are trained on; 0 takes the study's default.
        model: The network of a study that trains the embedded recipe.
    """

    run: Path
    seeds: int
    steps: int
    batch: int
    queries: int
    views: Path
    base: Path | None = None
    train_views: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)

    def record(self) -> dict[str, Any]:
        """What a finished run must have been made with to be kept: all but where it lies and how many there are."""
        plain = asdict(self)
        return {name: plain[name] for name in ("steps", "batch", "queries", "train_views", "model")} | {
            "views": str(self.views),
            "base": None if self.base is None else str(self.base),
        }


@dataclass(frozen=True)
class Study:
    """One finding and how it is checked.

    Attributes:
        name: What the command calls it.
        question: The finding as a question.
        arms: What is compared: {arm: what it is}.
        together: Whether all arms of a seed are measured in one process, in turns (for speeds that are compared).
        steps: Default of :attr:`Options.steps`.
        batch: Default of :attr:`Options.batch`.
        queries: Default of :attr:`Options.queries`.
        budget: The budget in words, with ``{steps}``, ``{batch}`` and ``{queries}``.
        cost: Core time with the defaults, in words.
        figures: What is measured: {figure: its meaning}. Claims are about ``delta1`` unless they say else.
        claims: What the finding claims, and the rule by which it is judged.
        prepare: Checks the options and makes what all runs share; called once, before any run.
        measure: Runs arms of one seed in a folder of their own, and returns {arm: {figure: value}}.
        trivial: Scores predictors that look at no image on the held-out queries of a seed, and returns {predictor:
            {figure: value}}, see :func:`~depthlm_ros.training.studies.trivial.trivial_scores`.
        settings: What decides the numbers beside the options; a finished run that was made with others is not kept.
        from_base: Whether the arms start from :attr:`Options.base`; then its weights are among what is compared.
        start_lead: Where the arms start from a model that answers already, how far above its delta1 (their figure
            ``delta1_before``) the better one must be for a claim to be judged; None where they do not.
    """

    name: str
    question: str
    arms: Mapping[str, str]
    steps: int
    batch: int
    queries: int
    budget: str
    cost: str
    figures: Mapping[str, str]
    claims: tuple[Claim, ...]
    prepare: Callable[[Options], None]
    measure: Callable[[Options, tuple[str, ...], int, Path], dict[str, dict[str, float]]]
    trivial: Callable[[Options, int], dict[str, dict[str, float]]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    from_base: bool = True
    start_lead: float | None = None
    together: bool = False

    def groups(self) -> list[tuple[str, ...]]:
        """The arms as they are run: one process each, or one for all."""
        return [tuple(self.arms)] if self.together else [(arm,) for arm in self.arms]
