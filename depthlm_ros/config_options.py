"""How an option of the configuration is declared, and how a value is checked against its declaration."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import field
from typing import Any

_HUGE = 10**300
"""Whole numbers beyond it do not fit into a float; every range ends far below."""


class ConfigError(ValueError):
    """A configuration key or value is refused; the message says what was expected, what came, what to do."""


def option(
    default: Any,
    description: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    live: bool = False,
    at_start: bool = False,
    left_open: str = "",
) -> Any:
    """Declare one option of a configuration section.

    Args:
        default: The default, whose type is the option's type (str, int, float, bool, or a tuple of int).
        description: One sentence for people.
        unit: Unit of a number.
        choices: The allowed values of a string.
        low: The smallest allowed number.
        high: The largest allowed number.
        live: Whether an active node can change it.
        at_start: Whether it is read when the process starts and never again; others are read at ``configure``.
        left_open: Where who starts the node decides what an unset option means: what each takes. A generated file
            leaves such an option out, as a comment, since its default would decide for them.
    """
    metadata = {
        "description": description,
        "unit": unit,
        "choices": choices,
        "low": low,
        "high": high,
        "live": live,
        "at_start": at_start,
        "left_open": left_open,
    }
    return field(default=default, metadata=metadata)


class Section:
    """A section checks each of its options against the declaration when it is made; a section in it, itself."""

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            if "description" in spec.metadata:
                object.__setattr__(self, spec.name, checked(spec, getattr(self, spec.name)))


_TYPE_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def checked(spec: dataclasses.Field[Any], value: Any) -> Any:
    """Check one value against its declaration and return it in the declared type.

    Raises:
        ConfigError: Type, choice or range does not fit.
    """
    default, rules = spec.default, spec.metadata

    def refuse(expected: str) -> ConfigError:
        return ConfigError(f"{spec.name}: expected {expected}, got {value!r}")

    if isinstance(default, tuple):
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise refuse("a list of whole numbers")
        items = tuple(value)
        if not all(isinstance(x, int) and not isinstance(x, bool) for x in items):
            raise refuse("a list of whole numbers")
        return items
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(max(-_HUGE, min(value, _HUGE)))
    if type(value) is not type(default):
        raise refuse(_TYPE_NAMES[type(default)])
    if rules["choices"] and value not in rules["choices"]:
        raise refuse(f"one of {', '.join(rules['choices'])}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = rules["low"], rules["high"]
        if (
            (isinstance(value, float) and not math.isfinite(value))
            or (low is not None and value < low)
            or (high is not None and value > high)
        ):
            raise refuse(f"a number from {low} to {high}")
    return value
