"""OpenAI's API: the endpoints of `tollway.backends.protocols.openai.endpoints`.

The model's name is in the body, a document or a form, so the body is rewritten if the backend has
another name for the model. A stream of a completion reports its usage only if the request asks for
it, so every forwarded request does, and the report is removed again if the client did not ask.

Features of a reply: whether it finished by itself, its length as log(1 + characters) / 10 (at most
1), and, if the request asked for `logprobs`, the geometric mean and the minimum of its tokens'
probabilities.
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson

from tollway.backends import usage_headers
from tollway.backends.bodies import multipart
from tollway.backends.bodies.media import MediaReader
from tollway.backends.documents import (
    EVENT_STREAM,
    check_coding,
    is_opaque,
    media_type,
    request_document,
    retained_document,
    shown,
    unchecked,
    whole_document,
)
from tollway.backends.errors import BadRequest, InvalidAnswer, ReportedError, ReportedFailure
from tollway.backends.json_members import NO_EDITS, Edits, quoted, repeated
from tollway.backends.json_path import compile_path
from tollway.backends.needs import Needs
from tollway.backends.output import Output
from tollway.backends.ports import FAILOVER_STATUSES, Lists, OnePath, StreamReader
from tollway.backends.protocols.openai import (
    azure,
    bounds,
    endpoints,
    lists,
    logprobs,
    needs,
    objects,
    prompt,
    stream,
    usage,
)
from tollway.backends.protocols.openai.endpoints import UNKNOWN, ApiEndpoint
from tollway.backends.protocols.openai.objects import FILE_MARK
from tollway.backends.protocols.sse import Event
from tollway.backends.types import (
    UNBOUND,
    Addition,
    Call,
    Created,
    Details,
    Document,
    Headers,
    HttpReply,
    ModelAnswer,
    Payload,
    Prompt,
    Usage,
)

# Texts in a reply that reports its usage elsewhere than in `usage...`.
_REPORTS = (b'"billed_units"', b'"b64_json"', b'"url"', b'invocationMetrics"')
_DECIDES_MONEY = quoted(
    (
        *(
            "model",
            "messages",
            "prompt",
            "input",
            "instructions",
            "tools",
            "n",
            "best_of",
            "stream",
        ),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "stream_options"),
        *("stream_format", "modalities", "service_tier", "size", "quality", "previous_response_id"),
        *("conversation", "web_search_options", "voice"),
    )
)
"""Members that select the model and its price, or bound what a call can cost."""
OFF = logprobs.OFF
LOGPROBS_TOKENS_MAX = 4096
"""The largest answer of which log-probabilities are asked for: they take 0.1 KB a token."""
_TRUE = frozenset(("true", "1"))  # in a form, where everything is a text
_FINISHED = frozenset(("stop", "tool_calls", "function_call"))
_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error"}
_TYPES |= {429: "rate_limit_error"}


_ADDED = (Addition("stream_options", "stream_options", (b"stream_options", b"include_usage")),)
_ADDED_TO_OPTIONS = (replace(_ADDED[0], path="stream_options.include_usage"),)


def _asking(document: dict[str, Any]) -> Edits:
    """Return the edits that make a stream report its usage, those that `OpenAI.added` names."""
    if isinstance(document.get("stream_options"), dict):
        return {_ADDED_TO_OPTIONS[0].path: True}
    return {_ADDED[0].path: {"include_usage": True}}


class OpenAI(OnePath):
    """The protocol. The answer is the first choice's text, or its tool calls.

    `answer` is a path into the reply where the answer is something else. Of a stream only the text
    is assembled: if the path leads to the text, the text is its answer; otherwise a stream has no
    answer, and no label can score it. Raises ValueError for an invalid path.
    """

    name = "openai"
    failover_statuses = FAILOVER_STATUSES
    withholds: re.Pattern[bytes] | None = None
    statuses: Mapping[int, int] = {}
    query_credentials: Mapping[bytes, bytes] = {}
    lists: Lists | None = lists

    def __init__(
        self,
        answer: str | None = None,
        api_version: str | None = None,
        logprobs: str = logprobs.OFF,
    ) -> None:
        """`api_version`: the backend is Azure, with this version of its API or (empty) without.

        `logprobs`: how the server writes that none were asked for; OFF: they are not asked for.
        """
        self._api_version = api_version
        self._logprobs = logprobs
        self.hides = logprobs != OFF
        self._answer = compile_path(answer) if answer is not None else None
        # As in `choices[0].message.content`, `choices[0].text` and `output[0].content[0].text`.
        self._is_text = answer is None or answer.rpartition(".")[2] in ("content", "text")

    def paths(self, path: str) -> tuple[str, ...]:
        """Return where the objects are that are made at a path."""
        endpoint = endpoints.find(endpoints.POST, path.encode())
        return (f"{path}/*",) if endpoint.is_known and endpoint.creates else ()

    def passes(self, method: str, path: bytes, pattern: str, *, is_written: bool) -> bool:
        """Return whether a request that a pattern matches may be passed on.

        Below a wildcard only what is known may be called, and work of unknown size only where the
        pattern names it.
        """
        if not pattern.endswith("/*"):
            return super().passes(method, path, pattern, is_written=is_written)
        endpoint = endpoints.find(method.encode(), path)
        if endpoints.administers(path):
            return False
        if endpoint.is_declared:
            return endpoints.family(path).decode() in pattern.split("/")
        return endpoint.is_known or (is_written and method in ("GET", "HEAD"))

    def text(self, call: Call) -> bytes:
        """Return the JSON text of a request: its body."""
        return call.body

    def parse(self, call: Call) -> Payload:
        """Read a request; what only a model can check is left to the model."""
        endpoint = endpoints.find(call.method, call.target.partition(b"?")[0])
        kind = media_type(call.headers)
        if not call.body and (endpoint.is_free or call.method in (b"GET", b"HEAD")):
            return objects.noted(call, Payload(endpoint=endpoint))
        if multipart.is_form(kind):
            check_coding(call.headers)
            form = multipart.of(call)
            _check_model(form.fields, endpoint, call.target)
            return objects.noted(call, Payload(form.fields, endpoint=endpoint, form=form))
        if endpoint.is_free:
            return objects.noted(call, Payload(_document(call), endpoint=endpoint))
        if not endpoint.is_known and is_opaque(kind):
            return Payload(endpoint=endpoint)
        check_coding(call.headers)
        document = whole_document(call)
        if not isinstance(document, dict):
            raise BadRequest(f"the document must be an object, not {shown(document)}")
        _check_model(document, endpoint, call.target)
        _check_members(document, endpoint)
        if name := repeated(unchecked(call), document, _DECIDES_MONEY):
            raise BadRequest(
                f"{name}: is there more than once, and servers differ in what they read"
            )
        payload = Payload(document, endpoint=endpoint, once=_DECIDES_MONEY)
        if endpoint.asks_for_usage and "store" not in document and FILE_MARK not in call.body:
            return payload  # nearly all completions
        return objects.noted(call, payload)

    def readdress(
        self, call: Call, base: bytes, model: str | None, payload: Payload
    ) -> tuple[bytes, Edits]:
        """Return (target, edits), with the backend's name of the model in the body.

        A base that ends with `/v1`, as these servers' addresses are often written, is not doubled.
        """
        document, target = payload.data, self._target(call, base, model, payload)
        if not isinstance(document, dict):
            return target, NO_EDITS
        named = document.get("model")
        new = None if named in (None, model) else model
        if named is None and payload.form is None and (deployed := azure.deployment(call.target)):
            new = model or deployed  # Azure's clients name the model in the path alone
        edits: dict[str, Any] = {} if new is None else {"model": new}
        if payload.form is None and _must_ask(payload):
            edits |= _asking(document)
        if self.hides and _may_ask(payload):
            edits["logprobs"] = True if "messages" in document else 1
        return target, edits

    def _target(self, call: Call, base: bytes, model: str | None, payload: Payload) -> bytes:
        """Return the target at a backend: Azure's paths are those of Azure alone."""
        target = call.target
        if self._api_version is not None:
            return azure.at_azure(
                target, base, self._api_version, model or self.model(call, payload)
            )
        if b"/openai/" in target and azure.asks_azure(target):
            return azure.at_openai(target, base)
        if base.endswith(b"/v1") and target.startswith(b"/v1/"):
            base = base[:-3]
        return base + target

    def bound(self, call: Call, payload: Payload) -> Usage:
        """Return the maximum tokens that a call can use; 0 if the request does not bound them.

        If the request contains all that is read, its length in bytes bounds the input, because a
        token is at least a byte. The output is bounded by the request's limit. See
        `tollway.backends.protocols.openai.bounds` for how a client can change these bounds.
        """
        document = payload.data
        if not isinstance(document, dict):
            return UNBOUND
        is_whole = payload.form is None and bounds.is_whole(document)
        return Usage(
            input_tokens=float(len(call.body)) if is_whole else 0.0,
            output_tokens=bounds.output_tokens(document),
            exact=False,
            more=bounds.further(document, _endpoint(payload)),
        )

    def output(self, call: Call, payload: Payload) -> Output | None:
        """Return a request's limits on its answers' length, and where a limit can be inserted."""
        document = payload.data
        if not isinstance(document, dict):
            return None
        return bounds.output(document, _endpoint(payload))

    def follow(self, payload: Payload) -> StreamReader | None:
        """Return a reader of the stream, or of the file, that a request asks for."""
        document, endpoint = payload.data, _endpoint(payload)
        name, asked = endpoint.stream_field
        wanted = document.get(name) if isinstance(document, dict) else None
        if payload.form is not None and isinstance(wanted, str):
            wanted = wanted.lower() in _TRUE
        if type(wanted) is type(asked) and wanted == asked:
            strip = _must_ask(payload) and not stream.wants_usage(document)
            hides = self._logprobs if self.hides and _may_ask(payload) else OFF
            return Stream(strip=strip, is_text=self._is_text, hides=hides)
        if not endpoint.is_media:
            return None
        spoken = bounds.characters(document)
        return MediaReader(None if spoken is None else Usage(more=spoken))

    def streams(self, payload: Payload) -> bool:
        """Return whether a request asks for a stream, or for a file."""
        return self.follow(payload) is not None

    def added(self, payload: Payload) -> tuple[Addition, ...]:
        """Return `stream_options.include_usage` and `logprobs`, unless the client has asked."""
        document = payload.data
        asked: tuple[Addition, ...] = ()
        if self.hides and _may_ask(payload):
            asked = (logprobs.ADDED,)
        if not isinstance(document, dict) or not _must_ask(payload):
            return asked
        options = isinstance(document.get("stream_options"), dict)
        return asked + (_ADDED_TO_OPTIONS if options else _ADDED)

    def hidden(self, payload: Payload, reply: HttpReply, body: bytes) -> bytes:
        """Return a reply's body without the log-probabilities that only the gateway asked for."""
        if logprobs.MEMBER not in body or not _may_ask(payload):
            return body
        if media_type(reply.headers) == EVENT_STREAM:
            return body  # its reader has hidden them
        try:
            document = retained_document(reply, body)
            return logprobs.hidden(body, document, self._logprobs)
        except ValueError:  # no JSON, so there is nothing to hide
            return body

    def needs(self, call: Call, payload: Payload, room: float) -> Needs:
        """Return the features that a request needs, and its tokens if they might exceed `room`."""
        if payload.form is not None:
            return needs.needs(payload.data, b"", room)
        return needs.needs(payload.data, call.body, room)

    def outgrown(self, refusal: bytes) -> bool:
        """Whether the body of a 4xx says that the request is too long for the model's context."""
        return needs.outgrown(refusal)

    def model(self, call: Call, payload: Payload) -> str:
        """Return the name of the model that a request asks for: Azure's, in the path, decides."""
        if deployed := azure.deployment(call.target):
            return deployed
        document = payload.data
        return str(document.get("model") or "") if isinstance(document, dict) else ""

    def last_event(self, payload: Payload, problem: dict[str, Any]) -> bytes:
        """Return the event that tells a client that its stream broke off."""
        return b"data: %b\n\n" % self.error(problem["status"], problem)[1]

    def created(self, payload: Payload, body: bytes) -> Created | None:
        """Return the object that a reply names, if the server keeps it."""
        return objects.created(payload, body)

    def prompt(self, payload: Payload) -> Prompt:
        """Return the prompt; a server may have cached a prefix of it."""
        return prompt.parts(payload.data)

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the tokens, and device seconds, that a reply reports; None if it reports none.

        A stream that was cut, or not asked for usage, reports none: counting only what arrived
        would leave out the prompt, and be too little.
        """
        reported = usage_headers.with_seconds(_tokens(reply, body), reply.headers)
        return reported or _told(payload, reply, body)

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the answer; for an embedding, and for what is not text, the value is None."""
        kind = media_type(reply.headers)
        if kind == EVENT_STREAM:
            reader = Stream(is_text=self._is_text, hides=self._logprobs)
            return stream.read_whole(reply, body, reader).answer()
        if kind and b"json" not in kind and not body.lstrip().startswith((b"{", b"<")):
            return ModelAnswer()  # speech, an image, a file
        document = retained_document(reply, body)
        if not isinstance(document, dict):
            raise InvalidAnswer(f"not an object: {shown(document)}")
        if error := document.get("error"):
            problem = f"an error with status 200: {shown(error)}"
            raise ReportedFailure(problem) if _is_failure(error) else ReportedError(problem)
        if reply.document is not None and not reply.document.is_whole:
            return ModelAnswer()  # more embeddings or log probabilities than are kept
        answer = _read(document, payload)
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

    def __init__(self, *, strip: bool = False, is_text: bool = True, hides: str = OFF) -> None:
        """`hides`: log-probabilities that only the gateway asked for are removed, in this style."""
        super().__init__(strip=strip)
        self._is_text = is_text
        self._hides = hides
        self._logs: list[float] = []

    def relay(self, event: Event, document: Document | None = None) -> bytes:
        """Read an event as `Completion` does; first read and hide its log-probabilities."""
        if self._hides != OFF and logprobs.MEMBER in event.raw:
            event, document = self._without_logprobs(event), None
        return super().relay(event, document)

    def _without_logprobs(self, event: Event) -> Event:
        data = event.data or b""
        try:
            chunk = orjson.loads(data)
        except ValueError:
            return event
        for choice in _listed(chunk.get("choices") if isinstance(chunk, dict) else None)[:1]:
            if len(self._logs) < LOGPROBS_TOKENS_MAX:
                self._logs += logprobs.logs_of(choice)
        shown_data = logprobs.hidden(data, chunk, self._hides)
        if shown_data is data or event.raw.count(data) != 1:
            return event
        return Event(event.raw.replace(data, shown_data), shown_data)

    def reported_usage(self, headers: Headers) -> Usage | None:
        """Return the tokens that the stream reported or showed, and device seconds of its head."""
        return usage_headers.with_seconds(self.usage, headers)

    def answer(self) -> ModelAnswer:
        """Return the answer so far; InvalidAnswer if there is none."""
        answer = _streamed(self, is_text=self._is_text)
        if not self._logs:
            return answer
        return replace(answer, features=answer.features + logprobs.features(self._logs))


