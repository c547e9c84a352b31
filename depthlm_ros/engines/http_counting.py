"""How many tokens a server counts in a prompt, which tells how it rendered it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from depthlm_ros.engines.base import Prompt
from depthlm_ros.engines.http_client import HttpClient
from depthlm_ros.engines.http_dialect import Dialect, chat_request
from depthlm_ros.engines.http_errors import CallError
from depthlm_ros.engines.http_response import prompt_tokens_of

CHAT = "/v1/chat/completions"


class TokenCounter:
    """Asks one server for the lengths of prompts, with questions of one token.

    Args:
        client: The client.
        base: The server's base URL.
        model: The model's name there.
    """

    def __init__(self, client: HttpClient, base: str, model: str) -> None:
        self.client, self.url, self.model = client, base + CHAT, model

    async def count(
        self, dialect: Dialect, prompt: Prompt, uris: Sequence[str] = (), **more: Any
    ) -> int | None:
        """Tokens of a prompt; 0 where the server does not say, None where it refuses.

        Args:
            dialect: How it is asked.
            prompt: The prompt.
            uris: Data URIs of its images, in order.
            more: Further fields of the request.

        Raises:
            CallError: The server cannot be asked, or not with this key, path or model.
        """
        body = chat_request(self.model, prompt, uris, dialect, max_tokens=1) | more
        try:
            return prompt_tokens_of(await self.client.post(self.url, body)) or 0
        except CallError as error:
            # 401 and 403 speak of the key and 404 of the path or the model, not of a field.
            if error.status is None or error.retry or error.status in (401, 403, 404):
                raise
            return None
