"""The ``depthlm`` command. Each command imports what it needs when it runs, so that help comes at once."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from depthlm_ros import __version__
from depthlm_ros.cli_ask import ask
from depthlm_ros.cli_ask_eval import ask_eval
from depthlm_ros.cli_bench import bench
from depthlm_ros.cli_calibrate import calibrate
from depthlm_ros.cli_card import card
from depthlm_ros.cli_common import InputError, PixelCommand, one_line_errors
from depthlm_ros.cli_engine import engine_app
from depthlm_ros.cli_estimate import estimate
from depthlm_ros.cli_eval import evaluate
from depthlm_ros.cli_mark import mark
from depthlm_ros.cli_render import render
from depthlm_ros.cli_study import study
from depthlm_ros.cli_train import train

app = typer.Typer(
    name="depthlm",
    help="Metric depth from vision-language models at the pixels that matter.",
    no_args_is_help=True,
    rich_markup_mode=None,  # square brackets in the help are brackets, not markup
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("estimate", cls=PixelCommand)(estimate)
app.command("mark", cls=PixelCommand)(mark)
app.command("eval")(evaluate)
app.command("calibrate")(calibrate)
app.command("train")(train)
app.command("study")(study)
app.command("card")(card)
app.command("ask", cls=PixelCommand)(ask)
app.command("ask-eval")(ask_eval)
app.command("render")(render)
app.command("bench")(bench)
app.add_typer(engine_app, name="engine")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Metric depth from vision-language models at the pixels that matter."""


@app.command()
@one_line_errors
def demo(
    out: Annotated[Path, typer.Option(help="Directory to write into.")] = Path("demo_out"),
    frames: Annotated[int | None, typer.Option(min=1, help="Answered frames to record.")] = None,
    timeout_s: Annotated[float | None, typer.Option(min=1.0, help="When to give up, in seconds.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the rendered scenes.")] = None,
) -> None:
    """Run the whole ROS graph on a rendered camera and save what it published."""
    if find_spec("rclpy") is None:
        raise InputError(
            "the demo needs ROS 2 (no rclpy here): source a ROS 2 installation, or run `make demo`, which sets one up"
        )
    from depthlm_ros.ros.demo import DemoError, run_demo

    given = {"frames": frames, "timeout_s": timeout_s, "seed": seed}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        run_demo(out, **chosen)
    except DemoError as error:
        raise InputError(str(error)) from error


@app.command()
@one_line_errors
def config(
    tables: Annotated[bool, typer.Option("--tables", help="As the tables of docs/node.md.")] = False,
) -> None:
    """Print every option with its default and meaning as a ROS parameter file."""
    from depthlm_ros.config_yaml import config_tables, config_yaml

    typer.echo(config_tables() if tables else config_yaml(), nl=False)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