def _endpoint(payload: Payload) -> ApiEndpoint:
    endpoint = payload.endpoint
    return endpoint if isinstance(endpoint, ApiEndpoint) else UNKNOWN


def _document(call: Call) -> dict[str, Any] | None:
    """Return the document of a free call; None if it is none, since nothing depends on it."""
    with suppress(BadRequest):
        document = request_document(call, call.body)
        return document if isinstance(document, dict) else None
    return None


def _check_model(document: dict[str, Any], endpoint: ApiEndpoint, target: bytes) -> None:
    """Raise BadRequest unless a request names one model, or needs to name none."""
    model = document.get("model")
    if model is None and azure.deployment(target):
        return
    if not isinstance(model, str) and (model is not None or endpoint.model_required):
        raise BadRequest(f"model: {shown(model)} must be a string")


def _check_members(document: dict[str, Any], endpoint: ApiEndpoint) -> None:
    """Raise BadRequest unless a request has one of the members that its endpoint requires."""
    for name, kinds in endpoint.requires:
        if isinstance(document.get(name), kinds) and document[name]:
            return
    for name, kinds in endpoint.requires:
        kind = " or ".join(kind.__name__ for kind in kinds)
        raise BadRequest(f"{name}: {shown(document.get(name))} must be a {kind}")


