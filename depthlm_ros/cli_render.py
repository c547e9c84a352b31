"""``depthlm render``: procedural scenes with exact depth, as a benchmark."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthlm_ros.cli_common import InputError, named_domain, one_line_errors

if TYPE_CHECKING:
    from depthlm_ros.synthetic.dataset import RenderSpec


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

    OUT gets DOMAIN.jsonl, rgb/*.png, dense/*.npz (z_depth and range in metres, inf for sky), DOMAIN_sheet.png to
    look at, and in DOMAIN_render.json this command, which `depthlm eval` and `depthlm card` repeat.
    robot: camera 0.3 to 0.5 m high, near level, indoors. wide: any robot or hand-held camera, outdoors too.
    """
    from depthlm_ros.rendered import write_record
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
    write_record(index, _command(out, spec))
    typer.echo(str(index))
    if replaced:
        typer.echo(f"{before} existed and was replaced; pictures of other seeds stay beside it", err=True)


def _command(out: Path, spec: RenderSpec) -> str:
    """The command that gives the data of a specification; of what does not change them nothing is said."""
    size = None if spec.size is None else f"{spec.size[0]}x{spec.size[1]}"
    words: list[object] = ["--out", out, "--scenes", spec.scenes, "--seed", spec.seed]
    words += ["--domain", spec.domain.value]
    for option, value, default in (
        ("--size", size, None), ("--fov", spec.fov_deg, None), ("--points", spec.points_per_image, 10),
        ("--repeats", spec.repeats, 1), ("--supersample", spec.supersample, 1),
    ):  # fmt: skip
        words += [] if value == default else [option, value]
    words += [] if spec.dense else ["--no-dense"]
    return shlex.join(["depthlm", "render", *map(str, words)])


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", text)
    if match is None:
        raise InputError(f"--size: expected WIDTHxHEIGHT such as 160x120, got {text!r}")
    return int(match[1]), int(match[2])
