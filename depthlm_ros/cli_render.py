"""``depthlm render``: procedural scenes with exact depth, as a benchmark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from depthlm_ros.cli_common import InputError, named_domain, one_line_errors


@one_line_errors
def render(
    out: Annotated[Path, typer.Option(help="Directory to write into.")],
    scenes: Annotated[int, typer.Option(min=1, help="How many scenes, each seen from one pose.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same data.")] = 0,
    domain: Annotated[str, typer.Option(help="What to draw: robot or wide.")] = "robot",
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Image size in pixels; varied video modes without it.")
    ] = None,
    fov: Annotated[
        float | None, typer.Option(help="Horizontal field of view in degrees; varied without it.")
    ] = None,
    points: Annotated[int, typer.Option(min=1, help="Labelled pixels per image.")] = 10,
    repeats: Annotated[
        int, typer.Option(min=1, help="Pictures per scene: same view, other noise, exposure and light.")
    ] = 1,
    supersample: Annotated[
        int, typer.Option(min=1, help="Rays per pixel and direction for the colours; depth stays exact.")
    ] = 1,
    dense: Annotated[
        bool, typer.Option("--dense/--no-dense", help="Write the depth of every pixel too, as NPZ.")
    ] = True,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; all usable cores without it.")
    ] = None,
) -> None:
    """Render procedural scenes with exact depth as a DepthLM benchmark, ready for `depthlm eval`.

    OUT gets DOMAIN.jsonl, rgb/*.png, dense/*.npz (z_depth and range in metres, inf for sky) and DOMAIN_sheet.png to
    look at.
    robot: camera 0.3 to 0.5 m high, near level, indoors. wide: any robot or hand-held camera, outdoors too.
    """
    from depthlm_ros.synthetic.dataset import RenderSpec, write_dataset

    drawn_from = named_domain(domain)
    try:
        spec = RenderSpec(
            scenes, seed, drawn_from, repeats=repeats, points_per_image=points, size=_size(size), fov_deg=fov,
            supersample=supersample, dense=dense,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(str(error)) from error
    before = out / f"{domain}.jsonl"
    replaced = before.exists()
    index = write_dataset(out, spec, processes=processes)
    typer.echo(str(index))
    if replaced:
        typer.echo(f"{before} existed and was replaced; pictures of other seeds stay beside it", err=True)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", text)
    if match is None:
        raise InputError(f"--size: expected WIDTHxHEIGHT such as 160x120, got {text!r}")
    return int(match[1]), int(match[2])
