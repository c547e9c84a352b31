"""A tiny data set in DepthLM benchmark format: a floor that is brighter where it is nearer, exact depth."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

FOCAL_PX = 112.0
"""The embedded checkpoint's canonical focal length: views are not resized."""


def toy_depth(height: int, width: int) -> np.ndarray:
    """z-depth in metres, shape (height, width): 8 m at the top to 1 m at the bottom."""
    return np.repeat(np.geomspace(8.0, 1.0, height)[:, None], width, axis=1)


def write_toy_set(
    folder: Path,
    name: str,
    images: int,
    labels: int,
    *,
    size: tuple[int, int] = (128, 96),
    focal_px: float = FOCAL_PX,
    seed: int = 0,
) -> dict[str, str]:
    """Write a set of (width, height) images and say where it is, as a recipe's ``data`` entry wants it."""
    rng = np.random.default_rng(seed)
    width, height = size
    depth = toy_depth(height, width)
    lines = []
    (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(images):
        grey = 220.0 / depth[..., None] + rng.normal(0.0, 6.0, (height, width, 3)) + 20.0
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(folder / name / f"{index}.png")
        u, v = rng.integers(6, width - 6, labels), rng.integers(6, height - 6, labels)
        lines.append(
            {
                "image": f"{name}/{index}.png",
                "intrinsics": [focal_px, focal_px, width / 2, height / 2, width, height],
                "pixel_coords": np.stack([u, v], axis=1).tolist(),
                "depth": depth[v, u].tolist(),
            }
        )
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {"labels": str(path), "images": str(folder)}
