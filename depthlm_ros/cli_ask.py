"""``depthlm ask``: the paper's other spatial questions about an image."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthlm_ros.cli_common import InputError, Pixel, one_line_errors, pixel_option
from depthlm_ros.cli_options import CameraOptions, ModelOptions, with_groups
from depthlm_ros.spatial.tasks import TASKS, SpatialTask

if TYPE_CHECKING:
    from depthlm_ros.spatial.request import SpatialAnswer

TASK_NAMES = ", ".join(task.value for task in SpatialTask)
_WAYS = {"auto": None, "direct": True, "derived": False}
Way = Annotated[
    str,
    typer.Option(
        help="direct: ask the model in the task's words; derived: compute from depths by geometry; auto: direct "
        "exactly if the checkpoint was trained for the task."
    ),
]


@one_line_errors
@with_groups
def ask(
    image: Annotated[Path, typer.Argument(help="The image, as the camera gave it.")],
    task: Annotated[str, typer.Option(metavar="TASK", help=f"What to ask: {TASK_NAMES}.")],
    camera: CameraOptions,
    model: ModelOptions,
    second: Annotated[
        Path | None,
        typer.Argument(metavar="[IMAGE2]", help="A later image of the same camera, for camera_motion."),
    ] = None,
    pixel: Annotated[list[Pixel] | None, pixel_option("A (rectified) source pixel; repeat for two.")] = None,
    seconds: Annotated[float | None, typer.Option(help="The given time in seconds, for speed.")] = None,
    speed: Annotated[float | None, typer.Option(help="The given speed in m/s, for time.")] = None,
    way: Way = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask a spatial question about an image.

    The exit code is 1 where there is no answer; the reason is printed.
    """
    from depthlm_ros.images import read_image
    from depthlm_ros.session import open_estimator
    from depthlm_ros.spatial.asking import ask_spatial
    from depthlm_ros.spatial.request import SpatialRequest

    request = SpatialRequest(
        named_task(task),
        tuple((p.u, p.v) for p in pixel or []),
        math.nan if seconds is None else seconds,
        math.nan if speed is None else speed,
    )
    paths = [image] if second is None else [image, second]
    if len(paths) != TASKS[request.task].images:
        raise InputError(
            f"--task {task}: expected {TASKS[request.task].images} image(s), got {len(paths)}: name exactly as many"
        )
    direct = named_way(way)
    options = model.configured()
    pictures = [read_image(path, max_megapixels=options.camera.max_megapixels) for path in paths]
    cameras = [camera.camera(options, (p.shape[1], p.shape[0])) for p in pictures]
    with open_estimator(options) as estimator:
        frames = [estimator.prepare(*pair) for pair in zip(pictures, cameras, strict=True)]
        answer = ask_spatial(estimator, frames, request, direct=direct)
    typer.echo(json.dumps(_record(answer)) if as_json else _sentence(answer))
    if math.isnan(answer.value):
        raise typer.Exit(1)


def named_task(name: str) -> SpatialTask:
    """The task that ``--task`` names.

    Raises:
        InputError: There is none of this name.
    """
    known = {task.value: task for task in SpatialTask}
    if name not in known:
        raise InputError(f"--task: expected one of {TASK_NAMES}, got {name!r}")
    return known[name]


def named_way(name: str) -> bool | None:
    """What ``--way`` means for :func:`~depthlm_ros.spatial.asking.ask_spatial`.

    Raises:
        InputError: It is none of the three words.
    """
    if name not in _WAYS:
        raise InputError(f"--way: expected one of {', '.join(_WAYS)}, got {name!r}")
    return _WAYS[name]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _record(answer: SpatialAnswer) -> dict[str, Any]:
    motion = answer.motion
    return {
        "task": answer.request.task.value,
        "value": _known(answer.value),
        "unit": answer.unit,
        "derived": answer.derived,
        "status": answer.status.name.lower(),
        "message": answer.message,
        "confidence": _known(answer.confidence),
        "sigma": _known(answer.sigma),
        "text": answer.text,
        "translation_m": None if motion is None else [_known(x) for x in motion.translation.tolist()],
        "rotation_deg": None if motion is None else [_known(x) for x in motion.rotation.tolist()],
        "matches": answer.matches,
        "inliers": answer.inliers,
        "depths": [
            {
                "pixels": depth.pixels.tolist(),
                "z_m": [_known(float(z)) for z in depth.depth],
                "sigma_m": [_known(float(s)) for s in depth.sigma],
                "confidence": [_known(float(c)) for c in depth.confidence],
            }
            for depth in answer.depths
        ],
        "model": answer.model,
    }


def _sentence(answer: SpatialAnswer) -> str:
    if math.isnan(answer.value):
        return f"no answer: {answer.message}"
    how = "derived from depths" if answer.derived else f"the model said {' '.join(answer.text.split())!r}"
    lines = [f"{answer.value:.3g} {answer.unit} ({how})"]
    if answer.motion is not None:
        x, y, z = answer.motion.translation
        turns = ", ".join(f"{angle:.1f}" for angle in answer.motion.rotation)
        lines.append(f"{x:.2f} m to the right, {y:.2f} m down, {z:.2f} m forward")
        lines.append(f"rotation vector about these axes: {turns} degrees")
    known = (("confidence", answer.confidence, ""), ("sigma", answer.sigma, f" {answer.unit}"))
    lines += [
        f"{name}: {'unknown' if math.isnan(value) else f'{value:.2g}{unit}'}" for name, value, unit in known
    ]
    return "\n".join(lines)
