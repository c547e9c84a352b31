"""The kinds of servers: what each does differently, as ``test/data/server_facts.json`` says."""

from __future__ import annotations

import json
from typing import Any

from depthlm_ros.engines.base import Answer
from servers.brain import PLACEHOLDER
from servers.standin import RefusedError, StandIn


def logprobs_of(answer: Answer, **more: Any) -> dict[str, Any]:
    """Log-probabilities as OpenAI lays them out; ``more`` is added to each token."""
    return {
        "content": [
            {"token": t.text, "logprob": t.logprob, "bytes": list(t.text.encode()), **more}
            for t in answer.tokens
        ]
    }


def error_response(words: str) -> dict[str, Any]:
    """TensorRT-LLM's ErrorResponse."""
    return {"object": "error", "message": words, "type": "BadRequestError", "param": None, "code": 400}


class TrtLlmServe(StandIn):
    """Strict about fields; the name of the model in a request is not looked at.

    The chat template gets text: the placeholders of a message's images, and then its text.

    Attributes:
        separator: What stands between them: a line break for Qwen2.5-VL in every version that was read, and nothing
            for Qwen3-VL in the newest.
        flat_errors: Whether a request that is not valid is answered with an ErrorResponse, as in older versions, and
            not with one text.
    """

    kind = "trtllm-serve"
    health = b""
    separator = "\n"
    flat_errors = False
    placeholder = f"<|vision_start|>{PLACEHOLDER}<|vision_end|>"

    def check(self, body: dict[str, Any]) -> None:
        for name in self.unknown(body):
            error = {
                "type": "extra_forbidden",
                "loc": ("body", name),
                "msg": "Extra inputs are not permitted",
            }
            self._not_valid(str([error | {"input": body[name]}]))
        if "top_logprobs" in body and not body.get("logprobs"):
            self._not_valid("logprobs must be true when using top_logprobs")

    def _not_valid(self, words: str) -> None:
        raise RefusedError(400, error_response(words) if self.flat_errors else {"error": words})

    def _flat(self, content: Any) -> str:
        if isinstance(content, str):
            return content
        images = [self.placeholder for part in content if part["type"] == "image_url"]
        text = "\n".join(part["text"] for part in content if part["type"] == "text")
        return self.separator.join([*images, text])

    def render(self, body: dict[str, Any]) -> str:
        if body.get("prompt_token_ids") is not None:
            return self.model.text_of(body["prompt_token_ids"])
        how = {
            "add_generation_prompt": body.get("add_generation_prompt", True),
            **body.get("chat_template_kwargs", {}),
        }
        try:
            messages = [m | {"content": self._flat(m["content"])} for m in body["messages"]]
            return self.model.render(messages, **how)
        except ValueError as error:
            raise RefusedError(400, error_response(str(error))) from None

    def keeps_stop(self, body: dict[str, Any]) -> bool:
        return bool(body.get("include_stop_str_in_output"))

    def extras(self, body: dict[str, Any], answer: Answer, stopped_by: str | None) -> dict[str, Any]:
        logprobs = logprobs_of(answer, top_logprobs=None) if body.get("logprobs") else None
        return {"logprobs": logprobs, "stop_reason": stopped_by, "mm_embedding_handle": None}


