"""``depthlm mark``: what the model would see, as files, without any model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from depthlm_ros.cli_common import (
    ConfigFile,
    InputError,
    Pixel,
    Settings,
    build_config,
    one_line_errors,
    pixel_option,
)


@one_line_errors
def mark(
    image: Annotated[Path, typer.Argument(help="The (rectified) image.")],
    fx: Annotated[float, typer.Option(help="Focal length along u in pixels; 0 takes that of --fy.")],
    fy: Annotated[float, typer.Option(help="Focal length along v in pixels; 0 takes that of --fx.")],
    focal: Annotated[float, typer.Option(help="The checkpoint's canonical focal length in pixels.")],
    out: Annotated[Path, typer.Option(help="Directory to write into.")],
    pixel: Annotated[list[Pixel] | None, pixel_option("A source pixel; repeat for more.")] = None,
    cx: Annotated[
        float | None, typer.Option(help="Principal point's column; marking does not need it.")
    ] = None,
    cy: Annotated[float | None, typer.Option(help="Principal point's row; marking does not need it.")] = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Write the marked canonical view of each pixel: exactly what the model would see.

    OUT gets one PNG per drawable pixel and mark.json: canonical_size [width, height]; queries, one per --pixel in
    order, each with pixel [u, v], drawable, marker_xy [x, y] in the view, file (relative to OUT) and reason: the two
    before are null where the arrow cannot be drawn, the reason where it can.
    """
    from depthlm_ros.canonical import CanonicalView
    from depthlm_ros.images import read_image

    if not pixel:
        raise InputError("name at least one --pixel U V")
    if not 0.0 < focal < math.inf:
        raise InputError(f"--focal: expected the canonical focal length in pixels, above 0, got {focal}")
    limit = build_config(config, settings, {}).camera.max_megapixels
    source = read_image(image, max_megapixels=limit)
    view = CanonicalView(source, fx, fy, focal, max_pixels=limit * 1e6)
    out.mkdir(parents=True, exist_ok=True)
    queries = [_write_query(view, query, index, out) for index, query in enumerate(pixel)]
    record = {"canonical_size": list(view.size), "queries": queries}
    (out / "mark.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    drawn = sum(query["drawable"] for query in queries)
    for query in queries:
        if query["reason"] is not None:
            typer.echo(f"undrawable: {query['reason']}")
    typer.echo(f"{out / 'mark.json'}: {drawn} of {len(queries)} pixels can be marked, view {view.size}")


def _write_query(view: Any, pixel: Pixel, index: int, out: Path) -> dict[str, Any]:
    from PIL import Image

    from depthlm_ros.engines.base import PromptImage
    from depthlm_ros.prompting import drawable, marker_paint, why_undrawable

    inside = 0 <= pixel.u < view.source_size[0] and 0 <= pixel.v < view.source_size[1]
    x, y = (int(value) for value in view.to_canonical(pixel))
    record = {"pixel": list(pixel), "drawable": False, "marker_xy": None, "file": None}
    if not (inside and drawable((x, y), view.size)):
        return {**record, "reason": why_undrawable(pixel, view.source_size, visible=inside)}
    name = f"mark_{index:04d}_{pixel.u}_{pixel.v}.png"
    Image.fromarray(PromptImage(view.image, marker_paint(x, y)).pixels()).save(out / name, compress_level=1)
    return {**record, "drawable": True, "marker_xy": [x, y], "file": name, "reason": None}