def _read(document: dict[str, Any], payload: Payload) -> ModelAnswer:
    if "data" in document and isinstance(document["data"], list):
        return _embeddings(document["data"])
    if "output" in document and isinstance(document["output"], list):
        return _output(document)
    if "choices" not in document and not _asks_for_choices(payload):
        text = document.get("text") if payload.endpoint.unit == "audio_s" else None
        return ModelAnswer(text or None)  # moderations, ranks, ... have none
    return _choice(document.get("choices"))


def _must_ask(payload: Payload) -> bool:
    """Whether the gateway must make a request ask for its usage.

    Only streams of chat completions and completions report it on request; all others report it
    anyway and refuse the option.
    """
    document, endpoint = payload.data, payload.endpoint
    if document.get("stream") is not True:
        return False
    if isinstance(endpoint, ApiEndpoint) and endpoint.is_known:
        asks = endpoint.asks_for_usage
    else:
        prompted = document.get("prompt") is not None and "input" not in document
        asks = "messages" in document or (prompted and not isinstance(document["prompt"], dict))
    return asks and not stream.asks_for_usage(document)


def _is_failure(error: Any) -> bool:
    """Whether an error object reports a failure upstream rather than a refusal of the request.

    Aggregators such as OpenRouter put the provider's status into `code` and send status 200.
    """
    code = error.get("code") if isinstance(error, dict) else None
    return isinstance(code, int) and (code >= 500 or code == 429)


