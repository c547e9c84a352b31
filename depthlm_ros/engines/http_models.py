"""Which model a server has, and of what kind it is."""

from __future__ import annotations

from depthlm_ros.engines.http_client import HttpClient
from depthlm_ros.engines.http_counting import CHAT
from depthlm_ros.engines.http_errors import CallError, ReplyError
from depthlm_ros.engines.http_response import models_of

TRANSFORMERS_SERVE = "transformers serve"
_ITS_WORDS = "Unexpected fields in the request"
"""What `transformers serve` says to a field that it does not know, before it looks at the model."""


async def kind_of(client: HttpClient, base: str, model: str) -> str:
    """Who the server says it is, if it has the model.

    `transformers serve` lists only what the Hugging Face cache holds, and yet serves a directory. So a path passes
    there; that it can be asked about an image has to prove the rest.

    Args:
        client: The client.
        base: The server's base URL.
        model: The model's name there, or the path with which `transformers serve` was started.

    Raises:
        CallError: It cannot be reached, or does not have the model; the message says what to do.
    """
    is_path = model.startswith(("/", "."))
    try:
        models = models_of(await client.get(base + "/v1/models"))
    except ReplyError as error:
        raise CallError(str(error), server_failed=True) from None
    except CallError as error:
        if error.status != 500 or not is_path:
            raise
        models = {}  # so it is where that server finds no cache at all
    found = ", ".join(repr(name) for name in sorted(models)) or "none"
    if not model:
        raise CallError(f"engine.model is empty; name one of the server's models: {found}")
    if model in models:
        return models[model]
    missing = f"the server does not have the model {model!r}; it has {found}: "
    if not await _is_transformers_serve(client, base, model):
        raise CallError(missing + "set engine.model to one of them, or serve the model under that name")
    if not is_path:
        raise CallError(
            missing
            + "set engine.model to one of them. These are what the Hugging Face cache of this `transformers "
            "serve` holds; for a directory start it with the directory's path (`transformers serve "
            "/models/DepthLM-3B`), and set engine.model to the same path"
        )
    return TRANSFORMERS_SERVE


async def confirm_model(client: HttpClient, base: str, model: str, kind: str) -> None:
    """See whether a server that was got to know still has the model and is of the same kind.

    Raises:
        CallError: It cannot be reached, or is another one now.
    """
    found = await kind_of(client, base, model)
    if found != kind:
        raise CallError(
            f"another server answers there now ({found or 'unnamed'}, it was {kind or 'unnamed'})"
        )


async def _is_transformers_serve(client: HttpClient, base: str, model: str) -> bool:
    question = [{"role": "user", "content": "Name a number."}]
    try:
        await client.post(
            base + CHAT, {"model": model, "messages": question, "max_tokens": 1, "depthlm_ros": 0}
        )
    except CallError as error:
        return error.status == 422 and _ITS_WORDS in str(error)
    return False
