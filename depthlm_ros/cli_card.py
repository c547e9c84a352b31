"""``depthlm card``: a model card from what ``depthlm eval`` measured and how the checkpoint was trained."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from depthlm_ros.cli_common import Checkpoint, InputError, Profile, build_config, one_line_errors

_EMBEDDED_LICENCE = "Apache-2.0, as this package."
_UNKNOWN_LICENCE = "Not stated here: read the terms of the checkpoint's publisher."


@one_line_errors
def card(
    runs: Annotated[
        list[Path], typer.Argument(help="Directories that `depthlm eval` wrote, of one checkpoint.")
    ],
    out: Annotated[Path, typer.Option(help="Markdown file to write.")],
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights; known for the embedded checkpoint.")
    ] = None,
    checkpoint: Checkpoint = None,
    profile: Profile = None,
) -> None:
    """Write a model card: use, numbers with their intervals and commands, training, limits, licence.

    Every number comes from the RUNS' metrics.json and from the checkpoint's depthlm.json and training.json.
    """
    from depthlm_ros.config import EMBEDDED
    from depthlm_ros.engines.factory import resolve_checkpoint
    from depthlm_ros.evaluation.card import model_card, read_run
    from depthlm_ros.profile import load_profile

    config = build_config(None, None, {"engine.checkpoint": checkpoint, "engine.profile": profile})
    folder = resolve_checkpoint(config.engine)
    record = folder / "training.json"
    try:
        training = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
    except ValueError as error:
        raise InputError(f"{record} cannot be read as JSON: {error}") from error
    own = _EMBEDDED_LICENCE if config.engine.checkpoint == EMBEDDED else _UNKNOWN_LICENCE
    words = ["depthlm", "card", *map(str, runs), "--out", str(out)]
    for name, value in (("--licence", licence), ("--checkpoint", checkpoint), ("--profile", profile)):
        words += [] if value is None else [name, value]
    text = model_card(
        [read_run(run) for run in runs],
        load_profile(folder, config.engine.profile),
        training,
        licence or own,
        shlex.join(words),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    typer.echo(str(out))
