"""``depthlm engine``: what can run here."""

from __future__ import annotations

import textwrap

import typer

from depthlm_ros.cli_common import one_line_errors
from depthlm_ros.cli_options import ModelOptions, with_groups

engine_app = typer.Typer(help="Look at the engines that run the model.", no_args_is_help=True)

_WIDTH = 110
_MARKS = {True: "ok", False: "MISSING", None: "-"}


@engine_app.callback()
def _group() -> None:
    """Look at the engines that run the model."""


@engine_app.command()
@one_line_errors
@with_groups
def check(model: ModelOptions) -> None:
    """Say for every engine what is there, what is missing and what to do; nothing is loaded.

    Exit code 0 if the configured engine can run, else 1.
    """
    from depthlm_ros.engines.check_engines import ENGINES, can_run, check_engine

    chosen = model.configured().engine
    able = {}
    for name in ENGINES:
        findings = check_engine(name, chosen)
        able[name] = can_run(findings)
        mine = " (configured)" if name == chosen.name else ""
        typer.secho(f"{name}{mine}: {'can run' if able[name] else 'cannot run'}", bold=True)
        for finding in findings:
            mark = f"  {_MARKS[finding.there]:<8}"
            lines = textwrap.wrap(
                finding.text, _WIDTH - len(mark), break_long_words=False, break_on_hyphens=False
            )
            typer.echo(mark + f"\n{' ' * len(mark)}".join(lines))
    raise typer.Exit(0 if able[chosen.name] else 1)
