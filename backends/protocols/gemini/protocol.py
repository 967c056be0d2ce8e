"""The Gemini API: answers, their streams, embeddings, and the count of a request's tokens.

The model's name is in the path, and so is what is asked of it (see `paths`). Replies and the parts
of streams report their usage.

Features of a reply: whether it finished by itself, its length as log(1 + characters) / 10 (at most
1), and, if it has `avgLogprobs` or `logprobsResult`, the geometric mean and the minimum of its
tokens' probabilities.
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
from tollway.backends.json_members import NO_EDITS, Edits, has, member_texts, quoted, repeated
from tollway.backends.json_path import compile_path
from tollway.backends.needs import Needs
from tollway.backends.output import Output
from tollway.backends.ports import FAILOVER_STATUSES, KeepsNothing, StreamReader
from tollway.backends.protocols.gemini import paths, request, stream, usage
from tollway.backends.protocols.openai.needs import outgrown
from tollway.backends.types import (
    UNBOUND,
    Addition,
    Call,
    Headers,
    HttpReply,
    ModelAnswer,
    Payload,
    Prompt,
    Usage,
)

_FINISHED = frozenset(("STOP", "FINISH_REASON_STOP"))
_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""The names of google.rpc.Code by status; others: INVALID_ARGUMENT below 500, UNAVAILABLE above."""

_REPORTS = (b'"usageMetadata"', b'"usage')
_CONFIGS = ("generationConfig", "generation_config")
_DECIDES_MONEY = quoted(
    (
        *_CONFIGS,
        *("contents", "content", "requests", "tools", "cachedContent", "cached_content"),
        *("systemInstruction", "system_instruction", "serviceTier", "service_tier"),
    )
)
"""Members that bound what a call can cost, or select its price."""
_LIMITS = quoted(
    (
        *("maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count"),
        *("responseModalities", "response_modalities", "thinkingConfig", "thinking_config"),
    )
)
_CONTENTS = {
    "generateContent": "contents",
    "streamGenerateContent": "contents",
    "embedContent": "content",
    "batchEmbedContents": "requests",
}
"""The member that a method requires."""