class Vllm(StandIn):
    """Lenient about fields; knows its model's name."""

    kind = "vllm"
    health = b""

    def check(self, body: dict[str, Any]) -> None:
        if body["model"] != self.name:
            self._refuse(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
        if body.get("continue_final_message") and body.get("add_generation_prompt", True):
            message = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
            self._refuse(400, message, "BadRequestError")

    @staticmethod
    def _refuse(status: int, message: str, kind: str) -> None:
        raise RefusedError(
            status, {"error": {"message": message, "type": kind, "param": None, "code": status}}
        )

    def render(self, body: dict[str, Any]) -> str:
        return self.model.render(
            body["messages"],
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
        )

    def keeps_stop(self, body: dict[str, Any]) -> bool:
        return bool(body.get("include_stop_str_in_output"))

    def extras(self, body: dict[str, Any], answer: Answer, stopped_by: str | None) -> dict[str, Any]:
        logprobs = logprobs_of(answer, top_logprobs=[]) if body.get("logprobs") else None
        if logprobs and stopped_by is None and answer.finish.value == "stop":
            end = {"token": "<|im_end|>", "logprob": -0.01, "bytes": list(b"<|im_end|>"), "top_logprobs": []}
            logprobs["content"].append(end)
        return {"logprobs": logprobs, "stop_reason": stopped_by, "token_ids": None}


class TransformersServe(StandIn):
    """Strict about fields, no log-probabilities, no way to give the start of an answer."""

    kind = "transformers-serve"

    def card(self) -> dict[str, Any]:
        return super().card() | {"owned_by": ""}

    def check(self, body: dict[str, Any]) -> None:
        if unknown := self.unknown(body):
            raise RefusedError(422, {"detail": f"Unexpected fields in the request: {set(unknown)}"})

    def render(self, body: dict[str, Any]) -> str:
        if body.get("chat_template_kwargs"):
            # add_generation_prompt is passed beside them: a second one, or continue_final_message, raises there.
            raise RefusedError(500, b"Internal Server Error")
        return self.model.render(body["messages"], add_generation_prompt=True)

    def keeps_stop(self, body: dict[str, Any]) -> bool:
        return True

    def extras(self, body: dict[str, Any], answer: Answer, stopped_by: str | None) -> dict[str, Any]:
        return {}

    def penalty(self, body: dict[str, Any]) -> float:
        return super().penalty(json.loads(body.get("generation_config") or "{}"))

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        # The model's generation_config decides, and the default of that is to sample.
        return super().chat({"temperature": 1.0, **body})


class TransformersServeOfDirectory(TransformersServe):
    """Started with a directory's path, which is then the only model that it answers for, and which it does not list.

    Attributes:
        has_cache: Whether there is a Hugging Face cache (empty here) to list; without one the list fails.
    """

    has_cache = True

    def respond(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            return (
                (200, {"object": "list", "data": []}) if self.has_cache else (500, b"Internal Server Error")
            )
        return super().respond(path, body)

    def check(self, body: dict[str, Any]) -> None:
        super().check(body)
        if body["model"] != self.name:
            words = f"Server is pinned to '{self.name}'; requested '{body['model']}'."
            raise RefusedError(400, {"detail": words})


class LlamaCpp(StandIn):
    """Lenient about fields; a last assistant message is continued, and stop strings are always stripped."""

    kind = "llama.cpp"

    def render(self, body: dict[str, Any]) -> str:
        *talk, last = body["messages"]
        if last["role"] != "assistant":
            return self.model.render(body["messages"], add_generation_prompt=True)
        return self.model.render(talk, add_generation_prompt=True) + last["content"]

    def keeps_stop(self, body: dict[str, Any]) -> bool:
        return False

    def extras(self, body: dict[str, Any], answer: Answer, stopped_by: str | None) -> dict[str, Any]:
        return {"logprobs": logprobs_of(answer, id=0, top_logprobs=[])} if body.get("logprobs") else {}


class EdgeLlm(StandIn):
    """Strict about fields, log-probabilities, no way to give the start of an answer."""

    kind = "tensorrt-edge-llm"
    health = {"status": "healthy"}  # noqa: RUF012 (never changed)

    def check(self, body: dict[str, Any]) -> None:
        for name in self.unknown(body):
            self._refuse("Extra inputs are not permitted", name)
        if extra := set(body.get("chat_template_kwargs", {})) - {"enable_thinking", "reasoning_effort"}:
            self._refuse(f"unsupported chat_template_kwargs: {', '.join(sorted(extra))}", None)

    @staticmethod
    def _refuse(message: str, param: str | None) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
        raise RefusedError(400, {"error": error})

    def render(self, body: dict[str, Any]) -> str:
        return self.model.render(
            body["messages"], add_generation_prompt=body.get("add_generation_prompt", True)
        )

    def keeps_stop(self, body: dict[str, Any]) -> bool:
        return False

    def extras(self, body: dict[str, Any], answer: Answer, stopped_by: str | None) -> dict[str, Any]:
        return {"logprobs": logprobs_of(answer)} if body.get("logprobs") else {}


KINDS = (TrtLlmServe, Vllm, TransformersServe, LlamaCpp, EdgeLlm)
