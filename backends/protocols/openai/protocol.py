"""OpenAI's API: chat completions, completions, embeddings and responses.

The model's name is in the body, so the body is rewritten if the backend has another name for the
model. A stream reports its usage only if the request asks for it, so every forwarded request does,
and the report is removed again if the client did not ask.

Features of a reply: whether it finished by itself, its length as log(1 + characters) / 10 (at most
1), and, if the request asked for `logprobs`, the geometric mean and the minimum of its tokens'
probabilities.
"""

import math
from dataclasses import replace
from typing import Any

import orjson

from tollway.backends import usage_headers
from tollway.backends.documents import (
    EVENT_STREAM,
    check_coding,
    load_reply,
    load_request,
    media_type,
    shown,
)
from tollway.backends.json_path import compile_path
from tollway.backends.needs import Needs
from tollway.backends.output import Output
from tollway.backends.protocols.openai import bounds, needs, prompt, stream, usage
from tollway.backends.types import (
    FAILOVER_STATUSES,
    UNBOUND,
    Addition,
    BadRequest,
    Call,
    Headers,
    HttpReply,
    InvalidAnswer,
    ModelAnswer,
    Payload,
    Prompt,
    ReportedError,
    ReportedFailure,
    StreamReader,
    Usage,
)

# The members that a request to each path must have, and their types.
_NEEDS: dict[bytes, tuple[str, tuple[type, ...]]] = {
    b"/chat/completions": ("messages", (list,)),
    b"/completions": ("prompt", (str, list)),
    b"/embeddings": ("input", (str, list)),
    b"/responses": ("input", (str, list)),
}
# Texts in a reply that reports its usage elsewhere than in `usage...`.
_REPORTS = (b'"billed_units"', b'"b64_json"', b'"url"', b'invocationMetrics"')
_FINISHED = frozenset(("stop", "tool_calls", "function_call"))
_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error"}
_TYPES |= {429: "rate_limit_error"}


_ADDED = (Addition("stream_options", "stream_options", (b"stream_options", b"include_usage")),)
_ADDED_TO_OPTIONS = (replace(_ADDED[0], path="stream_options.include_usage"),)


