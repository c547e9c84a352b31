"""``depthlm estimate``: metric depth at pixels of one image, into files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthlm_ros.cli_common import InputError, Pixel, one_line_errors, pixel_option
from depthlm_ros.cli_options import CameraOptions, ModelOptions, with_groups
from depthlm_ros.config import DepthLMConfig

if TYPE_CHECKING:
    from depthlm_ros.geometry import SparseDepth

_ROWS_SHOWN = 40
_REASONS_SHOWN = 5


@one_line_errors
@with_groups
def estimate(
    image: Annotated[Path, typer.Argument(help="The image, as the camera gave it.")],
    out: Annotated[Path, typer.Option(help="Directory to write into.")],
    camera: CameraOptions,
    model: ModelOptions,
    pixel: Annotated[list[Pixel] | None, pixel_option("A (rectified) source pixel; repeat for more.")] = None,
    grid: Annotated[
        str | None, typer.Option(metavar="CxR", help="Ask a regular grid of so many columns x rows.")
    ] = None,
    rectified: Annotated[
        bool | None,
        typer.Option(
            "--rectified/--raw", help="What the image is; see camera.image_kind.", show_default=False
        ),
    ] = None,
) -> None:
    """Estimate metric depth at pixels of an image.

    Asks the pixels named, else the grid, else what the configuration's sampling says. OUT gets sparse.csv,
    cloud.ply (answered points) and overlay.png.
    """
    kind = None if rectified is None else "rectified" if rectified else "raw"
    columns, rows = _grid(grid)
    if grid is not None and pixel:
        raise InputError("name either --pixel or --grid, not both")
    options = model.configured(
        {
            "camera.image_kind": kind,
            "sampling.method": None if grid is None else "grid",
            "sampling.columns": columns,
            "sampling.rows": rows,
        }
    )
    _run(image, out, options, camera, pixel)


def _run(
    image_path: Path,
    out: Path,
    config: DepthLMConfig,
    calibration: CameraOptions,
    pixels: list[Pixel] | None,
) -> None:
    # Heavy libraries are imported here, so that `depthlm --help` does not wait for them.
    from PIL import Image

    from depthlm_ros.images import read_image
    from depthlm_ros.overlay import draw_overlay
    from depthlm_ros.session import open_estimator
    from depthlm_ros.writers import write_csv, write_ply

    image = read_image(image_path, max_megapixels=config.camera.max_megapixels)
    camera = calibration.camera(config, (image.shape[1], image.shape[0]))
    out.mkdir(parents=True, exist_ok=True)
    with open_estimator(config) as estimator:
        frame = estimator.prepare(image, camera)
        sparse = estimator.ask(frame, pixels or estimator.sample(frame, config.sampling))
    write_csv(sparse, out / "sparse.csv")
    points = write_ply(sparse, out / "cloud.ply")
    Image.fromarray(draw_overlay(frame.source, sparse)).save(out / "overlay.png")
    _print(sparse, out, points)


def _grid(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    match = re.fullmatch(r"([0-9]+)[xX]([0-9]+)", text)
    if match is None:
        raise InputError(f"--grid: expected COLUMNSxROWS such as 12x8, got {text!r}")
    return int(match[1]), int(match[2])


def _print(sparse: SparseDepth, out: Path, points: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from depthlm_ros.writers import CSV_COLUMNS, measured_columns

    console = Console()
    table = Table(title=escape(sparse.model))
    for name in CSV_COLUMNS:
        table.add_column(name, justify="left" if name == "status" else "right")
    for index, (u, v) in enumerate(sparse.pixels[:_ROWS_SHOWN].tolist()):
        z, sigma, confidence, status = measured_columns(sparse, index)
        table.add_row(str(u), str(v), z, sigma, confidence, status)
    console.print(table)
    if len(sparse.pixels) > _ROWS_SHOWN:
        console.print(f"... and {len(sparse.pixels) - _ROWS_SHOWN} more in sparse.csv")
    reasons = ", ".join(f"{name} {count}" for name, count in sparse.reasons().items())
    cloud = f"cloud.ply ({points} points)" if points else "no cloud.ply, because nothing was answered"
    console.print(f"{len(sparse.pixels)} pixels asked: {reasons or 'none'}", highlight=False)
    for line in _undrawable(sparse):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{out}: sparse.csv, overlay.png, {cloud}", highlight=False, markup=False, soft_wrap=True)


def _undrawable(sparse: SparseDepth) -> list[str]:
    from depthlm_ros.answers import AnswerStatus
    from depthlm_ros.prompting import why_undrawable

    bad = sparse.pixels[sparse.status == AnswerStatus.UNDRAWABLE]
    size = (sparse.camera.width, sparse.camera.height)
    shown = [(u, v) for u, v in bad[:_REASONS_SHOWN].tolist()]
    lines = [f"undrawable: {why_undrawable(p, size, bool(sparse.camera.visible(p)))}" for p in shown]
    return lines + ([f"... and {len(bad) - len(shown)} more"] if len(bad) > len(shown) else [])
