"""A small HTTP server on loopback that keeps the manners of a real one; each real server is a subclass."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from depthlm_ros.engines.base import Answer, Finish
from servers.brain import EmbeddedModel

FACTS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "server_facts.json").read_text(encoding="utf-8")
)
CHAT = "/v1/chat/completions"
OWN_PENALTY = 2.0
"""The repetition penalty of the served checkpoint's generation_config.json: stronger than the 1.05 of Qwen2.5-VL,
so that every number that has a digit twice shows it."""
Fault = Callable[["Handler"], bool]
"""Called before a request is answered; True says that it has dealt with it."""


class RefusedError(Exception):
    """A request that the real server answers with an error."""

    def __init__(self, status: int, payload: Any) -> None:
        super().__init__(str(payload))
        self.status, self.payload = status, payload


@dataclass
class Exchange:
    """One request as it came, and whether the client waited for the answer."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    """Reads a request and asks the stand-in for the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait for the client's ACK
    server: _Listener

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any]) -> None:
        standin = self.server.standin
        self.body = body
        standin.exchanges.append(Exchange(self.path, body, dict(self.headers)))
        try:
            if standin.fault is not None and standin.fault(self):
                return
            status, payload = standin.respond(self.path, body)
            self.send_json(status, payload)
        except (BrokenPipeError, ConnectionResetError):
            standin.deserted += 1
            self.close_connection = True

    def send_json(self, status: int, payload: Any, headers: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    standin: StandIn

    def process_request(self, request: Any, client_address: Any) -> None:
        self.standin.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, *_: Any) -> None:
        """A client that goes away, or a killed server, is part of the tests."""


class StandIn:
    """Stands in for one kind of server; a context manager that listens on a free port of loopback.

    Attributes:
        exchanges: Every request so far.
        fault: Deals with requests in place of the server, or None.
        deserted: Answers that nobody waited for any more.
    """

    kind = ""
    health: Any = {"status": "ok"}  # noqa: RUF012 (never changed)

    def __init__(self, model: EmbeddedModel, name: str = "embedded") -> None:
        self.model, self.name = model, name
        self.facts = FACTS[self.kind]
        self.exchanges: list[Exchange] = []
        self.fault: Fault | None = None
        self.deserted = 0
        self.port = 0
        self.connections: list[socket.socket] = []

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def chats(self) -> list[dict[str, Any]]:
        """Bodies of the chat requests so far."""
        return [e.body for e in self.exchanges if e.path == CHAT]

    def start(self) -> None:
        """Listen; on the same port again after :meth:`kill`."""
        self._listener = _Listener(("127.0.0.1", self.port), Handler)
        self._listener.standin = self
        self.wrap(self._listener)
        self.port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()

    def wrap(self, listener: ThreadingHTTPServer) -> None:
        """Change the listening socket before it is used."""

    def kill(self) -> None:
        """Stop listening and break every connection, as the end of a process does."""
        self._listener.shutdown()
        self._listener.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def respond(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and JSON of a request."""
        try:
            if path == "/health":
                return 200, self.health
            if path == "/v1/models":
                return 200, {"object": "list", "data": [self.card()]}
            if path == CHAT:
                return 200, self.chat(body)
            return 404, {"detail": "Not Found"}
        except RefusedError as refusal:
            return refusal.status, refusal.payload

    def card(self) -> dict[str, Any]:
        """The model's entry in /v1/models."""
        return {"id": self.name, "object": "model", "created": 0, "owned_by": self.facts["owned_by"]}

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a chat request."""
        self.check(body)
        rendered = self.render(body)
        default = self.facts["default_temperature"]
        temperature = body.get("temperature")
        stop = body.get("stop") or []
        answer = self.model.decode(
            body["messages"],
            rendered,
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens") or 256,
            stop=[stop] if isinstance(stop, str) else stop,
            temperature=temperature if temperature is not None else default,
            penalty=self.penalty(body),
        )
        stopped_by = next((s for s in stop if s in answer.text), None)
        text = answer.text
        if stopped_by is not None and not self.keeps_stop(body):
            text = text[: text.index(stopped_by)]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "length" if answer.finish is Finish.LENGTH else "stop",
        }
        prompt, decoded = self.prompt_tokens(body, rendered), len(answer.tokens)
        usage = {"prompt_tokens": prompt, "completion_tokens": decoded, "total_tokens": prompt + decoded}
        reply = {"object": "chat.completion", "created": int(time.time()), "model": self.name}
        return {
            "id": "chatcmpl-1",
            **reply,
            "choices": [choice | self.extras(body, answer, stopped_by)],
            "usage": usage,
        }

    def penalty(self, body: dict[str, Any]) -> float:
        """The repetition penalty that decoding applies: the request's, or what the real server takes without one."""
        facts = self.facts["repetition_penalty"]
        said = body.get(facts["field"])
        if said is None:
            said = OWN_PENALTY if facts["default"] == "the server's own" else facts["default"]
        return float(said)

    def check(self, body: dict[str, Any]) -> None:
        """Refuse what the real server refuses.

        Raises:
            RefusedError: It would.
        """

    def unknown(self, body: dict[str, Any]) -> list[str]:
        """Fields that the real server does not know."""
        return [name for name in body if name not in self.facts["request_fields"]]

    def prompt_tokens(self, body: dict[str, Any], rendered: str) -> int:
        """The length of the prompt in tokens."""
        return self.model.count(rendered)

    def render(self, body: dict[str, Any]) -> str:
        """The prompt as the real server renders it."""
        raise NotImplementedError

    def keeps_stop(self, body: dict[str, Any]) -> bool:
        """Whether the stop string stays in the text."""
        raise NotImplementedError

    def extras(self, body: dict[str, Any], answer: Answer, stopped_by: str | None) -> dict[str, Any]:
        """What the real server adds to a choice."""
        raise NotImplementedError
