"""Held-out queries, how well they are answered, and how well trivial predictors would do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from depthlm_ros.evaluation.confidence import auroc
from depthlm_ros.evaluation.metrics import within_delta1
from depthlm_ros.training.answering import Answers
from depthlm_ros.training.augment import Batch, Limits, Sample, collate, draw_query, marked_sample, trimmed
from depthlm_ros.training.losses import DepthHeads, pointed_tokens
from depthlm_ros.training.model import tower_tokens
from depthlm_ros.training.views import ViewCache

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Queries:
    """Marked views with the truth.

    Attributes:
        samples: Views, marked or not, as :func:`depthlm_ros.training.augment.marked_sample` makes them.
        truth: Metres, shape (N,).
    """

    samples: tuple[Sample, ...]
    truth: Floats

    @property
    def pixels(self) -> list[tuple[int, int]]:
        """The asked pixels in the views as (x, y)."""
        return [sample[2] for sample in self.samples]

    @property
    def views(self) -> list[npt.NDArray[np.uint8]]:
        """The marked views."""
        return [sample[0] for sample in self.samples]


def held_out_queries(
    cache: ViewCache, count: int, limits: Limits, seed: int, *, marked: bool = True, filled: bool = False
) -> Queries:
    """Ask ``count`` pixels of views, spread evenly over the views.

    Args:
        cache: The views.
        count: How many.
        limits: Depths that may be asked about.
        seed: Fixes the pixels.
        marked: Whether by arrows.
        filled: Whether the views lose up to a token's side around their middle and are filled up again, as
            cameras' views are; else they are unchanged.
    """
    samples: list[Sample] = []
    k = 0
    while len(samples) < count:
        rgb, depth = cache[k % len(cache)]
        rng = np.random.default_rng([seed, k])
        if filled:
            height, width = trimmed(depth.shape[0], depth.shape[1], rng)
            top, left = (depth.shape[0] - height) // 2, (depth.shape[1] - width) // 2
            rgb = rgb[top : top + height, left : left + width]
            depth = depth[top : top + height, left : left + width]
        pixel = draw_query(depth, limits, rng)
        k += 1
        if pixel is None:
            continue
        samples.append(marked_sample(rgb.copy(), depth, pixel, marked=marked, filled=filled))
    return Queries(tuple(samples), np.array([s[3] for s in samples]))


def score(answers: Answers, queries: Queries) -> dict[str, float | None]:
    """delta1, relative error, parse failures and how well the probability tells right from wrong."""
    known = np.isfinite(answers.metres)
    hit = within_delta1(queries.truth, answers.metres)
    relative = np.abs(answers.metres - queries.truth)[known] / queries.truth[known]
    return {
        "queries": float(len(queries.truth)),
        "delta1": round(float(hit.mean()), 4),
        "abs_rel_median": round(float(np.median(relative)), 4) if known.any() else float("nan"),
        "no_answer": round(float(1.0 - known.mean()), 4),
        "auroc": auroc(answers.probability[known], hit[known]),
    }


@torch.no_grad()
def tower_score(visual: object, heads: DepthHeads, queries: Queries, patch_px: int) -> dict[str, float]:
    """delta1 at the pointed pixels by the heads of stage 1, and how often the arrow's token is found."""
    hits, found = [], []
    for batch in by_size(queries):
        tokens = tower_tokens(visual, batch.views)
        where = pointed_tokens(batch, patch_px)
        logits = heads.pointed(tokens[torch.arange(len(where)), where])
        hits.append(within_delta1(batch.target.numpy(), heads.metres(logits).numpy()))
        found.append((heads.pointing(tokens)[..., 0].argmax(-1) == where).float())
    return {
        "delta1": round(float(np.concatenate(hits).mean()), 4),
        "pointing": round(float(torch.cat(found).mean()), 4),
    }


def by_size(queries: Queries, most: int = 64) -> list[Batch]:
    """The queries as batches of one size each."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for k, sample in enumerate(queries.samples):
        groups.setdefault(sample[0].shape, []).append(k)
    return [
        collate([queries.samples[k] for k in members[start : start + most]])
        for members in groups.values()
        for start in range(0, len(members), most)
    ]
