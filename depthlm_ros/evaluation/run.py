"""Asks an estimator for every labelled pixel of a benchmark and sums up how good the answers are."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from depthlm_ros.camera import CameraError
from depthlm_ros.canonical import CanonicalError
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.evaluation.benchmark import BenchmarkError, LabelledImage
from depthlm_ros.evaluation.metrics import Floats, rank_correlation, score
from depthlm_ros.evaluation.trivial import trivial_predictions
from depthlm_ros.geometry import SparseDepth
from depthlm_ros.images import read_image
from depthlm_ros.writers import measured_columns

PER_POINT_COLUMNS = ("image", "u", "v", "truth_m", "z_m", "sigma_m", "confidence", "status")


@dataclass(frozen=True, eq=False)
class ImageResult:
    """The answers to one image.

    Attributes:
        sample: The image with its labels.
        answers: One entry per label, in the labels' order, also where a pixel is labelled twice.
    """

    sample: LabelledImage
    answers: SparseDepth

    @property
    def predicted(self) -> Floats:
        """The answer to each label in metres, shape (N,), float64; NaN where there is none."""
        return self.answers.depth.astype(np.float64)


@dataclass
class Evaluation:
    """The answers to a benchmark.

    Attributes:
        results: One per image, in the order of the benchmark.
    """

    results: list[ImageResult] = field(default_factory=list)

    def metrics(self) -> dict[str, Any]:
        """Everything that ``metrics.json`` holds.

        Returns:
            The figures of the model: ``delta1``, ``delta1_interval95``, ``abs_rel``, ``rmse``, ``answered``, ``n``
            as :func:`~depthlm_ros.evaluation.metrics.score` defines them, and ``rank_correlation`` (median over
            images, None where undefined). What they come from: ``model``, ``images``, ``labels_ignored``,
            ``status`` {lower-case status: labels}, ``engine_seconds``. ``trivial`` {predictor: figures} for those
            of :func:`~depthlm_ros.evaluation.trivial.trivial_predictions` on the same labels. ``notes``: how to
            read them.
        """
        samples = [result.sample for result in self.results]
        truth = [sample.depth for sample in samples]
        predicted = [result.predicted for result in self.results]
        return {
            **score(truth, predicted),
            "rank_correlation": rank_correlation(truth, predicted),
            "model": self.results[0].answers.model,
            "images": len(samples),
            "labels_ignored": sum(sample.ignored for sample in samples),
            "status": self.reasons(),
            "engine_seconds": sum(result.answers.seconds.get("engine", 0.0) for result in self.results),
            "trivial": {
                name: score(truth, guesses) for name, guesses in trivial_predictions(samples).items()
            },
            "notes": {
                "delta1": "share of n with max(z/z', z'/z) < 1.25; a label without an answer is a miss",
                "delta1_interval95": "bootstrap over images",
                "abs_rel, rmse": "over the answered labels only; rmse in metres",
                "best_constant, oracle_image_constant": "oracles: they see the labels that they are scored on",
            },
        }

    def reasons(self) -> dict[str, int]:
        """How many labels ended in which status, by the status's lower-case name."""
        total: Counter[str] = Counter()
        for result in self.results:
            total.update(result.answers.reasons())
        return dict(sorted(total.items()))

    def write(self, out: Path) -> dict[str, Any]:
        """Write ``metrics.json`` (see :meth:`metrics`) and ``per_point.csv`` into a directory.

        Args:
            out: The directory, made where absent.

        Returns:
            The metrics.
        """
        out.mkdir(parents=True, exist_ok=True)
        with (out / "per_point.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(PER_POINT_COLUMNS)
            for result in self.results:
                sample = result.sample
                for i, ((u, v), z) in enumerate(
                    zip(sample.pixels.tolist(), sample.depth.tolist(), strict=True)
                ):
                    table.writerow((sample.name, u, v, z, *measured_columns(result.answers, i)))
        metrics = self.metrics()
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        return metrics


def evaluate(
    estimator: DepthEstimator,
    samples: Sequence[LabelledImage],
    *,
    max_megapixels: float,
    on_image: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Ask for every labelled pixel.

    Args:
        estimator: A running estimator.
        samples: The benchmark.
        max_megapixels: Larger images are refused.
        on_image: Called after each image, for a progress bar.

    Raises:
        ImageError: An image cannot be read.
        BenchmarkError: An image does not fit its intrinsics.
        EngineError: The engine failed.
    """
    evaluation = Evaluation()
    for sample in samples:
        image = read_image(sample.path, max_megapixels=max_megapixels)
        try:
            frame = estimator.prepare(image, sample.camera())
        except (CameraError, CanonicalError) as error:
            raise BenchmarkError(f"{sample.path}: {error}") from error
        sparse = estimator.ask(frame, sample.pixels)
        evaluation.results.append(ImageResult(sample, sparse.at(sample.pixels)))
        on_image()
    return evaluation
