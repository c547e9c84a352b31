"""The answers to a benchmark, and everything that is said about them."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from depthlm_ros.evaluation.benchmark import LabelledImage
from depthlm_ros.evaluation.confidence import confidence_figures, sigma_figures
from depthlm_ros.evaluation.dense import DenseAnswers
from depthlm_ros.evaluation.edges import boundary_figures, joined
from depthlm_ros.evaluation.groups import by_canvas, by_depth
from depthlm_ros.evaluation.jitter import jitter_figures
from depthlm_ros.evaluation.metrics import Floats, log_correlation, rank_correlation, score
from depthlm_ros.evaluation.planes import plane_figures
from depthlm_ros.evaluation.trivial import trivial_predictions
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.writers import measured_columns

PER_POINT_COLUMNS = ("image", "u", "v", "truth_m", "z_m", "sigma_m", "confidence", "status")
DENSE_COLUMNS = ("image", "kind", *PER_POINT_COLUMNS[1:])

NOTES = {
    "delta1": "share of n with max(z/z', z'/z) < 1.25; a label without an answer is a miss",
    "delta1_interval95": "bootstrap over images; pictures of one static scene are drawn together",
    "abs_rel, rmse": "over the answered labels only; rmse in metres",
    "answered_only": "model and predictors on the labels that the model answered; null where it answered all",
    "best_constant, oracle_image_constant": "oracles: they see the labels that they are scored on",
    "mean_level": "of the pictures, 0 to 255: tells other pictures under the same labels; the same rendering on "
    "another kind of processor agrees to about 0.001",
    "rank_correlation, log_correlation": "within an image (Spearman; Pearson of log depth), median over images",
    "failures": "images that could not be asked; their labels are not in n",
    "by_depth": "groups of true z-depth",
    "by_canvas": "groups of canonical views by area, width, height, aspect, and single sizes; below_best is the gap "
    "to the best group of the grouping, which is best in part by chance",
    "confidence": "probability of being within 25 %; calibration errors are means of |delta1 - confidence| over bins",
    "sigma": "coverage: share of answers with |error| <= sigma",
}


@dataclass(frozen=True, eq=False)
class ImageResult:
    """The answers to one image.

    Attributes:
        sample: The image with its labels.
        answers: One entry per label, in the labels' order, also where a pixel is labelled twice.
        canvas: Width and height of the canonical view in pixels.
        level: Mean of all values of the picture, 0 to 255.
        dense: The answers to the extra queries; None where none were asked.
    """

    sample: LabelledImage
    answers: SparseDepth
    canvas: tuple[int, int]
    level: float
    dense: DenseAnswers | None = None

    @property
    def predicted(self) -> Floats:
        """The answer to each label in metres, shape (N,), float64; NaN where there is none."""
        return self.answers.depth.astype(np.float64)


@dataclass(frozen=True)
class Failure:
    """An image that could not be asked.

    Attributes:
        image: Its name in the benchmark.
        labels: How many labels are lost with it; they count nowhere else.
        reason: Why, in words.
    """

    image: str
    labels: int
    reason: str


@dataclass
class Evaluation:
    """The answers to a benchmark.

    Attributes:
        name: What the benchmark is called in tables.
        results: One per image that could be asked, in the order of the benchmark; one at least for :meth:`metrics`.
        failures: The images that could not be asked.
    """

    name: str = ""
    results: list[ImageResult] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def model(self) -> str:
        """What answered."""
        return self.results[0].answers.model

    @property
    def truth(self) -> list[Floats]:
        """The labels of each image in metres, shape (N_i,)."""
        return [result.sample.depth for result in self.results]

    @property
    def predicted(self) -> list[Floats]:
        """The answers to the labels of each image in metres, shape (N_i,), NaN where there is none."""
        return [result.predicted for result in self.results]

    @cached_property
    def trivial(self) -> dict[str, list[Floats]]:
        """What :func:`~depthlm_ros.evaluation.trivial.trivial_predictions` says, of the results by then."""
        return trivial_predictions([result.sample for result in self.results])

    def scenes(self) -> list[list[ImageResult]]:
        """The results by scene: those of pictures of one static scene together, any other alone."""
        scenes: dict[str | int, list[ImageResult]] = {}
        for index, result in enumerate(self.results):
            scenes.setdefault(index if result.sample.static is None else result.sample.static, []).append(
                result
            )
        return list(scenes.values())

    def by_scene(self, values: Sequence[Floats]) -> list[Floats]:
        """Values per image as values per scene.

        Those of one static scene rise and fall together, so that an interval that took its pictures for independent
        would claim too much.
        """
        of_image = dict(zip(map(id, self.results), values, strict=True))
        return [np.concatenate([of_image[id(result)] for result in scene]) for scene in self.scenes()]

    def column(self, name: str) -> Floats:
        """``depth``, ``sigma``, ``confidence`` or ``certainty`` of all labels' answers, shape (N,), float64."""
        return np.asarray(np.concatenate([getattr(r.answers, name) for r in self.results]), dtype=np.float64)

    def metrics(self) -> dict[str, Any]:
        """Everything that ``metrics.json`` holds.

        Returns:
            The figures of the model: ``delta1``, ``delta1_interval95``, ``abs_rel``, ``rmse``, ``answered``, ``n``
            as :func:`~depthlm_ros.evaluation.metrics.score` defines them, ``rank_correlation`` and
            ``log_correlation`` (median over images, None where undefined). What they come from: ``name``,
            ``model``, ``images``, ``mean_level`` (of the pictures, 0 to 255), ``labels_ignored``, ``status``
            {lower-case status: labels}, ``engine_seconds``, ``failures`` [{image, labels, reason}]. ``trivial``
            {predictor: figures} for those of :func:`~depthlm_ros.evaluation.trivial.trivial_predictions` on the
            same labels; ``answered_only`` (:meth:`answered_only`). ``by_depth`` and ``by_canvas``
            (:mod:`~depthlm_ros.evaluation.groups`), ``confidence`` and
            ``sigma`` (:mod:`~depthlm_ros.evaluation.confidence`), ``static``
            (:func:`~depthlm_ros.evaluation.jitter.jitter_figures`; None where no image is of a static scene),
            ``dense`` (:meth:`dense_figures`). ``notes``: how to read them.
        """
        samples = [result.sample for result in self.results]
        truth, predicted = self.by_scene(self.truth), self.by_scene(self.predicted)
        depth, answer = np.concatenate(self.truth), np.concatenate(self.predicted)
        return {
            "name": self.name,
            **score(truth, predicted),
            "rank_correlation": rank_correlation(self.truth, self.predicted),
            "log_correlation": log_correlation(self.truth, self.predicted),
            "model": self.model,
            "images": len(samples),
            "mean_level": float(np.mean([result.level for result in self.results])),
            "labels_ignored": sum(sample.ignored for sample in samples),
            "status": self.reasons(),
            "engine_seconds": sum(result.answers.seconds.get("engine", 0.0) for result in self.results),
            "failures": [asdict(failure) for failure in self.failures],
            "trivial": {name: score(truth, self.by_scene(guess)) for name, guess in self.trivial.items()},
            "answered_only": self.answered_only(),
            "by_depth": by_depth(truth, predicted),
            "by_canvas": by_canvas([scene[0].canvas for scene in self.scenes()], truth, predicted),
            "confidence": confidence_figures(depth, answer, self.column("confidence")),
            "sigma": sigma_figures(depth, answer, self.column("sigma")),
            "static": jitter_figures(samples, self.predicted) if any(s.static for s in samples) else None,
            "dense": self.dense_figures(),
            "notes": NOTES,
        }

    def answered_only(self) -> dict[str, dict[str, Any]] | None:
        """The model beside the trivial predictors on the labels that it answered, and no others.

        A label that cannot be asked (too near the border for the arrow) is a miss of the model alone: the predictors
        without eyes answer all. This tells what that costs from what its answers are worth.

        Returns:
            {predictor: figures}, the model first; None where it answered all labels, or none.
        """
        answered = [np.isfinite(guess) for guess in self.predicted]
        if np.concatenate(answered).mean() in (0.0, 1.0):
            return None

        def kept(values: Sequence[Floats]) -> list[Floats]:
            return self.by_scene([own[ok] for own, ok in zip(values, answered, strict=True)])

        truth = kept(self.truth)
        guesses = {self.model: self.predicted, **self.trivial}
        return {name: score(truth, kept(guess)) for name, guess in guesses.items()}

    def dense_figures(self) -> dict[str, Any] | None:
        """What the extra queries on dense truth say.

        Returns:
            ``images`` and ``queries``, ``status`` {lower-case status: queries}, ``boundary``
            (:func:`~depthlm_ros.evaluation.edges.boundary_figures`) and ``planes``
            (:func:`~depthlm_ros.evaluation.planes.plane_figures`); None where nothing was asked.
        """
        asked = [result.dense for result in self.results if result.dense is not None]
        if not asked:
            return None
        edges = [[r.dense.edges for r in scene if r.dense is not None] for scene in self.scenes()]
        status: Counter[str] = Counter()
        for extra in asked:
            status.update(extra.answers.reasons())
        return {
            "images": len(asked),
            "queries": sum(len(extra.pixels) for extra in asked),
            "status": dict(sorted(status.items())),
            "boundary": boundary_figures([joined(parts) for parts in edges if parts]),
            "planes": plane_figures([extra.plane for extra in asked if extra.plane is not None]),
        }

    def reasons(self) -> dict[str, int]:
        """How many labels ended in which status, by the status's lower-case name."""
        total: Counter[str] = Counter()
        for result in self.results:
            total.update(result.answers.reasons())
        return dict(sorted(total.items()))

    def write(self, out: Path, made_by: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write ``metrics.json`` (see :meth:`metrics`), ``per_point.csv`` and, with extra queries, ``dense.csv``.

        Args:
            out: The directory, made where absent. A ``dense.csv`` of an earlier run is removed where this one
                asked nothing extra.
            made_by: What the figures were made by, for the key of this name.

        Returns:
            The metrics.
        """
        out.mkdir(parents=True, exist_ok=True)
        with (out / "per_point.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(PER_POINT_COLUMNS)
            for result in self.results:
                table.writerows(_rows((result.sample.name,), result.sample.depth, result.answers))
        self._write_dense(out / "dense.csv")
        metrics = {**self.metrics(), **({} if made_by is None else {"made_by": dict(made_by)})}
        text = json.dumps(metrics, indent=1, allow_nan=False)
        (out / "metrics.json").write_text(text + "\n", encoding="utf-8")
        return metrics

    def _write_dense(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        asked = [(r.sample.name, r.dense) for r in self.results if r.dense is not None]
        if not asked:
            return
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(DENSE_COLUMNS)
            for name, extra in asked:
                for kind, row in zip(extra.kinds, _rows((), extra.truth, extra.answers), strict=True):
                    table.writerow((name, kind, *row))


def _rows(first: tuple[str, ...], truth: Floats, answers: SparseDepth) -> list[tuple[Any, ...]]:
    return [
        (*first, u, v, z, *measured_columns(answers, i))
        for i, ((u, v), z) in enumerate(zip(answers.pixels.tolist(), truth.tolist(), strict=True))
    ]
