"""Anthropic's Messages API: messages, their streams, and the count of a request's tokens.

The model's name is in the body. A request's limit, `max_tokens`, is required. Usage is reported by
every reply and stream, in all its kinds, so nothing is asked for and nothing is removed.

Features of a reply: whether it finished by itself, and its length as log(1 + characters) / 10 (at
most 1).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from tollway.backends import openai_errors, usage_headers
from tollway.backends.documents import (
    EVENT_STREAM,
    check_coding,
    media_type,
    reply_document,
    shown,
    unchecked,
    whole_document,
)
from tollway.backends.errors import BadRequest, InvalidAnswer, ReportedError, ReportedFailure
from tollway.backends.json_members import NO_EDITS, Edits, quoted, repeated
from tollway.backends.json_path import compile_path
from tollway.backends.needs import Needs
from tollway.backends.output import Output
from tollway.backends.ports import FAILOVER_STATUSES, KeepsNothing, StreamReader
from tollway.backends.protocols.anthropic import bounds, needs, stream
from tollway.backends.protocols.openai import usage
from tollway.backends.protocols.openai.needs import outgrown
from tollway.backends.types import (
    UNBOUND,
    Addition,
    Call,
    Endpoint,
    Headers,
    HttpReply,
    ModelAnswer,
    Payload,
    Prompt,
    Usage,
)

_COUNT = Endpoint(name="count_tokens", is_free=True)
_READ = Endpoint(name="reads", is_free=True)
_DECIDES_MONEY = quoted(
    (
        *("model", "max_tokens", "messages", "system", "tools", "stream", "thinking"),
        *("service_tier", "speed", "inference_geo", "cache_control", "container"),
    )
)
"""Members that select the model and its price, or bound what a call can cost."""
_FINISHED = frozenset(("end_turn", "stop_sequence", "tool_use"))
_REFUSED = "refusal"
_ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The type of an error by its status; of others, `invalid_request_error` below 500, `api_error`
above.
"""


