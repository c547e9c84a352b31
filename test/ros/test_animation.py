"""The demo's animation: every recorded frame, in one colour scale, small enough for a README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graph import picture
from PIL import Image
from test_nav2_clouds import CAMERA, answers

from depthlm_ros.ros.report import RecordedFrame, write_animation

LARGEST_BYTES = 1_500_000


def recorded(distance_m: float, seed: int) -> RecordedFrame:
    """A frame with one confident point, which is an obstacle, and one that is none."""
    sparse = answers([(distance_m, 0.3, 0.5), (4.0, -0.5, 0.1)])
    truth = np.full((CAMERA.height, CAMERA.width), 3.0, np.float32)
    return RecordedFrame(
        rgb=picture(seed, CAMERA.width, CAMERA.height),
        truth=truth,
        sparse=sparse,
        obstacles=np.array([True, False]),
        latency_s=1.0,
        received=float(seed),
        counters={"frames_in": seed, "frames_answered": seed, "frames_dropped": 0},
    )


def test_every_frame_is_in_it_and_it_stays_small(tmp_path: Path) -> None:
    distances = np.linspace(3.5, 1.5, 24).tolist()
    write_animation([recorded(z, i) for i, z in enumerate(distances)], tmp_path / "demo.webp")
    assert (tmp_path / "demo.webp").stat().st_size < LARGEST_BYTES
    with Image.open(tmp_path / "demo.webp") as film:
        assert film.n_frames == len(distances)
        width, height = film.size
        film.seek(0)
        first = np.asarray(film.convert("RGB"), np.int64)
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("RGB"), np.int64)
    assert width > 2 * height
    # The obstacle comes nearer: seen from above, on the right, its colour turns from blue to red.
    above = slice(width // 2 + 20, width)
    redder = (last[:, above, 0] - last[:, above, 2]).max() - (first[:, above, 0] - first[:, above, 2]).max()
    assert redder > 60


def test_one_frame_is_a_picture(tmp_path: Path) -> None:
    write_animation([recorded(2.0, 0)], tmp_path / "demo.webp")
    with Image.open(tmp_path / "demo.webp") as film:
        assert getattr(film, "n_frames", 1) == 1
        assert film.size[1] == pytest.approx(240)
