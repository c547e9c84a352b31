"""Scale jitter: how much the answers breathe when nothing but noise and exposure change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from depthlm_ros.evaluation.benchmark import LabelledImage
from depthlm_ros.evaluation.metrics import Floats

FEWEST_PIXELS = 3
"""A set of pictures with fewer pixels that were answered in all of them says nothing about the scale."""


def jitter_figures(samples: Sequence[LabelledImage], predicted: Sequence[Floats]) -> dict[str, Any]:
    """How the answers differ between pictures of one static scene from one pose.

    Samples that share ``static`` make a set. Of its pixels, those count that every picture was asked and answered.
    The scale of a picture is the median over them of log(answer / truth); its spread over the set is the jitter. No
    factor common to all pictures matters.

    Args:
        samples: The images with their labels.
        predicted: Per image, metres above 0, shape (N_i,), NaN where there is no answer.

    Returns:
        ``sets`` that count, ``pictures`` in them, ``sets_left_out`` (a single picture, or too few common pixels).
        Medians over the sets, None without any: ``scale_jitter`` (standard deviation of the scales; 0.05 means about
        5 %) and ``point_jitter`` (median over pixels of the standard deviation of log(answer)).
    """
    sets: dict[str, list[dict[tuple[int, int], tuple[float, float]]]] = {}
    for sample, guess in zip(samples, predicted, strict=True):
        if sample.static is not None:
            answers = {
                (u, v): (z, said)
                for (u, v), z, said in zip(
                    sample.pixels.tolist(), sample.depth.tolist(), guess.tolist(), strict=True
                )
                if np.isfinite(said)
            }
            sets.setdefault(sample.static, []).append(answers)
    scales, points, pictures = [], [], 0
    for members in sets.values():
        common = sorted(set.intersection(*(set(answers) for answers in members)))
        if len(members) < 2 or len(common) < FEWEST_PIXELS:
            continue
        pairs = np.array([[answers[pixel] for pixel in common] for answers in members])
        ratio = np.log(pairs[..., 1] / pairs[..., 0])
        scales.append(float(np.median(ratio, axis=1).std(ddof=1)))
        points.append(float(np.median(np.log(pairs[..., 1]).std(axis=0, ddof=1))))
        pictures += len(members)
    return {
        "sets": len(scales),
        "pictures": pictures,
        "sets_left_out": len(sets) - len(scales),
        "scale_jitter": float(np.median(scales)) if scales else None,
        "point_jitter": float(np.median(points)) if points else None,
    }
