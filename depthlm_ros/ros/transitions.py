"""What goes wrong in a lifecycle transition, in words: rclpy makes ERROR of an exception and drops it."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from depthlm_ros.config import ConfigError
from depthlm_ros.engines.base import EngineError
from depthlm_ros.profile import ProfileError

FORESEEN = (EngineError, ProfileError, ConfigError)
"""Their messages are written for people and say what to do; a traceback would only hide that."""

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


@dataclass(frozen=True)
class Failure:
    """What ended a transition.

    Attributes:
        transition: Its name, such as ``activate``.
        error: What was raised.
    """

    transition: str
    error: Exception


def kept(transition: Transition) -> Transition:
    """Keep the exception that leaves a transition in the node's attribute ``failure``, for ``on_error`` to tell.

    Args:
        transition: A method ``on_...`` of a lifecycle node.
    """

    @functools.wraps(transition)
    def guarded(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:
            node.failure = Failure(transition.__name__.removeprefix("on_"), error)
            raise

    return guarded


def in_words(error: BaseException) -> str:
    """One sentence: that of an error which was foreseen, else its type before its message."""
    return str(error) if isinstance(error, FORESEEN) else f"{type(error).__name__}: {error}"


def in_full(text: str, error: BaseException) -> str:
    """A sentence for the log, with the traceback of an error that was not foreseen below it."""
    if isinstance(error, FORESEEN):
        return text
    return f"{text}\n{''.join(traceback.format_exception(error))}".rstrip()
