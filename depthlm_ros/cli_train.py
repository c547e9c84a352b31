"""``depthlm train``: one YAML file per run; its ``recipe`` says what is trained and how."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from depthlm_ros.cli_common import InputError, one_line_errors

_NEEDED = {
    "sft": ("accelerate", "peft", "matplotlib"),
    "grpo": ("accelerate", "peft", "matplotlib", "trl", "datasets"),
}


@one_line_errors
def train(
    config: Annotated[
        Path, typer.Argument(help="The recipe: a YAML file with recipe: embedded, sft or grpo.")
    ],
    run: Annotated[
        Path | None, typer.Option(help="Directory of states, metrics and the export. [default: runs/NAME]")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any option; repeatable.")
    ] = None,
    views: Annotated[
        Path | None, typer.Option(help="Directory of rendered views (recipe embedded). [default: RUN/views]")
    ] = None,
) -> None:
    """Train or fine-tune a checkpoint; an interrupted run with the same options goes on by itself.

    RUN gets metrics.jsonl, curve.png and at the end export, a checkpoint for `depthlm eval --checkpoint`. On several
    GPUs: accelerate launch --config_file config/accelerate_fsdp.yaml -m depthlm_ros.cli train CONFIG
    """
    from depthlm_ros.training.finetune.config import SftConfig, load_recipe, recipe_of
    from depthlm_ros.training.finetune.options import read_yaml, with_settings

    recipe = recipe_of(with_settings(read_yaml(config), settings or []), str(config))
    directory = run if run is not None else Path("runs") / config.stem
    if recipe == "embedded":
        if settings:
            raise InputError(
                "--set is for the recipes sft and grpo; write the option into the file of an embedded run"
            )
        from depthlm_ros.training import embedded
        from depthlm_ros.training.config import TrainingConfigError

        try:
            typer.echo(str(embedded.train(config, directory, views, None)))
        except TrainingConfigError as error:
            raise InputError(str(error)) from error
        return
    if views is not None:
        raise InputError(
            f"--views is for recipe embedded; this is {recipe}, which reads the sets of its data section"
        )
    missing = [name for name in _NEEDED[recipe] if find_spec(name) is None]
    if missing:
        raise InputError(
            f"recipe {recipe} needs {', '.join(missing)}: pip install 'depthlm_ros[train]', or make setup"
        )
    options = load_recipe(config, settings or [])
    if isinstance(options, SftConfig):
        from depthlm_ros.training.finetune.sft import train_sft

        export = train_sft(options, directory)
    else:
        from depthlm_ros.training.finetune.grpo import train_grpo

        export = train_grpo(options, directory)
    from depthlm_ros.training.distributed import leave

    leave()
    typer.echo(str(export))
