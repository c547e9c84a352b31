"""Asks an estimator for every labelled pixel of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from depthlm_ros.camera import CameraError
from depthlm_ros.canonical import CanonicalError
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.evaluation.benchmark import BenchmarkError, LabelledImage
from depthlm_ros.evaluation.dense import FEWEST_QUERIES, ask_dense
from depthlm_ros.evaluation.results import Evaluation, Failure, ImageResult
from depthlm_ros.images import ImageError, read_image


def evaluate(
    estimator: DepthEstimator,
    samples: Sequence[LabelledImage],
    *,
    max_megapixels: float,
    name: str = "",
    dense: int = 0,
    on_image: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Ask for every labelled pixel.

    An image that cannot be read, does not fit its intrinsics, or whose dense truth is wanted and cannot be used
    becomes a failure with its reason; the others are asked all the same.

    Args:
        estimator: A running estimator.
        samples: The benchmark.
        max_megapixels: Larger images are refused.
        name: What the benchmark is called in tables.
        dense: Extra queries per image that has dense truth, see :func:`~depthlm_ros.evaluation.dense.ask_dense`; 0
            asks none.
        on_image: Called after each image, for a progress bar.

    Raises:
        BenchmarkError: ``dense`` is too small to mean anything, or no image at all could be asked.
        EngineError: The engine failed.
    """
    if dense < 0 or 0 < dense < FEWEST_QUERIES:
        raise BenchmarkError(f"dense: expected 0, or {FEWEST_QUERIES} queries per image or more, got {dense}")
    evaluation = Evaluation(name)
    for sample in samples:
        try:
            evaluation.results.append(_ask(estimator, sample, max_megapixels, dense))
        except (BenchmarkError, CameraError, CanonicalError, ImageError) as error:
            evaluation.failures.append(Failure(sample.name, len(sample.depth), str(error)))
        on_image()
    if not any(len(result.sample.depth) for result in evaluation.results):
        first = evaluation.failures[0].reason if evaluation.failures else "they have no labels"
        raise BenchmarkError(f"none of the {len(samples)} images could be asked; the first: {first}")
    return evaluation


def _ask(estimator: DepthEstimator, sample: LabelledImage, max_megapixels: float, dense: int) -> ImageResult:
    image = read_image(sample.path, max_megapixels=max_megapixels)
    try:
        frame = estimator.prepare(image, sample.camera())
    except (CameraError, CanonicalError) as error:
        raise BenchmarkError(f"{sample.path}: {error}") from error
    answers = estimator.ask(frame, sample.pixels).at(sample.pixels)
    extra = None
    if dense and sample.dense is not None:
        extra = ask_dense(estimator, frame, sample, sample.dense, dense)
    return ImageResult(sample, answers, frame.view.size, float(image.mean()), extra)
