"""``depthlm card``: a model card from what ``depthlm eval`` measured and how the checkpoint was made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from depthlm_ros.cli_common import Checkpoint, Profile, build_config, one_line_errors


@one_line_errors
def card(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Directories that `depthlm eval` or `ask-eval` wrote, of one checkpoint."),
    ],
    out: Annotated[list[Path], typer.Option(help="Markdown file to write; repeatable.")],
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights; known for the embedded checkpoint.")
    ] = None,
    checkpoint: Checkpoint = None,
    profile: Profile = None,
) -> None:
    """Write a model card: what it is, how to ask it, numbers with intervals and commands, how it was made.

    Every number comes from the RUNS' metrics.json and spatial.json and from the checkpoint's own files. Runs of other
    weights or of another depthlm.json than the checkpoint's are refused. The card of the embedded checkpoint is its
    README.md.
    """
    from depthlm_ros.engines.factory import resolve_checkpoint
    from depthlm_ros.evaluation.card import model_card
    from depthlm_ros.evaluation.card_files import read_checkpoint, read_run
    from depthlm_ros.evaluation.provenance import command_line

    config = build_config(None, None, {"engine.checkpoint": checkpoint, "engine.profile": profile})
    read = [read_run(run) for run in runs]
    given: list[tuple[str, object]] = [
        *(("--out", path) for path in out),
        ("--licence", licence),
        ("--checkpoint", checkpoint),
        ("--profile", profile),
    ]
    text = model_card(
        [depth for depth, _ in read if depth is not None],
        [spatial for _, spatial in read if spatial is not None],
        read_checkpoint(resolve_checkpoint(config.engine), config.engine.profile),
        licence,
        command_line(["depthlm", "card", *runs], given),
    )
    for path in out:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        typer.echo(str(path))
