"""What the commands share: pixels as options, options that come from the configuration, errors as one line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, ParamSpec, TypeVar

import typer
import yaml
from typer.core import TyperCommand

from depthlm_ros.config import ConfigError, DepthLMConfig, from_flat, options
from depthlm_ros.config_yaml import describe, load_config
from depthlm_ros.files import with_path

if TYPE_CHECKING:
    from depthlm_ros.synthetic.cameras import Domain

P = ParamSpec("P")
R = TypeVar("R")

_SPECS = dict(options())
_WHOLE = re.compile(r"[+-]?[0-9]+")
_FARTHEST = 2**31 - 1


class InputError(ValueError):
    """The command line as a whole makes no sense; the message says what to do."""


class Pixel(NamedTuple):
    """A source pixel: u to the right, v down, the centre of the top-left one is (0, 0)."""

    u: int
    v: int


def parse_pixel(text: str | Pixel) -> Pixel:
    """Read ``U,V``, which is what :class:`PixelCommand` makes of ``U V``."""
    if isinstance(text, Pixel):
        return text
    parts = text.split(",")
    if len(parts) != 2 or not all(_WHOLE.fullmatch(part) for part in parts):
        raise typer.BadParameter(f"expected two whole numbers U V, got {text!r}")
    pixel = Pixel(int(parts[0]), int(parts[1]))
    if max(abs(pixel.u), abs(pixel.v)) > _FARTHEST:
        raise typer.BadParameter(f"{text} lies outside of any image")
    return pixel


class PixelCommand(TyperCommand):
    """A command whose ``--pixel U V`` takes two values and can be repeated.

    typer knows options with two values and options that repeat, but none with both: the two are joined.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the values of each ``--pixel`` before typer sees them."""
        joined: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            if word == "--pixel" and len(rest) >= 2 and all(_WHOLE.fullmatch(x) for x in rest[:2]):
                word = f"--pixel={rest.pop(0)},{rest.pop(0)}"
            joined.append(word)
        return list(super().parse_args(ctx, joined))


def pixel_option(text: str) -> Any:
    """The repeatable option ``--pixel U V`` of a :class:`PixelCommand`."""
    return typer.Option("--pixel", metavar="U V", parser=parse_pixel, help=text)


def option_of(name: str, flag: str) -> Any:
    """A command-line option that stands for an option of the configuration.

    Its own default is "not given", so that the configuration file and config.py decide; the help is theirs.

    Args:
        name: Dotted name in the configuration.
        flag: What it is called on the command line.
    """
    spec = _SPECS[name]
    return typer.Option(flag, help=f"{describe(spec)} [default: {spec.default!r}]", show_default=False)


Checkpoint = Annotated[str | None, option_of("engine.checkpoint", "--checkpoint")]
Profile = Annotated[str | None, option_of("engine.profile", "--profile")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file of options; see `depthlm config`.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any option; repeatable.")
]


def build_config(config: Path | None, settings: list[str] | None, given: dict[str, Any]) -> DepthLMConfig:
    """The configuration of a command: defaults, then the file, then ``--set``, then its own options.

    Args:
        config: A YAML file, or None.
        settings: ``section.key=value`` each.
        given: {dotted name: value}; those that are None were not given.

    Raises:
        ConfigError: Something is unknown or does not fit; the message names it.
    """
    base = load_config(config) if config is not None else None
    flat = dict(_setting(text) for text in settings or [])
    flat.update({name: value for name, value in given.items() if value is not None})
    return from_flat(flat, base)


def named_domain(name: str) -> Domain:
    """The domain that ``--domain`` names.

    Raises:
        InputError: There is none of this name.
    """
    from depthlm_ros.synthetic.cameras import Domain

    names = [known.value for known in Domain]
    if name not in names:
        raise InputError(f"--domain: expected one of {', '.join(names)}, got {name!r}")
    return Domain(name)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected section.key=value")
    default = _SPECS[name].default if name in _SPECS else ""
    if isinstance(default, str):
        return name, value
    if isinstance(default, tuple):
        value = f"[{value.strip('[]()')}]"
    try:
        # YAML takes 1e-3 for text; a number it is where a number is wanted.
        return name, float(value) if isinstance(default, float) else yaml.safe_load(value)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--set {text}: {value!r} is not a {type(default).__name__}") from error


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Let a command end with one clear line on stderr and exit code 2 where the package refuses something."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except _expected_errors() as error:
            said = with_path(error) if isinstance(error, OSError) else str(error)
            text = " ".join(said.split()) or type(error).__name__
            typer.secho(f"depthlm: {text}", fg=typer.colors.RED, err=True)
            raise typer.Exit(2) from error

    return wrapped


def _expected_errors() -> tuple[type[Exception], ...]:
    """What the package refuses with. Imported only once something went wrong: `--help` must stay quick."""
    from depthlm_ros.camera import CameraError
    from depthlm_ros.canonical import CanonicalError
    from depthlm_ros.engines.base import EngineError
    from depthlm_ros.evaluation.benchmark import BenchmarkError
    from depthlm_ros.images import ImageError
    from depthlm_ros.profile import ProfileError
    from depthlm_ros.spatial.request import SpatialRequestError

    refusals = (BenchmarkError, CameraError, CanonicalError, ConfigError, EngineError, ImageError, InputError)
    return (*refusals, ProfileError, SpatialRequestError, OSError)