def _asks_for_choices(payload: Payload) -> bool:
    document, endpoint = payload.data, payload.endpoint
    if isinstance(endpoint, ApiEndpoint) and endpoint.is_known:
        return endpoint.asks_for_usage
    return not isinstance(document, dict) or "messages" in document or "prompt" in document


def _streamed(completion: stream.Completion, *, is_text: bool) -> ModelAnswer:
    if completion.error:
        problem = f"an error in the stream: {shown(completion.error)}"
        raise ReportedFailure(problem, begun=completion.spoken_bytes > 0)
    text, features = completion.text, _features_of(completion.finish_reason, len(completion.text))
    if not text and not completion.acted:
        raise InvalidAnswer("a stream without text")
    return ModelAnswer((text or None) if is_text else None, features)


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
    return ModelAnswer(text or calls, _features_of(finished, len(text)))


def _tokens(reply: HttpReply, body: bytes) -> Usage | None:
    if media_type(reply.headers) == EVENT_STREAM:
        completion = stream.follow(reply, body)
        return completion.usage if completion.is_usage_reported else None
    if b'"usage' not in body and not any(mark in body for mark in _REPORTS):
        return None
    return usage.of(retained_document(reply, body))


def _told(payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
    """Return the usage that a reply tells beside `usage`, or that its request told.

    Speech is billed by the characters of the request; a transcription tells its duration.
    """
    if media_type(reply.headers).startswith(b"audio/"):
        more = bounds.characters(payload.data)
        return None if more is None else Usage(more=more)
    if payload.endpoint.unit != "audio_s" or b'"duration"' not in body:
        return None
    document = retained_document(reply, body)
    duration = document.get("duration") if isinstance(document, dict) else None
    if duration is None:
        return None
    seconds = usage_headers.count(duration, "duration")
    return Usage(more=Details((("audio_s", seconds),))) if seconds > 0 else None


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
    content_holder = (
        message if isinstance(message, dict) else choice
    )  # completions: `text` in the choice
    text = (
        content_holder.get("content") or content_holder.get("text") or content_holder.get("refusal")
    )
    value = text or content_holder.get("tool_calls") or content_holder.get("function_call")
    if not value and (audio := content_holder.get("audio") or content_holder.get("images")):
        transcript = audio.get("transcript") if isinstance(audio, dict) else None
        length = len(transcript) if isinstance(transcript, str) else 0
        return ModelAnswer(transcript or None, _features_of(choice.get("finish_reason"), length))
    if not value:
        raise InvalidAnswer(f"an empty choice: {shown(choice)}")
    length = len(text) if isinstance(text, str) else 0
    return ModelAnswer(value, _features_of(choice.get("finish_reason"), length) + _sureness(choice))


def _listed(member: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; empty if it is no list."""
    return [each for each in member if isinstance(each, dict)] if isinstance(member, list) else []


def _features_of(finish_reason: Any, chars: int) -> tuple[float, ...]:
    finished = isinstance(finish_reason, str) and finish_reason in _FINISHED
    return float(finished), min(math.log1p(chars) / 10, 1.0)


def _sureness(choice: dict[str, Any]) -> tuple[float, ...]:
    """Return the mean and the minimum probability of the tokens; empty if there are none."""
    return logprobs.features(logprobs.logs_of(choice)) if "logprobs" in choice else ()


def _may_ask(payload: Payload) -> bool:
    """Whether the gateway may ask for log-probabilities: where the client does not.

    It may of chats and of completions, unless these echo the prompt, whose tokens would have some
    too. Not where the answer may be so long that they would make the reply too large to be read.
    """
    document = payload.data
    if payload.form is not None or not isinstance(document, dict):
        return False
    completes = "prompt" in document and not document.get("echo")
    if not ("messages" in document or (completes and _endpoint(payload).name == "completions")):
        return False
    if logprobs.asks(document) or _asks_for_sound(document):
        return False
    return bounds.output_tokens(document) <= LOGPROBS_TOKENS_MAX


def _asks_for_sound(document: dict[str, Any]) -> bool:
    return "audio" in document or "modalities" in document
