"""Predictors that look at no image: what any model has to beat. Two of them see the answers (oracles)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from depthlm_ros.evaluation.benchmark import LabelledImage
from depthlm_ros.evaluation.metrics import DELTA1_RATIO, Floats

ROW_BINS = 16
"""Bands of equal height into which the row prior cuts an image."""


def trivial_predictions(samples: Sequence[LabelledImage]) -> dict[str, list[Floats]]:
    """What the trivial predictors say, per predictor and image, in metres.

    Returns:
        ``always_2m``; ``best_constant`` (oracle: the one constant with the highest delta1 on these labels);
        ``row_prior`` (median depth at that height in the picture over all *other* images);
        ``oracle_image_constant`` (oracle: per image the constant with the highest delta1).
    """
    best = best_constant(np.concatenate([sample.depth for sample in samples]))
    return {
        "always_2m": [np.full(len(s.depth), 2.0) for s in samples],
        "best_constant": [np.full(len(s.depth), best) for s in samples],
        "row_prior": row_prior(samples),
        "oracle_image_constant": [np.full(len(s.depth), best_constant(s.depth)) for s in samples],
    }


def best_constant(depth: Floats) -> float:
    """The constant that lies within 25 % of the most depths.

    Args:
        depth: Metres above 0, shape (N,).

    Returns:
        Metres; NaN without any depth.
    """
    z = np.sort(np.asarray(depth, dtype=np.float64))
    if not len(z):
        return math.nan
    # A constant c hits what lies strictly between c / 1.25 and 1.25 c: a window whose ends differ by 1.25^2.
    # Try the window that starts at each depth; the geometric mean of its ends hits all of it.
    after = np.searchsorted(z, z * DELTA1_RATIO**2, side="left")
    first = int(np.argmax(after - np.arange(len(z))))
    return float(np.sqrt(z[first] * z[after[first] - 1]))


def row_prior(samples: Sequence[LabelledImage]) -> list[Floats]:
    """Median depth of each pixel's band of rows over all other images.

    A band that no other image has labels in takes the median of all their labels. Pictures of the same static scene
    are no other images: they would give the answers away.

    Returns:
        Per image, metres, shape (N_i,); NaN where there is no other image.
    """
    bands = [row_bands(s.pixels[:, 1], s.height) for s in samples]
    return prior_of_bands(bands, [s.depth for s in samples], [s.static for s in samples])


def row_bands(rows: npt.NDArray[np.int64], height: int) -> npt.NDArray[np.int64]:
    """Which of the :data:`ROW_BINS` bands of an image each row lies in.

    Args:
        rows: Pixel rows, shape (N,).
        height: Of the image in pixels.
    """
    return np.clip(rows * ROW_BINS // height, 0, ROW_BINS - 1)


def prior_of_bands(
    bands: Sequence[npt.NDArray[np.int64]], depths: Sequence[Floats], scenes: Sequence[str | None]
) -> list[Floats]:
    """:func:`row_prior` from arrays.

    Args:
        bands: Per image, the :func:`row_bands` of its labels, shape (N_i,).
        depths: Per image, metres, shape (N_i,).
        scenes: Per image, the static scene that it shows; None where it shares its scene with no other.
    """
    predictions: list[Floats] = []
    for index, own in enumerate(bands):
        scene = scenes[index]
        others = [
            i
            for i, other in enumerate(scenes)
            if i != index and len(bands[i]) and (scene is None or other != scene)
        ]
        if not others:
            predictions.append(np.full(len(own), np.nan))
            continue
        depth = np.concatenate([depths[i] for i in others])
        band = np.concatenate([bands[i] for i in others])
        prior = np.full(ROW_BINS, np.median(depth))
        for b in np.unique(band):
            prior[b] = np.median(depth[band == b])
        predictions.append(prior[own])
    return predictions
