"""How much of the answer is decoded: the whole sentence, the rest of a given start, or the number alone."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.config import EMBEDDED, EngineConfig
from depthlm_ros.engines.base import Answer, Prompt, VlmEngine
from depthlm_ros.engines.factory import create_engine, resolve_checkpoint
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.evaluation.metrics import within_delta1
from depthlm_ros.profile import CheckpointProfile, load_profile
from depthlm_ros.training.augment import DepthArray, Limits, RgbArray, draw_query
from depthlm_ros.training.config import DataConfig
from depthlm_ros.training.studies.held_out import DOMAINS, open_views, render_views
from depthlm_ros.training.studies.study import Options, Study, StudyError
from depthlm_ros.training.studies.trivial import Asked, trivial_scores
from depthlm_ros.training.studies.verdict import Claim

SENTENCE, PREFIX, NUMBER = "sentence", "prefix", "number"
Metres = npt.NDArray[np.float64]
_MOST_TOKENS = 64
_MARGIN = 0.01


class CountingEngine:
    """An engine that counts what it decodes; see :class:`~depthlm_ros.engines.base.VlmEngine`.

    Attributes:
        tokens: Decoded tokens so far.
        queries: Answered prompts so far.
        seconds: Wall seconds spent so far.
    """

    def __init__(self, engine: VlmEngine) -> None:
        self._engine = engine
        self.model_name = engine.model_name
        self.tokens, self.queries, self.seconds = 0, 0, 0.0

    @property
    def queries_per_s(self) -> float:
        """Answered prompts per second of the engine."""
        return self.queries / self.seconds

    def details(self) -> dict[str, str]:
        """Those of the engine inside."""
        return self._engine.details()

    def __enter__(self) -> CountingEngine:
        """The engine inside runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Who started the engine inside ends it."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        deadline: float | None = None,
    ) -> list[Answer]:
        """Answer, and count."""
        started = time.monotonic()
        answers = self._engine.generate(prompts, max_new_tokens=max_new_tokens, stop=stop, deadline=deadline)
        self.seconds += time.monotonic() - started
        self.tokens += sum(len(answer.tokens) for answer in answers)
        self.queries += len(answers)
        return answers

    def cancel(self) -> None:
        """End a call that is under way."""
        self._engine.cancel()


def arms_of(profile: CheckpointProfile) -> dict[str, CheckpointProfile]:
    """The three ways in which one checkpoint is asked.

    Raises:
        StudyError: The checkpoint has no start of the answer that could be given.
    """
    if not profile.prompt_prefix or not profile.stop:
        raise StudyError(
            f"checkpoint {profile.name}: its profile has no prompt_prefix or no stop to compare with"
        )
    whole = dataclasses.replace(profile, stop=(), max_new_tokens=_MOST_TOKENS)
    return {
        SENTENCE: dataclasses.replace(whole, prompt_prefix=""),
        PREFIX: whole,
        NUMBER: profile,
    }


def _engine_config(options: Options) -> EngineConfig:
    base = EMBEDDED if options.base is None else str(options.base)
    return EngineConfig(checkpoint=base, device="cpu", dtype="float32", threads=1)


@contextmanager
def _opened(options: Options) -> Iterator[tuple[dict[str, DepthEstimator], dict[str, CountingEngine]]]:
    config = _engine_config(options)
    profiles = arms_of(load_profile(resolve_checkpoint(config)))
    with create_engine(config) as engine:
        counters = {arm: CountingEngine(engine) for arm in profiles}
        yield {arm: DepthEstimator(counters[arm], profiles[arm]) for arm in profiles}, counters


def _prepare(options: Options) -> None:
    arms_of(load_profile(resolve_checkpoint(_engine_config(options))))
    render_views(options, train=False)


