"""What a query costs by the model's shape, and what the machine can do at most."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from depthlm_ros.bench.shapes import Shape

DENSE_TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "A10": 125.0,
}
"""Peak of bfloat16 matrix products without sparsity, TFLOP/s, from NVIDIA's data sheets; the first name that fits."""


@dataclass(frozen=True)
class QueryFlops:
    """Floating-point operations of one query (a multiply-add is two).

    Attributes:
        vision: The vision tower with its merger.
        prefill: The language model over the prompt, and the logits of its last token.
        per_token: One decoded token.
    """

    vision: float
    prefill: float
    per_token: float

    @property
    def prefill_in_all(self) -> float:
        """What exact ``marker`` must do anew for every query: another image, another prompt."""
        return self.vision + self.prefill


def query_flops(shape: Shape, grid: tuple[int, int], prompt_tokens: int) -> QueryFlops:
    """Count the matrix products of a query; everything else (norms, softmax, rotations) is left out.

    Args:
        shape: The model.
        grid: Rows and columns of patches of the image.
        prompt_tokens: Tokens of the prompt, the image's included.
    """
    vision, text = shape.vision, shape.text
    rows, columns = grid
    patches = rows * columns
    width = vision.hidden
    linear = 4 * width * width + 3 * width * vision.intermediate
    full = len([layer for layer in vision.full_attention if layer < vision.depth])
    pairs = full * patches**2 + (vision.depth - full) * _window_pairs(
        grid, vision.window_px // vision.patch_px
    )
    merged = width * vision.merge**2
    seen = (
        2.0 * patches * (3 * 2 * vision.patch_px**2 * width + vision.depth * linear)
        + 4.0 * width * pairs
        + 2.0 * (patches / vision.merge**2) * (merged * merged + merged * text.hidden)
    )
    head = text.hidden // text.heads
    each = text.hidden * (2 * text.hidden + 2 * text.kv_heads * head) + 3 * text.hidden * text.intermediate
    logits = 2.0 * text.hidden * text.vocabulary
    causal = 2.0 * text.hidden * text.layers * prompt_tokens * (prompt_tokens + 1)
    prefill = 2.0 * prompt_tokens * text.layers * each + causal + logits
    per_token = 2.0 * text.layers * each + 4.0 * text.hidden * text.layers * prompt_tokens + logits
    return QueryFlops(seen, prefill, per_token)


def _window_pairs(grid: tuple[int, int], side: int) -> int:
    """Pairs of patches that see each other in windows of side x side patches; those at the edges are smaller."""
    total = 0
    for rows in _pieces(grid[0], side):
        total += sum((rows * columns) ** 2 for columns in _pieces(grid[1], side))
    return total


def _pieces(length: int, side: int) -> list[int]:
    return [min(side, length - first) for first in range(0, length, side)]


def measured_tflops(device: str, dtype: str, *, seconds: float = 1.0) -> float:
    """The best rate of large matrix products on this machine now, with the present threads, in TFLOP/s.

    Args:
        device: ``cpu`` or ``cuda``.
        dtype: Of the matrices.
        seconds: How long to try.
    """
    import torch

    side = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.randn(side, side, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(a)
    best, began = math.inf, time.perf_counter()
    with torch.inference_mode():
        while time.perf_counter() - began < seconds or not math.isfinite(best):
            start = time.perf_counter()
            torch.matmul(a, b, out=out)
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    return 2.0 * side**3 / best / 1e12


def rated_tflops(device_name: str, dtype: str) -> float | None:
    """What the maker says, in TFLOP/s; None for an unknown device, and for float32, which has several readings."""
    if dtype not in ("bfloat16", "float16"):
        return None
    return next((rate for name, rate in DENSE_TFLOPS.items() if name in device_name), None)
