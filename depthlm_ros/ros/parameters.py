"""ROS parameters from ``config.py``: declared with description and range, changed only where that is possible."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from depthlm_ros.config import ConfigError, DepthLMConfig, flatten, from_flat, options


def declare(node: Node) -> None:
    """Declare every option of the configuration on a node, with its default.

    Raises:
        ConfigError: A value given at start does not fit, or a name is nearly that of an option.
    """
    known = dict(options())
    for name, spec in known.items():
        try:
            node.declare_parameter(name, _ros_value(spec.default), _descriptor(spec))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ConfigError(str(error)) from None
    # A parameter file may serve several nodes (/**), so only what looks like one of ours is refused.
    # rclpy has no public way to ask which overrides a node was given.
    for name in getattr(node, "_parameter_overrides", {}):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name not in known and close and not node.has_parameter(name):
            raise ConfigError(f"unknown parameter {name!r}: did you mean {close[0]!r}?")


def read(node: Node) -> DepthLMConfig:
    """The configuration that a node's parameters say.

    Raises:
        ConfigError: A value does not fit.
    """
    return from_flat({name: _plain(node.get_parameter(name).value) for name, _ in options()})


def applied(
    changes: list[Parameter], config: DepthLMConfig, *, configured: bool
) -> tuple[DepthLMConfig, SetParametersResult]:
    """Apply changes at run time to a configuration.

    Args:
        changes: What is to be set.
        config: The configuration now.
        configured: Whether the node holds an engine; then only live options change.

    Returns:
        The configuration after the change, or the old one with a result that says why it was refused.
    """
    specs = dict(options())
    flat = flatten(config)
    ours = {p.name: _plain(p.value) for p in changes if p.name in specs}
    for name, value in ours.items():
        if configured and not specs[name].metadata["live"] and value != flat[name]:
            reason = (
                f"{name} cannot change while the node is configured (it is {flat[name]!r}): clean the node up "
                "first (ros2 lifecycle set ... cleanup), or set it at start"
            )
            return config, SetParametersResult(successful=False, reason=reason)
    try:
        return from_flat(ours, config), SetParametersResult(successful=True)
    except ConfigError as error:
        return config, SetParametersResult(successful=False, reason=str(error))


def _descriptor(spec: dataclasses.Field[Any]) -> ParameterDescriptor:
    rules = spec.metadata
    unit = f" [{rules['unit']}]" if rules["unit"] else ""
    choices = f" One of: {', '.join(rules['choices'])}." if rules["choices"] else ""
    when = "" if rules["live"] else " Fixed while the node is configured."
    descriptor = ParameterDescriptor(
        name=spec.name,
        description=rules["description"] + unit + choices + when,
        # Lets 5 stand for 5.0, which people write and ROS refuses; config.py checks the type.
        dynamic_typing=isinstance(spec.default, float),
    )
    if rules["low"] is not None:
        if isinstance(spec.default, float):
            bounds = FloatingPointRange(from_value=float(rules["low"]), to_value=float(rules["high"]))
            descriptor.floating_point_range = [bounds]
        else:
            descriptor.integer_range = [
                IntegerRange(from_value=int(rules["low"]), to_value=int(rules["high"]))
            ]
    return descriptor


def _ros_value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _plain(value: Any) -> Any:
    return tuple(value) if hasattr(value, "typecode") or isinstance(value, list) else value