class OpenAI:
    """The protocol. The answer is the first choice's text, or its tool calls.

    `answer` is a path into the reply where the answer is something else. Of a stream only the text
    is assembled: if the path leads to the text, the text is its answer; otherwise a stream has no
    answer, and no label can score it. Raises ValueError for an invalid path.
    """

    name = "openai"
    failover_statuses = FAILOVER_STATUSES

    def __init__(self, answer: str | None = None) -> None:
        self._answer = compile_path(answer) if answer is not None else None
        # As in `choices[0].message.content`, `choices[0].text` and `output[0].content[0].text`.
        self._is_text = answer is None or answer.rpartition(".")[2] in ("content", "text")

    def parse(self, call: Call) -> Payload:
        """Read a request; what only a model can check is left to the model."""
        if not call.body and call.method in (b"GET", b"HEAD"):
            return Payload()
        check_coding(call.headers)
        document = load_request(call.body)
        if not isinstance(document, dict):
            raise BadRequest(f"the document must be an object, not {shown(document)}")
        if not isinstance(document.get("model"), str):
            raise BadRequest(f"model: {shown(document.get('model'))} must be a string")
        path = call.target.partition(b"?")[0]
        for end, (key, kinds) in _NEEDS.items():
            if path.endswith(end):
                if not isinstance(document.get(key), kinds) or not document[key]:
                    kind = " or ".join(kind.__name__ for kind in kinds)
                    raise BadRequest(f"{key}: {shown(document.get(key))} must be a {kind}")
                break
        return Payload(document)

    def readdress(self, call: Call, path: bytes, model: str | None, payload: Payload) -> Call:
        """Return the call below `path`, with the backend's name of the model in its body.

        A base that ends with `/v1`, as these servers' addresses are often written, is not doubled.
        """
        base = path.rstrip(b"/")
        if base.endswith(b"/v1") and call.target.startswith(b"/v1/"):
            base = base[:-3]
        body, document = call.body, payload.data
        if isinstance(document, dict):
            sent = document if model in (None, document["model"]) else {**document, "model": model}
            if _must_ask(document):
                sent = stream.asking_for_usage(sent)
            if sent is not document:
                body = orjson.dumps(sent)
        return Call(call.method, base + call.target, call.headers, body, payload)

    def bound(self, call: Call, payload: Payload) -> Usage:
        """Return the maximum tokens that a call can use; 0 if the request does not bound them.

        If the request contains all that is read, its length in bytes bounds the input, because a
        token is at least a byte. The output is bounded by the request's limit. See
        `tollway.backends.protocols.openai.bounds` for how a client can change these bounds.
        """
        document = payload.data
        if not isinstance(document, dict):
            return UNBOUND
        return Usage(
            input_tokens=float(len(call.body)) if bounds.is_whole(document) else 0.0,
            output_tokens=bounds.output_tokens(document),
            exact=False,
            more=bounds.further(document, call.target),
        )

    def output(self, call: Call, payload: Payload) -> Output | None:
        """Return a request's limits on its answers' length, and where a limit can be inserted."""
        document = payload.data
        if not isinstance(document, dict):
            return None
        return bounds.output(document, call.target)

    def follow(self, payload: Payload) -> StreamReader | None:
        """Return a reader of the stream that a request asks for."""
        document = payload.data
        if not isinstance(document, dict) or document.get("stream") is not True:
            return None
        return Stream(strip=_must_ask(document), is_text=self._is_text)

    def added(self, payload: Payload) -> tuple[Addition, ...]:
        """Return `stream_options.include_usage`, unless the client has asked for it."""
        document = payload.data
        if not isinstance(document, dict) or not _must_ask(document):
            return ()
        options = isinstance(document.get("stream_options"), dict)
        return _ADDED_TO_OPTIONS if options else _ADDED

    def needs(self, call: Call, payload: Payload, room: float) -> Needs:
        """Return the features that a request needs, and its tokens if they might exceed `room`."""
        return needs.needs(payload.data, call.body, room)

    def outgrown(self, refusal: bytes) -> bool:
        """Whether the body of a 4xx says that the request is too long for the model's context."""
        return needs.outgrown(refusal)

    def prompt(self, payload: Payload) -> Prompt:
        """Return the prompt; a server may have cached a prefix of it."""
        return prompt.parts(payload.data)

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the tokens, and device seconds, that a reply reports; None if it reports none.

        A stream that was cut, or not asked for usage, reports none: counting only what arrived
        would leave out the prompt, and be too little.
        """
        told = _with_seconds(_tokens(reply.headers, body), reply.headers)
        return told or _spoken(payload.data, reply.headers)

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the answer; for an embedding, and for what is not text, the value is None."""
        if _is_stream(reply.headers):
            return _streamed(stream.follow(body), is_text=self._is_text)
        kind = media_type(reply.headers)
        if kind and b"json" not in kind and not body.lstrip().startswith((b"{", b"<")):
            return ModelAnswer()  # speech, an image, a file
        document = load_reply(body)
        if not isinstance(document, dict):
            raise InvalidAnswer(f"not an object: {shown(document)}")
        if error := document.get("error"):
            said = f"an error with status 200: {shown(error)}"
            raise ReportedFailure(said) if _is_failure(error) else ReportedError(said)
        answer = _read(document, payload.data)
        return answer if self._answer is None else replace(answer, value=self._answer(document))

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the problem with OpenAI's own `error` object beside its members."""
        fault = "server_error" if status >= 500 else "invalid_request_error"
        title = str(problem.get("title") or f"status {status}")
        error = {
            "message": problem.get("detail") or title,
            "type": _TYPES.get(status, fault),
            "param": None,
            "code": title.lower().replace(" ", "_"),
        }
        return b"application/problem+json", orjson.dumps({"error": error, **problem})


class Stream(stream.Completion):
    """Follows a streamed reply; `is_text`: its text is the requested answer."""

    def __init__(self, *, strip: bool = False, is_text: bool = True) -> None:
        super().__init__(strip=strip)
        self._is_text = is_text

    def told(self, headers: Headers) -> Usage | None:
        """Return the tokens that the stream reported or showed, and device seconds of its head."""
        return _with_seconds(self.usage, headers)

    def answer(self) -> ModelAnswer:
        """Return the answer so far; InvalidAnswer if there is none."""
        return _streamed(self, is_text=self._is_text)


def _read(document: dict[str, Any], request: Any) -> ModelAnswer:
    if isinstance(document.get("data"), list):
        return _embeddings(document["data"])
    if isinstance(document.get("output"), list):
        return _output(document)
    if "choices" not in document and not _asks_for_choices(request):
        return ModelAnswer()  # moderations, transcriptions, ranks, ...
    return _choice(document.get("choices"))


def _must_ask(document: dict[str, Any]) -> bool:
    """Whether the gateway must make a request ask for its usage.

    Responses report it anyway and refuse the option. They are recognized by `input`, or by a stored
    prompt that is an object.
    """
    prompted = document.get("prompt") is not None and "input" not in document
    return (
        document.get("stream") is True
        and ("messages" in document or (prompted and not isinstance(document["prompt"], dict)))
        and not stream.asks_for_usage(document)
    )


