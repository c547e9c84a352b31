"""From a YAML file to a recipe: nested frozen dataclasses whose every value is checked where it is declared."""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from depthlm_ros.config_options import ConfigError
from depthlm_ros.files import what_came


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: The file cannot be read or holds no mapping.
    """
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: expected a recipe as YAML, but {what_came(error)}") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: expected a mapping of options, got {type(record).__name__}")
    return record


def with_settings(record: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Put ``key=value`` settings over a mapping.

    Args:
        record: The mapping, which is left as it is.
        settings: Each a dotted name, ``=`` and a YAML value; a number in the name counts the entries of a list from
            0: ``optimiser.learning_rate=1e-5``, ``data.0.weight=2``.

    Raises:
        ConfigError: A setting has no ``=`` or leads to no place in the mapping.
    """
    result = copy.deepcopy(record)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: expected key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: {text!r} is not a YAML value: {error}") from error
        _put(result, name.split("."), value, setting)
    return result


def _put(place: Any, names: list[str], value: Any, setting: str) -> None:
    *path, last = names
    for name in path:
        place = place[_index(place, name, setting)] if isinstance(place, list) else place.setdefault(name, {})
        if not isinstance(place, dict | list):
            raise ConfigError(f"--set {setting}: {name!r} is a value, not a section")
    if isinstance(place, list):
        place[_index(place, last, setting)] = value
    else:
        place[last] = value


def _index(place: list[Any], name: str, setting: str) -> int:
    if not name.isdigit() or int(name) >= len(place):
        raise ConfigError(f"--set {setting}: expected a number below {len(place)} in place of {name!r}")
    return int(name)


def build(kind: Any, record: Any, where: str) -> Any:
    """Build a section from a mapping.

    Args:
        kind: The dataclass: options, sections, and tuples of sections.
        record: The mapping.
        where: Named in messages.

    Raises:
        ConfigError: A key is unknown, or a value does not fit; the message names it.
    """
    if not isinstance(record, dict):
        raise ConfigError(f"{where}: expected a mapping, got {record!r}")
    specs = {spec.name: spec for spec in dataclasses.fields(kind)}
    unknown = sorted(str(name) for name in set(record) - set(specs))
    if unknown:
        raise ConfigError(f"{where}: unknown keys {unknown}; the known ones are {list(specs)}")
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in record.items():
        here, hint = f"{where}: {name}", hints[name]
        if dataclasses.is_dataclass(hint):
            values[name] = build(hint, value, here)
        elif "description" not in specs[name].metadata:
            if not isinstance(value, list):
                raise ConfigError(f"{here}: expected a list, got {value!r}")
            entry = typing.get_args(hint)[0]
            values[name] = tuple(build(entry, item, f"{here}.{i}") for i, item in enumerate(value))
        else:
            values[name] = _number(value) if isinstance(specs[name].default, float) else value
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _number(value: Any) -> Any:
    """YAML takes 1e-5 for text; a number it is where a number is wanted."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