class Gemini(KeepsNothing):
    """The protocol. The answer is the first candidate's text, or its calls of functions.

    `answer` is a path into the reply where the answer is something else; as for `openai`, a stream
    then has none. Raises ValueError for an invalid path.
    """

    name = "gemini"
    failover_statuses = FAILOVER_STATUSES
    # The others name the project that pays.
    withholds: re.Pattern[bytes] | None = re.compile(
        rb"x-goog-(?!api-client$|request-params$|spatula$)"
    )
    statuses: Mapping[int, int] = {}
    query_credentials: Mapping[bytes, bytes] = dict.fromkeys(
        (b"key", b"access_token", b"oauth_token"), b"x-goog-api-key"
    )

    def __init__(self, answer: str | None = None) -> None:
        self._answer = compile_path(answer) if answer is not None else None
        self._is_text = answer is None or answer.rpartition(".")[2] == "text"

    def text(self, call: Call) -> bytes:
        """Return the JSON text of a request: its body."""
        return call.body

    def parse(self, call: Call) -> Payload:
        """Read a request; what only a model can check is left to the model."""
        method = paths.method(call.method, call.target)
        if not call.body and (method.is_free or call.method == b"DELETE"):
            return Payload(endpoint=method)
        check_coding(call.headers)
        document = whole_document(call)
        if not isinstance(document, dict):
            raise BadRequest(f"the document must be an object, not {shown(document)}")
        required = _CONTENTS.get(method.name)
        if required is not None and not document.get(required):
            raise BadRequest(f"{required}: {shown(document.get(required))} must not be empty")
        name = repeated(unchecked(call), document, _DECIDES_MONEY)
        if name or (name := _limited_twice(unchecked(call), document)):
            raise BadRequest(f"{name}: is there more than once")
        return Payload(document, endpoint=method, once=_DECIDES_MONEY)

    def readdress(
        self, call: Call, base: bytes, model: str | None, payload: Payload
    ) -> tuple[bytes, Edits]:
        """Return (target, edits), with the backend's name of the model in both."""
        target, edits = paths.readdressed(call.target, base, model), NO_EDITS
        if model is not None and isinstance(payload.data, dict):
            name = model if "/" in model else f"models/{model}"
            places = _method(payload).names
            edits = {at: name for at in places if "*" in at or has(payload.data, at)}
        return target, edits

    def bound(self, call: Call, payload: Payload) -> Usage:
        """Return the maximum that a call can use; 0 where the request does not bound it."""
        document = payload.data
        if not isinstance(document, dict):
            return UNBOUND
        return request.bound(document, call.body, generates=_method(payload).generates)

    def output(self, call: Call, payload: Payload) -> Output | None:
        """Return a request's limit on its answers, and where one can be inserted."""
        document = payload.data
        if not isinstance(document, dict):
            return None
        return request.output(document, generates=_method(payload).generates)

    def follow(self, payload: Payload) -> StreamReader | None:
        """Return a reader of the stream that a request asks for."""
        method = _method(payload)
        return PartStream(is_sse=method.is_sse, is_text=self._is_text) if method.streams else None

    def streams(self, payload: Payload) -> bool:
        """Return whether a request asks for a stream, or for a file."""
        return self.follow(payload) is not None

    def added(self, payload: Payload) -> tuple[Addition, ...]:
        """Return nothing: the gateway adds no fields."""
        return ()

    def needs(self, call: Call, payload: Payload, room: float) -> Needs:
        """Return the features that a request needs, and its tokens if they might exceed `room`."""
        return request.needs(payload.data, call.body, room, streams=_method(payload).streams)

    def outgrown(self, refusal: bytes) -> bool:
        """Whether the body of a 4xx says that the request is too long for the model's context."""
        return outgrown(refusal)

    def model(self, call: Call, payload: Payload) -> str:
        """Return the name of the model in the path."""
        return paths.model(call.target)

    def prompt(self, payload: Payload) -> Prompt:
        """Return the prompt; a server may have cached a prefix of it."""
        return request.prompt(payload.data)

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the tokens, and device seconds, that a reply reports; None if it reports none."""
        tokens = None
        if media_type(reply.headers) == EVENT_STREAM:
            parts = stream.follow(reply, body, is_sse=True)
            tokens = parts.usage if parts.is_usage_reported else None
        elif any(mark in body for mark in _REPORTS):
            document = reply_document(reply, body)
            tokens = usage.of(document if isinstance(document, list) else [document])
        return usage_headers.with_seconds(tokens, reply.headers)

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the answer; InvalidAnswer if the prompt was blocked or nothing was written."""
        if media_type(reply.headers) == EVENT_STREAM:
            return _streamed(stream.follow(reply, body, is_sse=True), is_text=self._is_text)
        document = reply_document(reply, body)
        if isinstance(document, list) and openai_errors.error_in(document) is None and document:
            return _streamed(stream.follow(reply, body, is_sse=False), is_text=self._is_text)
        if error := openai_errors.error_in(document):
            problem = f"an error with status 200: {shown(error)}"
            if openai_errors.status_of(error) in (429, *range(500, 600)):
                raise ReportedFailure(problem)
            raise ReportedError(problem)
        if not isinstance(document, dict):
            raise InvalidAnswer(f"not an object: {shown(document)}")
        if not ("candidates" in document or "promptFeedback" in document):
            if not document:
                raise InvalidAnswer("an empty object")
            return ModelAnswer()  # embeddings, a count of tokens, a description
        if reply.document is not None and not reply.document.is_whole:
            return ModelAnswer()  # more log probabilities than are kept
        answer = _read(document)
        return answer if self._answer is None else replace(answer, value=self._answer(document))

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the problem as an error of Google's APIs, its other members beside it.

        Clients take a `status` beside `error` for the name of the error, so the problem's own is in
        `error.code` alone.
        """
        title = str(problem.get("title") or f"status {status}")
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": title.upper().replace(" ", "_"),
            "domain": "tollway",
        }
        error = {
            "code": status,
            "message": problem.get("detail") or title,
            "status": _NAMES.get(status, "UNAVAILABLE" if status >= 500 else "INVALID_ARGUMENT"),
            "details": [info],
        }
        others = {name: value for name, value in problem.items() if name != "status"}
        return b"application/json", orjson.dumps({"error": error, **others})

    def last_event(self, payload: Payload, problem: dict[str, Any]) -> bytes:
        """Return the event, or the last element, that says that a stream broke off."""
        _, body = self.error(problem["status"], problem)
        return b"data: %b\n\n" % body if _method(payload).is_sse else b",\r\n%b\r\n]" % body


class PartStream(stream.Parts):
    """Follows a streamed reply; `is_text`: its text is the requested answer."""

    def __init__(self, *, is_sse: bool, is_text: bool = True) -> None:
        super().__init__(is_sse=is_sse)
        self._is_text = is_text

    def reported_usage(self, headers: Headers) -> Usage | None:
        """Return the tokens that the stream reported or showed, and device seconds of its head."""
        return usage_headers.with_seconds(self.usage, headers)

    def answer(self) -> ModelAnswer:
        """Return the answer so far; InvalidAnswer if there is none."""
        return _streamed(self, is_text=self._is_text)


def _limited_twice(body: bytes, document: dict[str, Any]) -> str:
    """Return a limit that a configuration has more than once; empty if it has none."""
    doubtful = b"\\u00" in body or any(body.find(q) != body.rfind(q) for q in _LIMITS.values())
    for config in _CONFIGS if doubtful else ():
        if isinstance(held := document.get(config), dict):
            for text in member_texts(body, config):
                if name := repeated(text, held, _LIMITS):
                    return name
    return ""


def _method(payload: Payload) -> paths.Method:
    endpoint = payload.endpoint
    return endpoint if isinstance(endpoint, paths.Method) else paths.GENERATE


def _streamed(parts: stream.Parts, *, is_text: bool) -> ModelAnswer:
    if parts.error:
        problem = f"an error in the stream: {shown(parts.error)}"
        raise ReportedFailure(problem, begun=parts.spoken_bytes > 0)
    if not (parts.text or parts.acted):
        raise InvalidAnswer(f"a stream without text, finished by {shown(parts.finish_reason)}")
    return ModelAnswer(
        (parts.text or None) if is_text else None, _features(parts.finish_reason, len(parts.text))
    )


def _read(document: dict[str, Any]) -> ModelAnswer:
    candidates = document.get("candidates")
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    if not isinstance(first, dict):
        raise InvalidAnswer(f"no candidates: {shown(document.get('promptFeedback'))}")
    parts = stream.parts_of(first)
    text = "".join([str(p.get("text") or "") for p in parts if not p.get("thought")])
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    reason = first.get("finishReason")
    made = any("inlineData" in part for part in parts)
    if not (text or calls or made):
        raise InvalidAnswer(f"no text, finished by {shown(reason)}")
    return ModelAnswer(text or calls or None, _features(reason, len(text)) + _logprobs(first))


def _features(reason: Any, chars: int) -> tuple[float, ...]:
    finished = isinstance(reason, str) and reason in _FINISHED
    return float(finished), min(math.log1p(chars) / 10, 1.0)


def _logprobs(candidate: dict[str, Any]) -> tuple[float, ...]:
    """Return the mean and the minimum probability of the tokens; empty if there are none."""
    result = candidate.get("logprobsResult")
    chosen = result.get("chosenCandidates") if isinstance(result, dict) else None
    listed = chosen if isinstance(chosen, list) else []
    found = [one.get("logProbability") for one in listed if isinstance(one, dict)]
    logs = [log for log in found if isinstance(log, int | float) and log <= 0]
    if logs:
        return math.exp(sum(logs) / len(logs)), math.exp(min(logs))
    mean = candidate.get("avgLogprobs")
    if isinstance(mean, int | float) and not isinstance(mean, bool) and mean <= 0:
        return (math.exp(mean),)
    return ()
