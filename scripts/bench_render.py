"""How fast `depthlm render` is on this machine, and where the time goes.

Run it in the virtual environment: `.venv/bin/python scripts/bench_render.py`. It writes into a temporary directory
and prints figures; what is fast enough is for the reader to say. Beside other work, trust the processor time.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from depthlm_ros.synthetic import Domain, RenderSpec, View, sample_view, write_dataset
from depthlm_ros.synthetic.dataset import encode_png


def measured(spec: RenderSpec, processes: int) -> tuple[float, float]:
    """Wall time and processor time in seconds of writing a data set."""
    with tempfile.TemporaryDirectory() as folder:
        wall, before = time.perf_counter(), os.times()
        write_dataset(Path(folder), spec, processes=processes, progress=False)
        wall, after = time.perf_counter() - wall, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def processor_time(work: Callable[[View], int], views: list[View]) -> tuple[float, float]:
    """Milliseconds of one core and kilobytes per view."""
    started = time.process_time()
    size = sum(work(view) for view in views)
    return 1e3 * (time.process_time() - started) / len(views), size / len(views) / 1e3


def npz_size(view: View, save: Callable[..., None]) -> int:
    """Bytes of the dense truth as one of NumPy's archives."""
    file = io.BytesIO()
    save(file, z_depth=view.z_depth, range=view.range_)
    return len(file.getvalue())


def png_size(view: View, level: int) -> int:
    """Bytes of the image at one of zlib's levels."""
    bgr = cv2.cvtColor(view.rgb, cv2.COLOR_RGB2BGR)
    return len(cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, level])[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=400, help="images of a run")
    parser.add_argument("--processes", type=int, default=2, help="worker processes")
    parser.add_argument("--width", type=int, default=160, help="pixels")
    parser.add_argument("--height", type=int, default=120, help="pixels")
    options = parser.parse_args()
    size = (options.width, options.height)
    print(f"{size[0]}x{size[1]}, {options.scenes} images, {options.processes} processes")
    for domain in Domain:
        spec = RenderSpec(options.scenes, 1, domain, size=size)
        start_wall, start_busy = measured(replace(spec, scenes=options.processes), options.processes)
        wall, busy = measured(spec, options.processes)
        images = spec.scenes - options.processes
        each = 1e3 * (busy - start_busy) / images
        print(
            f"{domain.value:6s}{spec.scenes / wall:6.1f} images/s with start-up, "
            f"{images / (wall - start_wall):6.1f} without; {each:.1f} ms of processor an image: "
            f"{1e3 * options.processes / each:.0f} images/s on {options.processes} idle cores"
        )

    cv2.setNumThreads(1)
    started = time.process_time()
    views = [sample_view((1, k), domain, size=size) for domain in Domain for k in range(20)]
    print(f"one core: render {1e3 * (time.process_time() - started) / len(views):.2f} ms an image")
    ways: dict[str, Callable[[View], int]] = {
        "PNG as written": lambda view: len(encode_png(view.rgb)),
        "PNG level 1": lambda view: png_size(view, 1),
        "PNG level 3": lambda view: png_size(view, 3),
        "PNG level 9": lambda view: png_size(view, 9),
        "NPZ stored, as written": lambda view: npz_size(view, np.savez),
        "NPZ deflated": lambda view: npz_size(view, np.savez_compressed),
    }
    for name, work in ways.items():
        milliseconds, kilobytes = processor_time(work, views)
        print(f"  {name:24s}{milliseconds:6.2f} ms {kilobytes:7.1f} kB")


if __name__ == "__main__":
    main()
