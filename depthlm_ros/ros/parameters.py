"""ROS parameters from ``config.py``: declared with description and range, changed only where that is possible."""

from __future__ import annotations

import dataclasses
import difflib
import threading
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from depthlm_ros.config import ConfigError, DepthLMConfig, flatten, from_flat, options
from depthlm_ros.config_yaml import changes


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


class NodeConfig:
    """A node's configuration: what its parameters say, and changed with them where that is possible."""

    def __init__(self, node: Node) -> None:
        """Declare the parameters, read them, and judge every change from now on.

        Args:
            node: Whose parameters they are.

        Raises:
            ConfigError: A value given at start does not fit, or a name is nearly that of an option.
        """
        declare(node)
        self._now, self._fixed, self._lock = read(node), False, threading.Lock()
        node.add_on_set_parameters_callback(self._on_change)

    @property
    def now(self) -> DepthLMConfig:
        """The configuration at this moment."""
        return self._now

    def fix(self) -> None:
        """From now on only live options change: what is made of the others would not follow."""
        with self._lock:
            self._fixed = True

    def free(self) -> None:
        """Let every option change again that is not read at start only."""
        with self._lock:
            self._fixed = False

    def _on_change(self, changed: list[Parameter]) -> SetParametersResult:
        # A transition may begin in another thread: either it sees the change, or the change is refused.
        with self._lock:
            self._now, result = applied(changed, self._now, fixed=self._fixed)
        return result


def applied(
    changed: list[Parameter], config: DepthLMConfig, *, fixed: bool
) -> tuple[DepthLMConfig, SetParametersResult]:
    """Apply changes at run time to a configuration.

    Args:
        changed: What is to be set. Not among it is what is read at start only: rclpy itself refuses to set a
            read-only parameter.
        config: The configuration now.
        fixed: Whether the node is configured, or about to be; then only live options change.

    Returns:
        The configuration after the change, or the old one with a result that says why it was refused.
    """
    specs = dict(options())
    flat = flatten(config)
    ours = {p.name: _plain(p.value) for p in changed if p.name in specs}
    for name, value in ours.items():
        if fixed and changes(specs[name]) != "live" and value != flat[name]:
            reason = (
                f"{name} cannot change while the node is configured (it is {flat[name]!r}): clean the node up "
                "first (ros2 lifecycle set ... cleanup), or set it at start"
            )
            return config, SetParametersResult(successful=False, reason=reason)
    try:
        return from_flat(ours, config), SetParametersResult(successful=True)
    except ConfigError as error:
        return config, SetParametersResult(successful=False, reason=str(error))


_WHEN = {
    "live": "Can be changed while running.",
    "configure": "Fixed while the node is configured.",
    "start": "Read at start only.",
}


def _descriptor(spec: dataclasses.Field[Any]) -> ParameterDescriptor:
    rules, when = spec.metadata, changes(spec)
    unit = f" [{rules['unit']}]" if rules["unit"] else ""
    choices = f"One of: {', '.join(rules['choices'])}. " if rules["choices"] else ""
    descriptor = ParameterDescriptor(
        name=spec.name,
        description=rules["description"] + unit,
        additional_constraints=choices + _WHEN[when],
        # Only what can never change: the others do after a cleanup, and a descriptor cannot say that.
        read_only=when == "start",
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
