"""Rounds of all three procedures on the same frames, and the record of what came out."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from depthlm_ros.bench.clock import STAGES
from depthlm_ros.bench.contest import ARMS, Contest, Run
from depthlm_ros.bench.frames import BenchFrame, pixels_of, write_frames
from depthlm_ros.bench.machine import machine_record
from depthlm_ros.bench.memory import Peaks, peak_memory
from depthlm_ros.bench.official import BATCH, ENOUGH
from depthlm_ros.bench.theory import measured_tflops, query_flops, rated_tflops
from depthlm_ros.images import read_image

SCHEMA = 2
"""Of the JSON record; raised when a key changes its meaning."""

Round = Mapping[str, Run]
Say = Callable[[str, int], None]


def compare(contest: Contest, say: Say) -> dict[str, Any]:
    """Time all procedures.

    Within a round the official procedure answers half of its queries before ours and half after, so that a machine
    that slows down or speeds up meanwhile disturbs all alike.

    Args:
        contest: The opened procedures.
        say: Called with what runs and how many queries it has answered since the last call.

    Returns:
        The record; see :func:`summary`.
    """
    options = contest.options
    frames = write_frames(contest.folder / "frames", options.width, options.height, options.rounds + 1)
    pixels = choose_pixels(contest, frames[0], options.points)
    warm_up(contest, frames[-1], pixels)
    peak = measured_tflops(contest.device, contest.dtype)
    rounds = [one_round(contest, frame, pixels, say) for frame in frames[: options.rounds]]
    first = {
        arm: statistics.median(first_point(contest, arm, frame, pixels) for frame in frames[1:])
        for arm in ARMS[1:]
    }
    peak = max(peak, measured_tflops(contest.device, contest.dtype))
    grid, prompt = contest.watches["official"].grid, contest.watches["official"].prompt_tokens
    return {
        "schema": SCHEMA,
        "kind": "compare",
        **setting(contest),
        **summary(rounds, first),
        "peak_memory_mb": peaks(contest, frames[-1], pixels),
        "agreement": agreement(rounds, scripted=bool(contest.scripts)),
        "theory": theory(contest, rounds, grid, prompt, peak),
    }


def setting(contest: Contest) -> dict[str, Any]:
    """What was timed, and on what."""
    options, shape = contest.options, contest.shape
    parameters = sum(p.numel() for p in contest.official.model.parameters())
    return {
        "shape": {
            "name": shape.name,
            "about": shape.about,
            "parameters": parameters,
            "canonical_focal_px": shape.focal_px,
            "weights": "random" if contest.scripts else "trained",
        },
        "points": options.points,
        "width": options.width,
        "height": options.height,
        "batch_size": dict(contest.batch_sizes),
        "official_processor": contest.official.processor_name,
        "machine": machine_record(contest.device, contest.dtype),
    }


def choose_pixels(contest: Contest, frame: BenchFrame, count: int) -> list[tuple[int, int]]:
    """Pixels that all procedures can be asked about.

    Raises:
        BenchError: The image does not have so many.
    """
    image = read_image(frame.raw, max_megapixels=math.inf)
    return pixels_of(frame, contest.ours["marker"].estimator, image, count)


def warm_up(contest: Contest, frame: BenchFrame, pixels: Sequence[tuple[int, int]]) -> None:
    """Let each procedure run once untimed: the first call of a kernel is slower."""
    contest.run_official(Run(), frame, pixels[:BATCH], lambda answered: None)
    for arm in ARMS[1:]:
        contest.run_ours(arm, Run(), frame, pixels[:BATCH])


def one_round(
    contest: Contest, frame: BenchFrame, pixels: Sequence[tuple[int, int]], say: Say
) -> dict[str, Run]:
    """All procedures on one frame."""
    runs = {arm: Run() for arm in ARMS}
    half = min(len(pixels), BATCH * math.ceil(len(pixels) / BATCH / 2))
    contest.run_official(runs["official"], frame, pixels[:half], lambda n: say("official", n))
    for arm in ARMS[1:]:
        say(arm, 0)
        contest.run_ours(arm, runs[arm], frame, pixels)
        say(arm, len(pixels))
    if half < len(pixels):
        contest.run_official(runs["official"], frame, pixels[half:], lambda n: say("official", n))
    return runs


def first_point(contest: Contest, arm: str, frame: BenchFrame, pixels: Sequence[tuple[int, int]]) -> float:
    """Seconds until one point asked alone is answered."""
    began = time.perf_counter()
    contest.run_ours(arm, Run(), frame, pixels[:1])
    return time.perf_counter() - began


def peaks(contest: Contest, frame: BenchFrame, pixels: Sequence[tuple[int, int]]) -> dict[str, Peaks]:
    """Peak memory of each procedure, in a pass of its own.

    Each starts from freed memory that was given back, which a node does not do between frames: timed, it would cost
    what the system takes to hand it out again.
    """
    works: dict[str, Callable[[], object]] = {
        arm: partial(contest.run_ours, arm, Run(), frame, pixels) for arm in ARMS[1:]
    }
    works["official"] = partial(contest.run_official, Run(), frame, pixels[:ENOUGH], lambda answered: None)
    return {arm: peak_memory(contest.device, works[arm]) for arm in ARMS}


def summary(rounds: Sequence[Round], first_point_s: Mapping[str, float]) -> dict[str, Any]:
    """The figures of some rounds.

    Args:
        rounds: What :func:`one_round` gave, one or more.
        first_point_s: {arm: seconds until a point asked alone is answered, the median over frames}, of ours.

    Returns:
        ``queries_per_s`` and ``ratio`` (to the official procedure) as medians over the rounds; ``ratio_cpu`` the same
        from processor time; per arm the mean ``stages`` of a frame in seconds, which add up to ``frame_s``; the rest
        is named after what it is.
    """
    speed = {arm: [r[arm].queries / r[arm].wall_s for r in rounds] for arm in ARMS}
    busy = {arm: [r[arm].queries / max(r[arm].cpu_s, 1e-9) for r in rounds] for arm in ARMS}
    outside = {arm: statistics.median(r[arm].outside_share for r in rounds) for arm in ARMS[1:]}
    return {
        "rounds": len(rounds),
        "queries_per_s": {arm: statistics.median(speed[arm]) for arm in ARMS},
        "ratio": _ratios(speed),
        "ratio_per_round": {
            arm: [a / b for a, b in zip(speed[arm], speed["official"], strict=True)] for arm in ARMS[1:]
        },
        "ratio_cpu": _ratios(busy),
        "outside_engine_share": max(outside.values()),
        "outside_engine_share_of": outside,
        "frame_s": {arm: statistics.fmean(r[arm].wall_s for r in rounds) for arm in ARMS},
        "stages": {arm: _stages([r[arm] for r in rounds]) for arm in ARMS},
        "beside": {
            arm: {stage: s / len(rounds) for stage, s in _sums([r[arm].beside for r in rounds]).items()}
            for arm in ARMS[1:]
        },
        "latency_s": {
            "first_point": {
                "official": statistics.median(r["official"].first_s for r in rounds),
                **{arm: float(seconds) for arm, seconds in first_point_s.items()},
            },
            "last_point": {arm: statistics.median(r[arm].wall_s for r in rounds) for arm in ARMS},
        },
        "decoded_tokens": {arm: statistics.fmean(r[arm].tokens for r in rounds) for arm in ARMS},
    }


def _ratios(speed: Mapping[str, Sequence[float]]) -> dict[str, float]:
    pairs = {arm: zip(speed[arm], speed["official"], strict=True) for arm in ARMS[1:]}
    return {arm: statistics.median(ours / theirs for ours, theirs in both) for arm, both in pairs.items()}


def _sums(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name for part in parts for name in part}
    return {name: sum(part.get(name, 0.0) for part in parts) for name in sorted(names)}


def _stages(runs: Sequence[Run]) -> dict[str, float | None]:
    """Mean seconds per stage; None for what the procedure does not have, or what could not be measured."""
    sums = _sums([run.seconds for run in runs])
    return {stage: sums[stage] / len(runs) if stage in sums else None for stage in STAGES}


def agreement(rounds: Sequence[Round], *, scripted: bool) -> dict[str, Any]:
    """Whether the official procedure and exact ``marker`` computed the same.

    Args:
        rounds: The rounds.
        scripted: Whether random weights were given their words: then it is their own likeliest token at each of the
            number's tokens that is compared, and its log-probability.

    Returns:
        ``compared``, ``equal``; with random weights ``largest_logprob_difference`` too.
    """
    if not scripted:
        pairs = [pair for r in rounds for pair in zip(r["official"].metres, r["marker"].metres, strict=True)]
        same = sum(1 for a, b in pairs if a is not None and b is not None and abs(a - b) < 1e-4)
        return {"what": "answered metres", "compared": len(pairs), "equal": same}
    import torch

    tokens = {arm: torch.cat([t for r in rounds for t in _in_order(r[arm], 0)]) for arm in ARMS[:2]}
    logprobs = {arm: torch.cat([t for r in rounds for t in _in_order(r[arm], 1)]) for arm in ARMS[:2]}
    return {
        "what": "likeliest token at the number's tokens",
        "compared": tokens["official"].numel(),
        "equal": int((tokens["official"] == tokens["marker"]).sum()),
        "largest_logprob_difference": float((logprobs["official"] - logprobs["marker"]).abs().max()),
    }


def _in_order(run: Run, which: int) -> list[Any]:
    """What was heard, sequence by sequence: batches of different sizes then come in one order."""
    import torch

    heard = (run.heard.tokens, run.heard.logprobs)[which]
    steps = sum(len(part) for part in heard) // run.queries
    return [torch.stack(heard[first : first + steps], dim=1) for first in range(0, len(heard), steps)]


def theory(
    contest: Contest, rounds: Sequence[Round], grid: tuple[int, int], prompt_tokens: int, peak_tflops: float
) -> dict[str, Any]:
    """What the shape asks for, what the machine gives, and how near exact ``marker`` comes to its bound.

    Args:
        contest: The contest.
        rounds: Its rounds.
        grid: Rows and columns of patches of the model's image.
        prompt_tokens: Tokens of the official prompt.
        peak_tflops: Measured rate of large matrix products.
    """
    import torch

    flops = query_flops(contest.shape, grid, prompt_tokens)
    cuda = contest.device.startswith("cuda")
    rated = rated_tflops(torch.cuda.get_device_name(), contest.dtype) if cuda else None
    peak = rated or peak_tflops
    official = [r["official"] for r in rounds]
    needed = sum(run.seconds["vision"] + run.seconds["prefill"] for run in official)
    return {
        "image_patches": grid[0] * grid[1],
        "image_tokens": grid[0] * grid[1] // contest.shape.vision.merge**2,
        "prompt_tokens": prompt_tokens,
        "gflop_per_query": {
            "vision": flops.vision / 1e9,
            "prefill": flops.prefill / 1e9,
            "per_decoded_token": flops.per_token / 1e9,
        },
        "peak_tflops": {"measured": peak_tflops, "rated": rated},
        "prefill_share_of_peak": {
            arm: _share(flops.prefill_in_all / 1e12, [r[arm] for r in rounds], peak) for arm in ARMS[:2]
        },
        "marker_bound_queries_per_s": peak * 1e12 / flops.prefill_in_all,
        "ratio_if_only_prefill_counted": sum(run.wall_s for run in official) / needed,
    }


def _share(tflop_per_query: float, runs: Sequence[Run], peak: float) -> float:
    seconds = sum(run.seconds["vision"] + run.seconds["prefill"] for run in runs)
    return tflop_per_query * sum(run.queries for run in runs) / seconds / peak
