"""An MCAP bag of serialised ROS 2 messages, as rosbag2, rviz2 and Foxglove read it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from ament_index_python.packages import get_package_share_directory
from mcap.writer import Writer

_SEPARATOR = "=" * 80


class McapBag:
    """Writes messages to one ``.mcap`` file (profile ros2, encoding cdr, schemas ros2msg)."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Args:
            path: Where to write; an existing file is replaced.
        """
        self._file = path.open("wb")
        self._writer = Writer(self._file)
        self._channels: dict[str, int] = {}

    def __enter__(self) -> McapBag:
        """Begin the bag."""
        self._writer.start(profile="ros2", library="depthlm_ros")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the index and close."""
        self._writer.finish()
        self._file.close()

    def write(self, topic: str, kind: Any, serialised: bytes, stamp_ns: int) -> None:
        """Append one message.

        Args:
            topic: Its resolved topic name.
            kind: Its message class.
            serialised: Its CDR bytes, as rclpy gives them.
            stamp_ns: When it was received, nanoseconds.
        """
        if topic not in self._channels:
            name = type_name(kind)
            schema = self._writer.register_schema(name, "ros2msg", full_definition(name).encode())
            self._channels[topic] = self._writer.register_channel(topic, "cdr", schema)
        self._writer.add_message(self._channels[topic], stamp_ns, serialised, stamp_ns)


def type_name(kind: Any) -> str:
    """The ROS name of a message class, such as ``sensor_msgs/msg/Image``."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def full_definition(name: str) -> str:
    """A message's definition followed by those of the messages in it, in the form that MCAP asks for.

    Args:
        name: ROS name, such as ``sensor_msgs/msg/Image``.

    Raises:
        FileNotFoundError: The package's ``.msg`` file is not installed.
    """
    texts: dict[str, str] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop(0)
        if current in texts:
            continue
        package, _, message = current.split("/")
        texts[current] = _definition(package, message)
        waiting += _parts(texts[current], package)
    first, *rest = texts.items()
    sections = [f"{_SEPARATOR}\nMSG: {n.replace('/msg/', '/')}\n{text}" for n, text in rest]
    return "\n".join([first[1], *sections])


def _definition(package: str, message: str) -> str:
    try:
        share = Path(get_package_share_directory(package))
    except (LookupError, OSError):
        # A virtual environment is a prefix of its own, found without sourcing anything.
        share = Path(sys.prefix) / "share" / package
    return (share / "msg" / f"{message}.msg").read_text(encoding="utf-8")


def _parts(text: str, package: str) -> list[str]:
    """Names of the messages that a definition contains."""
    parts = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) < 2 or "=" in words[1]:
            continue
        kind = words[0].split("[")[0].split("<=")[0]
        if kind[:1].isupper():
            parts.append(f"{package}/msg/{kind}")
        elif "/" in kind:
            parts.append(f"{kind.split('/')[0]}/msg/{kind.split('/')[-1]}")
    return parts