def _is_failure(error: Any) -> bool:
    """Whether an error object reports a failure upstream rather than a refusal of the request.

    Aggregators such as OpenRouter put the provider's status into `code` and send status 200.
    """
    code = error.get("code") if isinstance(error, dict) else None
    return isinstance(code, int) and (code >= 500 or code == 429)


def _asks_for_choices(document: Any) -> bool:
    return not isinstance(document, dict) or "messages" in document or "prompt" in document


def _with_seconds(tokens: Usage | None, headers: Headers) -> Usage | None:
    seconds = usage_headers.from_headers(headers)
    if seconds is None or tokens is None:
        return tokens or seconds
    return replace(tokens, device_s=seconds.device_s)


def _streamed(completion: stream.Completion, *, is_text: bool) -> ModelAnswer:
    if completion.error:
        said = f"an error in the stream: {shown(completion.error)}"
        raise ReportedFailure(said, begun=completion.spoken_bytes > 0)
    text, told = completion.text, _told(completion.finish_reason, len(completion.text))
    if not text and not completion.acted:
        raise InvalidAnswer("a stream without text")
    return ModelAnswer((text or None) if is_text else None, told)


def _output(document: dict[str, Any]) -> ModelAnswer:
    """Read a response: the text of its messages, or its tool calls."""
    items = [item for item in document["output"] if isinstance(item, dict)]
    parts = [part for item in items for part in _listed(item.get("content"))]
    text = "".join(str(part.get("text") or part.get("refusal") or "") for part in parts)
    calls = [item for item in items if str(item.get("type")).endswith("_call")]
    if document.get("status") in ("queued", "in_progress"):
        return ModelAnswer()  # a background response is fetched later
    if not (text or calls):
        raise InvalidAnswer(f"an empty response: {shown(document['output'])}")
    finished = "stop" if document.get("status") == "completed" else document.get("status")
    return ModelAnswer(text or calls, _told(finished, len(text)))


def _is_stream(headers: Headers) -> bool:
    return media_type(headers) == EVENT_STREAM


def _tokens(headers: Headers, body: bytes) -> Usage | None:
    if _is_stream(headers):
        completion = stream.follow(body)
        return completion.usage if completion.is_told else None
    if b'"usage' not in body and not any(mark in body for mark in _REPORTS):
        return None
    return usage.of(load_reply(body))


def _spoken(document: Any, headers: Headers) -> Usage | None:
    """Return the characters of a request for speech: speech is billed by them."""
    if not media_type(headers).startswith(b"audio/"):
        return None
    more = bounds.characters(document)
    return None if more is None else Usage(more=more)


def _embeddings(data: list[Any]) -> ModelAnswer:
    if not data:
        raise InvalidAnswer("an empty list")
    for entry in data:
        if isinstance(entry, dict) and "embedding" in entry and not entry["embedding"]:
            raise InvalidAnswer(f"an empty embedding: {shown(entry)}")
    return ModelAnswer()


def _choice(choices: Any) -> ModelAnswer:
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise InvalidAnswer(f"no choices: {shown(choices)}")
    message = choice.get("message")
    said = message if isinstance(message, dict) else choice  # completions: `text` in the choice
    text = said.get("content") or said.get("text") or said.get("refusal")
    value = text or said.get("tool_calls") or said.get("function_call")
    if not value and (audio := said.get("audio") or said.get("images")):
        transcript = audio.get("transcript") if isinstance(audio, dict) else None
        length = len(transcript) if isinstance(transcript, str) else 0
        return ModelAnswer(transcript or None, _told(choice.get("finish_reason"), length))
    if not value:
        raise InvalidAnswer(f"an empty choice: {shown(choice)}")
    length = len(text) if isinstance(text, str) else 0
    return ModelAnswer(value, _told(choice.get("finish_reason"), length) + _logprobs(choice))


def _listed(member: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; empty if it is no list."""
    return [each for each in member if isinstance(each, dict)] if isinstance(member, list) else []


def _told(finish_reason: Any, chars: int) -> tuple[float, ...]:
    finished = isinstance(finish_reason, str) and finish_reason in _FINISHED
    return float(finished), min(math.log1p(chars) / 10, 1.0)


def _logprobs(choice: dict[str, Any]) -> tuple[float, ...]:
    """Return the mean and the minimum probability of the tokens; empty if there are none."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return ()
    found = logprobs.get("token_logprobs")  # completions; chat has a list of objects
    if not isinstance(found, list):
        found = [token.get("logprob") for token in _listed(logprobs.get("content"))]
    logs = [log for log in found if isinstance(log, int | float) and log <= 0]
    if not logs:
        return ()
    return math.exp(sum(logs) / len(logs)), math.exp(min(logs))
