"""What the demo measured: numbers, a contact sheet and a cloud, from recorded frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from depthlm_ros.engines.base import RgbImage
from depthlm_ros.evaluation.benchmark import LabelledImage
from depthlm_ros.evaluation.metrics import score
from depthlm_ros.evaluation.trivial import trivial_predictions
from depthlm_ros.geometry import Floats, SparseDepth
from depthlm_ros.overlay import colourise_depth, colours, depth_limits, draw_overlay, top_view
from depthlm_ros.writers import write_ply

SHEET_ROWS = 6
_TILE_HEIGHT = 240


@dataclass(frozen=True, eq=False)
class RecordedFrame:
    """One answered frame with its exact depth.

    Attributes:
        rgb: The camera's image, shape (H, W, 3), uint8.
        truth: Exact z-depth in metres, shape (H, W), inf where there is only sky.
        sparse: What the node answered.
        obstacles: Which of the asked pixels the obstacle cloud holds, shape (N,).
        latency_s: From the image's stamp to the arrival of its cloud.
        received: ``time.monotonic()`` when the frame was complete.
        counters: The node's counters at that time.
    """

    rgb: RgbImage
    truth: Floats
    sparse: SparseDepth
    obstacles: npt.NDArray[np.bool_]
    latency_s: float
    received: float
    counters: dict[str, int]

    def labelled(self) -> tuple[LabelledImage, npt.NDArray[np.float64]]:
        """The asked pixels that have an exact depth, and what was answered there (NaN without an answer)."""
        camera, (u, v) = self.sparse.camera, self.sparse.pixels.T
        truth = self.truth[v, u].astype(np.float64)
        known = np.isfinite(truth) & (truth > 0)
        intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height)
        label = LabelledImage("", Path(), intrinsics, self.sparse.pixels[known], truth[known])
        return label, self.sparse.depth[known].astype(np.float64)

    def line(self) -> dict[str, float]:
        """What the progress display shows of this frame."""
        asked, answered = len(self.sparse.pixels), int(self.sparse.answered.sum())
        return {"asked": asked, "answered": answered, "latency_s": self.latency_s}


def summarise(frames: list[RecordedFrame]) -> dict[str, Any]:
    """The demo's numbers; depth is scored against the exact depth beside the two trivial predictors.

    Raises:
        ValueError: There is no frame.
    """
    if not frames:
        raise ValueError("not one frame was recorded")
    labels, answers = zip(*(frame.labelled() for frame in frames), strict=True)
    truth = [label.depth for label in labels]
    trivial = trivial_predictions(labels)
    answered = [int(frame.sparse.answered.sum()) for frame in frames]
    duration = frames[-1].received - frames[0].received
    latencies = [frame.latency_s for frame in frames]
    counters = frames[-1].counters
    return {
        "model": frames[-1].sparse.model,
        "frames": len(frames),
        "frames_in": counters["frames_in"],
        "frames_dropped": counters["frames_dropped"],
        "points_asked": sum(len(frame.sparse.pixels) for frame in frames),
        "points_answered": sum(answered),
        "points_per_s": sum(answered[1:]) / duration if duration > 0 else None,
        "latency_s": {"median": float(np.median(latencies)), "p95": float(np.percentile(latencies, 95))},
        "predictors": {
            "depthlm": score(truth, answers),
            "best_constant": score(truth, trivial["best_constant"]),
            "row_prior": score(truth, trivial["row_prior"]),
        },
    }


def contact_sheet(frames: list[RecordedFrame], rows: int = SHEET_ROWS) -> RgbImage:
    """Marked image, answered depth, exact depth and view from above, for frames spread over the drive."""
    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, rows).round().astype(int))]
    lines = []
    for frame in chosen:
        near, far = depth_limits(frame.truth)
        tiles = (
            draw_overlay(frame.rgb, frame.sparse, near=near, far=far),
            _cells(frame.sparse, near, far),
            colourise_depth(frame.truth, near, far),
            top_view(frame.sparse, obstacles=frame.obstacles, near=near, far=far, max_range_m=far * 1.1),
        )
        lines.append(np.hstack([_tile(tile) for tile in tiles]))
    title = np.full((28, lines[0].shape[1], 3), 24, np.uint8)
    width = lines[0].shape[1] // 4
    for column, text in enumerate(("asked pixels", "answered depth", "exact depth", "obstacles from above")):
        place = (8 + column * width, 19)
        cv2.putText(title, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235, 235, 235), 1, cv2.LINE_AA)
    return np.asarray(np.vstack([title, *lines]), dtype=np.uint8)


def write_animation(frames: list[RecordedFrame], path: Path) -> None:
    """The drive as an animated WebP, two frames a second: asked pixels by depth, and the obstacles from above.

    The colours and the reach are the same in all pictures.
    """
    near, far = depth_limits(np.concatenate([frame.sparse.depth for frame in frames]))
    pictures = []
    for frame in frames:
        overlay = draw_overlay(frame.rgb, frame.sparse, near=near, far=far)
        above = top_view(frame.sparse, obstacles=frame.obstacles, near=near, far=far, max_range_m=far * 1.1)
        pictures.append(PIL.Image.fromarray(np.hstack([_tile(overlay), _tile(above)])))
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=500, loop=0, quality=55, method=4
    )


def write_report(frames: list[RecordedFrame], out: Path) -> None:
    """Write ``summary.json``, ``contact_sheet.png``, ``demo.webp`` and ``cloud.ply`` (of the last frame).

    Raises:
        ValueError: There is no frame.
    """
    summary = json.dumps(summarise(frames), indent=2)
    cv2.imwrite(str(out / "contact_sheet.png"), contact_sheet(frames)[..., ::-1])
    write_animation(frames, out / "demo.webp")
    write_ply(frames[-1].sparse, out / "cloud.ply")
    (out / "summary.json").write_text(summary + "\n", encoding="utf-8")


def _cells(sparse: SparseDepth, near: float, far: float) -> RgbImage:
    """Each answer as a square around its pixel; nothing is filled in between them."""
    camera = sparse.camera
    picture = np.full((camera.height, camera.width, 3), 24, np.uint8)
    half = max(2, int(0.3 * (camera.width * camera.height / max(len(sparse.pixels), 1)) ** 0.5))
    ok = sparse.answered
    rgb = colours(sparse.depth[ok], near, far)
    for (u, v), colour in zip(sparse.pixels[ok].tolist(), rgb.tolist(), strict=True):
        cv2.rectangle(picture, (u - half, v - half), (u + half, v + half), colour, -1)
    return picture


def _tile(image: RgbImage) -> RgbImage:
    width = round(image.shape[1] * _TILE_HEIGHT / image.shape[0])
    resized = cv2.resize(image, (width, _TILE_HEIGHT), interpolation=cv2.INTER_NEAREST)
    goal = round(_TILE_HEIGHT * 4 / 3)
    if width >= goal:
        return np.asarray(resized[:, :goal], dtype=np.uint8)
    side = (goal - width) // 2
    return np.asarray(cv2.copyMakeBorder(resized, 0, 0, side, goal - width - side, cv2.BORDER_CONSTANT))
