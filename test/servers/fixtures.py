"""What the tests of the openai engine share: the checkpoint, prompts of one frame, an engine's settings."""

from __future__ import annotations

import os
from typing import Any

from depthlm_ros.engines.base import Prompt
from depthlm_ros.engines.factory import CHECKPOINTS
from depthlm_ros.engines.http_settings import ServerSettings
from depthlm_ros.engines.openai import OpenAIEngine
from depthlm_ros.profile import load_profile
from depthlm_ros.prompting import prompt_for
from depthlm_ros.synthetic import Domain, sample_view
from servers.standin import StandIn

CHECKPOINT = CHECKPOINTS / "embedded"
PROFILE = load_profile(CHECKPOINT)
REAL_URL = os.environ.get("DEPTHLM_TEST_SERVER_URL", "")
REAL_MODEL = os.environ.get("DEPTHLM_TEST_SERVER_MODEL", "")
"""A real server that serves the embedded checkpoint, and the checkpoint's name there."""


def prompts_of(count: int) -> list[Prompt]:
    """Prompts as the estimator makes them, all about one rendered view."""
    view = sample_view(3, Domain.ROBOT, focal_px=112.0).rgb
    height, width = view.shape[:2]
    places = [(8 + 17 * i % (width - 20), 8 + 23 * i % (height - 20)) for i in range(count)]
    return [prompt_for(view, x, y, PROFILE) for x, y in places]


def engine_of(*servers: StandIn | str, **changes: Any) -> OpenAIEngine:
    """An engine that asks servers, impatient so that tests are quick."""
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    quick: dict[str, Any] = {"model": "embedded", "read_timeout_s": 60.0, "recovery_s": 0.5}
    return OpenAIEngine(ServerSettings(urls, **(quick | changes)))