def _measure(options: Options, arms: tuple[str, ...], seed: int, folder: Path) -> dict[str, dict[str, float]]:
    with _opened(options) as (estimators, counters):
        truth, said = ask_in_turn(estimators, options, seed)
    reference, slowest = said[SENTENCE], counters[SENTENCE].queries_per_s
    return {
        arm: {
            "delta1": float(within_delta1(truth, said[arm]).mean()),
            "no_answer": float(np.isnan(said[arm]).mean()),
            "equal_numbers": float((said[arm] == reference).mean()),
            "tokens_per_query": counters[arm].tokens / counters[arm].queries,
            "queries_per_s": counters[arm].queries_per_s,
            "speed_ratio": counters[arm].queries_per_s / slowest,
        }
        for arm in arms
    }


def ask_in_turn(
    estimators: Mapping[str, DepthEstimator], options: Options, seed: int
) -> tuple[Metres, dict[str, Metres]]:
    """Ask ``batch`` pixels of ``steps`` frames; the arms take turns on every frame, and who begins changes.

    Args:
        estimators: {arm: what answers}.
        options: How many frames and pixels, and of which views.
        seed: Which of them.

    Returns:
        The true depths and each arm's, in metres, (queries,); NaN without an answer.
    """
    truth: list[float] = []
    said: dict[str, list[float]] = defaultdict(list)
    arms, focal = tuple(estimators), DataConfig().canonical_focal_px
    for number in range(options.steps):
        image, z, pixels = frame_of(options, number, seed)
        truth += [float(z[v, u]) for u, v in pixels]
        height, width = z.shape
        camera = PinholeCamera.from_intrinsics(focal, focal, width / 2, height / 2, width, height)
        for turn in range(len(arms)):
            arm = arms[(number + turn) % len(arms)]
            frame = estimators[arm].prepare(image, camera)
            said[arm] += estimators[arm].ask(frame, pixels).at(pixels).depth.tolist()
    return np.array(truth), {arm: np.array(said[arm]) for arm in arms}


def trivial_answers(options: Options, seed: int) -> dict[str, dict[str, float]]:
    """Scores of predictors that look at no image on the asked pixels of a seed."""
    asked = []
    for number in range(options.steps):
        _, z, pixels = frame_of(options, number, seed)
        rows, columns = np.array([v for _, v in pixels], dtype=np.int64), [u for u, _ in pixels]
        asked.append(Asked(rows, z.shape[0], z[rows, columns].astype(np.float64)))
    return trivial_scores({"both": asked})


def frame_of(options: Options, number: int, seed: int) -> tuple[RgbArray, DepthArray, list[tuple[int, int]]]:
    """View, depth and asked pixels (x, y) of one frame of a seed."""
    cache = open_views(options.views / f"validation_{DOMAINS[number % 2]}")
    image, z = cache[(seed * options.steps + number) // 2 % len(cache)]
    return image, z, _pixels(z, options.batch, np.random.default_rng([seed, number]))


def _pixels(z: DepthArray, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    data = DataConfig()
    limits = Limits(data.min_depth_m, data.max_depth_m)
    drawn = (draw_query(z, limits, rng) for _ in range(count))
    return list(dict.fromkeys(pixel for pixel in drawn if pixel is not None))


ANSWER = Study(
    name="answer",
    question="Does the answer's length matter for the accuracy of one model?",
    arms={
        SENTENCE: "the whole answer is decoded",
        PREFIX: "the start up to the number is given, the rest is decoded",
        NUMBER: "the start is given and decoding ends behind the number",
    },
    steps=60,
    batch=8,
    queries=240,
    budget="{steps} held-out views with up to {batch} queries each, half of each domain",
    cost="about 2 core minutes",
    figures={
        "delta1": "answers within 25 %",
        "no_answer": "share without an answer",
        "equal_numbers": "share of answers that equal those of the whole sentence",
        "tokens_per_query": "decoded tokens per query",
        "queries_per_s": "queries per second of the engine",
        "speed_ratio": "the same, relative to the whole sentence in the same run",
    },
    claims=(
        Claim(
            f"the number alone is worse than the sentence by less than {_MARGIN:g}",
            NUMBER,
            SENTENCE,
            margin=_MARGIN,
        ),
        Claim("the number alone is faster than the sentence", NUMBER, SENTENCE, figure="queries_per_s"),
    ),
    prepare=_prepare,
    measure=_measure,
    trivial=trivial_answers,
    together=True,
)