class Anthropic(KeepsNothing):
    """The protocol. The answer is the text of a message, or its tool calls.

    `answer` is a path into the reply where the answer is something else; as for `openai`, a stream
    then has none. Raises ValueError for an invalid path.
    """

    name = "anthropic"
    failover_statuses = FAILOVER_STATUSES
    statuses: Mapping[int, int] = {503: 529}
    query_credentials: Mapping[bytes, bytes] = {}
    # The others name an account: a workspace, an organization, a user who pays.
    withholds: re.Pattern[bytes] | None = re.compile(rb"anthropic-(?!beta$|version$)")

    def __init__(self, answer: str | None = None) -> None:
        self._answer = compile_path(answer) if answer is not None else None
        self._is_text = answer is None or answer.rpartition(".")[2] == "text"

    def paths(self, path: str) -> tuple[str, ...]:
        """Return the path at which the tokens of a message are counted."""
        return () if path.endswith("*") else (f"{path}/count_tokens",)

    def text(self, call: Call) -> bytes:
        """Return the JSON text of a request: its body."""
        return call.body

    def parse(self, call: Call) -> Payload:
        """Read a request; what only a model can check is left to the model."""
        if not call.body and call.method in (b"GET", b"HEAD"):
            return Payload(endpoint=_READ)
        check_coding(call.headers)
        document = whole_document(call)
        if not isinstance(document, dict):
            raise BadRequest(f"the document must be an object, not {shown(document)}")
        if not isinstance(document.get("model"), str):
            raise BadRequest(f"model: {shown(document.get('model'))} must be a string")
        messages = document.get("messages")
        if not isinstance(messages, list) or not messages:
            raise BadRequest(f"messages: {shown(messages)} must be a list of messages")
        if name := repeated(unchecked(call), document, _DECIDES_MONEY):
            raise BadRequest(f"{name}: is there more than once")
        if call.target.partition(b"?")[0].endswith(b"/count_tokens"):
            return Payload(document, endpoint=_COUNT, once=_DECIDES_MONEY)
        if document.get("max_tokens") is None:
            raise BadRequest("max_tokens: Field required")
        return Payload(document, once=_DECIDES_MONEY)

    def readdress(
        self, call: Call, base: bytes, model: str | None, payload: Payload
    ) -> tuple[bytes, Edits]:
        """Return (target, edits), with the backend's name of the model in the body.

        A base that ends with `/v1`, as these servers' addresses are often written, is not doubled.
        """
        if base.endswith(b"/v1") and call.target.startswith(b"/v1/"):
            base = base[:-3]
        document = payload.data
        is_renamed = isinstance(document, dict) and model not in (None, document["model"])
        return base + call.target, {"model": model} if is_renamed else NO_EDITS

    def bound(self, call: Call, payload: Payload) -> Usage:
        """Return the maximum that a call can use; 0 where the request does not bound it."""
        document = payload.data
        return bounds.usage(document, call.body) if isinstance(document, dict) else UNBOUND

    def output(self, call: Call, payload: Payload) -> Output | None:
        """Return a request's limit on its answer."""
        document = payload.data
        return bounds.output(document, call.body) if isinstance(document, dict) else None

    def follow(self, payload: Payload) -> StreamReader | None:
        """Return a reader of the stream that a request asks for."""
        document = payload.data
        if not isinstance(document, dict) or document.get("stream") is not True:
            return None
        return MessageStream(is_text=self._is_text)

    def streams(self, payload: Payload) -> bool:
        """Return whether a request asks for a stream, or for a file."""
        return self.follow(payload) is not None

    def added(self, payload: Payload) -> tuple[Addition, ...]:
        """Return nothing: the gateway adds no fields."""
        return ()

    def needs(self, call: Call, payload: Payload, room: float) -> Needs:
        """Return the features that a request needs, and its tokens if they might exceed `room`."""
        return needs.needs(payload.data, call.body, room)

    def outgrown(self, refusal: bytes) -> bool:
        """Whether the body of a 4xx says that the request is too long for the model's context."""
        return outgrown(refusal)

    def model(self, call: Call, payload: Payload) -> str:
        """Return the name of the model that a request asks for."""
        document = payload.data
        return str(document["model"]) if isinstance(document, dict) else ""

    def prompt(self, payload: Payload) -> Prompt:
        """Return the prompt if a server may have cached a prefix of it."""
        return needs.prompt(payload.data)

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the tokens, and device seconds, that a reply reports; None if it reports none."""
        tokens = None
        if _is_stream(reply.headers):
            events = stream.follow(reply, body)
            tokens = events.usage if events.is_usage_reported else None
        elif b'"usage"' in body:
            tokens = usage.of(reply_document(reply, body))
        return usage_headers.with_seconds(tokens, reply.headers)

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the answer; InvalidAnswer if the model refused or wrote nothing."""
        if _is_stream(reply.headers):
            return _streamed(stream.follow(reply, body), is_text=self._is_text)
        document = reply_document(reply, body)
        if not isinstance(document, dict):
            raise InvalidAnswer(f"not an object: {shown(document)}")
        if error := openai_errors.error_in(document):
            problem = f"an error with status 200: {shown(error)}"
            if openai_errors.status_of(error) in (429, *range(500, 600)):
                raise ReportedFailure(problem)
            raise ReportedError(problem)
        if "content" not in document and "input_tokens" in document:
            return ModelAnswer()  # a count of tokens
        answer = _read(document)
        return answer if self._answer is None else replace(answer, value=self._answer(document))

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the problem as Anthropic's error object, its other members beside it.

        Their `type` is `error`, so the problem's own type goes into the error's details.
        """
        title = str(problem.get("title") or f"status {status}")
        error = {
            "type": _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error"),
            "message": problem.get("detail") or title,
            "details": {
                "error_code": title.lower().replace(" ", "_"),
                "problem": problem.get("type"),
            },
        }
        shape = {"type": "error", "error": error, "request_id": problem.get("decision")}
        return b"application/json", orjson.dumps({**problem, **shape})

    def last_event(self, payload: Payload, problem: dict[str, Any]) -> bytes:
        """Return the event that tells a client that its stream broke off."""
        return b"event: error\ndata: %b\n\n" % self.error(problem["status"], problem)[1]


class MessageStream(stream.MessageEvents):
    """Follows a streamed reply; `is_text`: its text is the requested answer."""

    def __init__(self, *, is_text: bool = True) -> None:
        super().__init__()
        self._is_text = is_text

    def reported_usage(self, headers: Headers) -> Usage | None:
        """Return the tokens that the stream reported or showed, and device seconds of its head."""
        return usage_headers.with_seconds(self.usage, headers)

    def answer(self) -> ModelAnswer:
        """Return the answer so far; InvalidAnswer if there is none."""
        return _streamed(self, is_text=self._is_text)


def _streamed(events: stream.MessageEvents, *, is_text: bool) -> ModelAnswer:
    if events.error:
        problem = f"an error in the stream: {shown(events.error)}"
        raise ReportedFailure(problem, begun=events.spoken_bytes > 0)
    return _answer(events.text, events.acted, events.finish_reason, is_text=is_text)


def _read(document: dict[str, Any]) -> ModelAnswer:
    content = document.get("content")
    blocks = [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    text = "".join([str(one["text"]) for one in blocks if one.get("text")])
    calls = [one for one in blocks if one.get("type") == "tool_use"]
    return _answer(text, calls, document.get("stop_reason"))


def _answer(text: str, acted: Any, reason: Any, *, is_text: bool = True) -> ModelAnswer:
    """Return an answer's value and features; `acted`: its tool calls, or whether it has any."""
    if reason == _REFUSED:
        raise InvalidAnswer("the model refused to answer")
    if not (text or acted):
        raise InvalidAnswer(f"a message without text, stopped by {shown(reason)}")
    finished = float(isinstance(reason, str) and reason in _FINISHED)
    value = text or (acted if isinstance(acted, list) else None)
    return ModelAnswer(value if is_text else None, (finished, min(math.log1p(len(text)) / 10, 1.0)))


def _is_stream(headers: Headers) -> bool:
    return media_type(headers) == EVENT_STREAM
