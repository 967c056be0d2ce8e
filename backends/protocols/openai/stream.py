"""A streamed completion: its text, its usage, and the chunk of usage that the client did not
request.

A server reports a stream's usage only if the request has `stream_options.include_usage`: in one
last chunk before `[DONE]`, with no choices. So the gateway always asks for it, and removes that
chunk again if the client did not ask. What else a server puts there (llama.cpp its `timings`) would
else have been in the chunk with the finish reason, so that chunk waits for it and gets it. If the
stream is cut the chunk is missing: the tokens seen are then a lower bound.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import orjson

from tollway.backends import openai_errors
from tollway.backends.documents import EVENT_STREAM
from tollway.backends.json_members import edited, texts, with_texts
from tollway.backends.protocols.openai import usage as openai_usage
from tollway.backends.protocols.openai.chunk_template import ChunkTemplate, enclosing
from tollway.backends.protocols.sse import (
    READ_BYTES_MAX,
    WHOLE_BYTES_MAX,
    Event,
    Events,
    InSlices,
    Splitter,
    in_slices,
    rest_in_slices,
)
from tollway.backends.sliced_json import LARGE_BYTES
from tollway.backends.stream_text import PARTS_MAX, size_bytes, spoken_bytes
from tollway.backends.types import Document, HttpReply, Usage

DONE = b"[DONE]"
_SAMPLE = b"a text"
_ERROR_EVENT = b"event: error"
_ACTS = frozenset(("tool_calls", "function_call", "refusal", "audio", "images"))
_TEMPLATES_MAX = 4  # tries in a stream: where each chunk has something new, no template helps
TEXT_BYTES_MAX = 4 << 20
"""Memory for the text of a stream, which is kept until its end: 50,000 chunks of a word or two."""

_TEXT_BYTES = 80  # of a str, beside its characters, and of its place in a list
_EXTRAS_MAX = 64  # members of a chunk of usage beside it; llama.cpp has one
_ENDS = {
    "response.completed": "stop",
    "response.incomplete": "length",
    "response.failed": "error",
}


_OF_ANY_CHUNK = frozenset(
    (
        *("id", "object", "created", "model", "choices", "usage", "system_fingerprint"),
        *("service_tier", "obfuscation", "provider"),
    )
)


def wants_usage(request: Any) -> bool:
    """Whether a request asks for the chunk of usage in any way; OpenRouter has one of its own."""
    wish = request.get("usage") if isinstance(request, dict) else None
    return asks_for_usage(request) or (isinstance(wish, dict) and wish.get("include") is True)


def asks_for_usage(request: Any) -> bool:
    """Whether a request itself asks for the chunk of usage."""
    options = request.get("stream_options") if isinstance(request, dict) else None
    return isinstance(options, dict) and options.get("include_usage") is True


class Completion:
    """Follows a stream event by event; `strip` says whether the chunk of usage is removed.

    Chat completions and completions stream chunks with choices; responses stream typed events, the
    last of which holds the usage.
    """

    media_type = EVENT_STREAM

    # The mutable state is the contents of the chunks so far.
    def __init__(self, *, strip: bool = False) -> None:
        self._strip = strip
        self._reported_usage: Usage | None = None
        self._reports: dict[str, Any] = {}
        self._tier: Any = None
        self._is_final = False
        self._deltas = 0
        self._texts: list[str] = []
        self._text_left = TEXT_BYTES_MAX
        self._keeps_text = True
        self.spoken_bytes = 0
        self.finish_reason: str | None = None
        self.error: Any = None
        self.begun = False
        self.done = False
        self.is_media = False
        self.object_id = ""
        self.acted = False  # whether it answered by other means than text: a call, a sound, ...
        self._events: Splitter = Events()
        self._template: ChunkTemplate | None = None
        self._templates_left = _TEMPLATES_MAX
        self._held: Event | None = None  # the chunk with the finish reason, if usage may follow
        self._extras: dict[str, bytes] = {}  # what a removed chunk of usage had beside the usage

    def feed(self, chunk: bytes) -> bytes:
        """Read a chunk of the stream; return what goes to the client: whole events."""
        if not self._events.waiting and self._repeats(chunk):
            return chunk
        events = self._events.feed(chunk)
        if len(events) == 1:
            return self.relay(events[0])
        return b"".join([self.relay(event) for event in events])

    def close(self) -> bytes:
        """Return what is left at the end: an event without its blank line."""
        last = self._events.close()
        out = b"" if last is None else self.relay(last)
        return out + self.release()

    def feed_slices(self, chunk: bytes) -> InSlices:
        """Do what `feed` does, and yield after each slice of some milliseconds."""
        return in_slices(self._events, chunk, self.relay)

    def close_slices(self) -> InSlices:
        """Do what `close` does, and yield after each slice of some milliseconds."""
        out = yield from rest_in_slices(self._events, self.relay)
        return out + self.release()

    def release(self) -> bytes:
        """Return the event that waits for a later one, which will not come."""
        held, self._held = self._held, None
        return b"" if held is None else held.raw

    def mute(self) -> None:
        """Store no more text from now on: the answer will not be needed."""
        self._keeps_text = False
        self._texts.clear()

    @property
    def waiting(self) -> int:
        """How many bytes of an unfinished event are buffered."""
        return self._events.waiting

    def relay(self, event: Event, document: Document | None = None) -> bytes:
        """Read an event; return what of it goes to the client (perhaps nothing).

        `document`: its data, if that is large and was read in slices.
        """
        if self._repeats(event.raw):
            return event.raw
        spoken_bytes = self.spoken_bytes
        held, self._held = self._held, None
        out = self._read(event, document)
        if held is not None or self._extras:
            out = self._with_extras(held, event) + out
        if self._templates_left and self.spoken_bytes > spoken_bytes and self._held is None:
            self._templates_left -= 1
            self._template = _template(event.raw)
        return out

    def _read(self, event: Event, document: Document | None) -> bytes:
        if event.data is None:
            return event.raw  # a comment, to keep the connection alive
        self.begun = True
        if len(event.data) > READ_BYTES_MAX:
            return event.raw  # its usage is not worth the memory
        if document is None and event.data.strip() == DONE:
            self.done = True
            return event.raw
        try:
            chunk = orjson.loads(event.data) if document is None else _value(document)
        except ValueError:
            if event.raw.startswith(_ERROR_EVENT):
                self.error = event.data.decode(errors="replace") or self.error
            return event.raw
        self.error = openai_errors.error_in(chunk) or self.error
        if not isinstance(chunk, dict):
            return event.raw
        self.spoken_bytes += spoken_bytes(chunk)
        is_usage = self._note(chunk, event.data)
        return self._kept(event, chunk, is_usage=is_usage) if self._strip else event.raw

    def _kept(self, event: Event, chunk: dict[str, Any], *, is_usage: bool) -> bytes:
        """Return what of a chunk goes at once to a client that did not ask for the usage."""
        if is_usage:
            data = event.data or b""
            names = [name for name in chunk if name not in _OF_ANY_CHUNK]
            if len(names) <= _EXTRAS_MAX and len(data) <= LARGE_BYTES:
                self._extras = texts(data, names)
            return b""
        if not _finishes(chunk):
            return event.raw
        self._held, self._template = event, None  # no later chunk may pass it by
        return b""

    def _with_extras(self, held: Event | None, usage: Event) -> bytes:
        """Return the chunk that was held, with what a removed chunk of usage had beside it."""
        extras, self._extras = self._extras, {}
        if not extras:
            return b"" if held is None else held.raw
        if held is not None and (whole := _edited(held, lambda data: with_texts(data, extras))):
            return whole
        alone = _edited(usage, lambda data: edited(data, {"usage": None}))
        return (b"" if held is None else held.raw) + alone

    def refusal(self) -> tuple[int, bytes]:
        """Return the status and body of a unary reply with the error that the stream reports."""
        document = openai_errors.body_of(self.error)
        if self._reports:
            document["usage"] = self._reports
        return openai_errors.status_of(self.error), orjson.dumps(document, default=repr)

    @property
    def text(self) -> str:
        """The text of the first choice so far."""
        return "".join(self._texts)

    @property
    def usage(self) -> Usage:
        """The usage of the stream: as reported, or at least the tokens seen."""
        if self._reported_usage is not None and (self._is_final or self.done or self.finish_reason):
            return self._reported_usage
        if (
            self._reported_usage is not None
        ):  # reported on the way, as some servers do with every chunk
            seen = max(self._reported_usage.output_tokens, float(self._deltas))
            return replace(self._reported_usage, output_tokens=seen, exact=False)
        return Usage(output_tokens=float(self._deltas), exact=False)

    @property
    def is_usage_reported(self) -> bool:
        """Whether the server reported the usage."""
        return self._reported_usage is not None

    def _note(self, chunk: dict[str, Any], data: bytes) -> bool:
        """Read a chunk, `data` as it came; return whether it holds nothing but usage."""
        kind = chunk.get("type")
        if isinstance(kind, str) and kind.startswith("response."):
            self._note_response(kind, chunk)
            return False
        usage = chunk.get("usage")
        if usage is None and "usage" not in chunk and _reports(data):
            usage = openai_usage.member_of(chunk)
        if isinstance(usage, dict):
            self._note_usage(chunk, usage)
        choices = chunk.get("choices")
        if (
            not isinstance(choices, list) or not choices
        ):  # [] by OpenAI, null by some versions of vLLM
            self._is_final |= usage is not None and kind != "message_start" and _ends(chunk)
            return isinstance(chunk.get("usage"), dict) and not (kind or chunk.get("error"))
        for choice in choices[:PARTS_MAX]:
            self._follow(choice)
        return False

    def _note_usage(self, chunk: dict[str, Any], usage: dict[str, Any]) -> None:
        """Merge a report of usage into the earlier ones: the later value of a name counts.

        Anthropic's first event reports the input, its last the output.
        """
        if len(usage) > openai_usage.MEMBERS_MAX:
            return
        self._tier = chunk.get("service_tier") or self._tier
        self.object_id = self.object_id or str(chunk.get("id") or "")
        news = {name: value for name, value in usage.items() if value is not None}
        merged = {**self._reports, **news}
        with suppress(ValueError):  # counts that are not numbers are ignored
            reported = openai_usage.read(merged, tier=self._tier)
            if reported is not None:
                self._reported_usage = reported
            self._reports = merged

    def _note_response(self, kind: str, chunk: dict[str, Any]) -> None:
        """Read an event of the responses API."""
        if kind.endswith(".delta"):
            self._deltas += 1
            self.acted = self.acted or any(act in kind for act in ("_call", "audio", "refusal"))
            if kind == "response.output_text.delta" and isinstance(chunk.get("delta"), str):
                self._keep(chunk["delta"])
        response = chunk.get("response")
        if isinstance(response, dict) and not self.object_id:
            self.object_id = str(response.get("id") or "")
        if kind in _ENDS and isinstance(response, dict):
            with suppress(ValueError):
                self._reported_usage = openai_usage.of(response) or self._reported_usage
            self.error = response.get("error") or self.error
            self.finish_reason, self.done = _ENDS[kind], True

    def _follow(self, choice: Any) -> None:
        if not isinstance(choice, dict):
            return
        delta = choice.get("delta")
        message = delta if isinstance(delta, dict) else choice  # `text` is in the choice itself
        text = message.get("content") or message.get("text")
        # A chunk holds a token at least: of text, of reasoning, or of a call's arguments.
        if (
            text
            or message.get("tool_calls")
            or message.get("reasoning_content")
            or message.get("reasoning")
        ):
            self._deltas += 1
        if not (self.acted or message.keys().isdisjoint(_ACTS)) and any(map(message.get, _ACTS)):
            self.acted = True
        if choice.get("index", 0) == 0:
            if isinstance(text, str):
                self._keep(text)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _repeats(self, event: bytes) -> bool:
        """Read an event if it differs from an earlier one in its text only; return whether."""
        template = self._template
        if template is None or not (text := template.text_of(event)):
            return False
        self._speak(text, is_answer=template.is_answer)
        return True

    def _speak(self, text: str, *, is_answer: bool) -> None:
        """Read a chunk that holds a text and nothing else of interest."""
        self._deltas += 1
        self.spoken_bytes += size_bytes(text)
        if is_answer:
            self._keep(text)

    def _keep(self, text: str) -> None:
        if self._keeps_text and self._text_left > 0:
            self._text_left -= len(text) + _TEXT_BYTES
            self._texts.append(text)


def _value(document: Document) -> Any:
    """Return a document's value; ValueError if it is not valid JSON."""
    if document.fault:
        raise ValueError(document.fault)
    return document.value


def _edited(event: Event, edit: Callable[[bytes], bytes]) -> bytes:
    """Return an event with edited data; nothing if that is large, or spread over lines."""
    data = event.data or b""
    if len(data) > LARGE_BYTES or event.raw.count(data) != 1:
        return b""
    return event.raw.replace(data, edit(data))


def _finishes(chunk: dict[str, Any]) -> bool:
    """Whether a chunk ends an answer."""
    choices = chunk.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") for choice in choices[:PARTS_MAX]
    )


def _template(event: bytes) -> ChunkTemplate | None:
    """Return the template of an event's chunk; None if more than its text is of interest.

    The chunk is read with another text, once whole and once by the template: both must say the
    same.
    """
    found = enclosing(event)
    if found is None:
        return None
    whole = Completion()
    whole._templates_left = 0
    if whole.feed(found.head + _SAMPLE + found.tail) == b"" or whole.waiting:
        return None
    found = replace(found, is_answer=bool(whole.text))
    return found if _state(whole) == _after_sample(found.is_answer) else None


@cache
def _after_sample(is_answer: bool) -> dict[str, Any]:
    """Return the state of a stream after one chunk that holds the sample and nothing else."""
    told = Completion()
    told._templates_left, told.begun = 0, True
    told._speak(_SAMPLE.decode(), is_answer=is_answer)
    return _state(told)


def _state(completion: Completion) -> dict[str, Any]:
    return {name: value for name, value in vars(completion).items() if name != "_events"}


def _reports(data: bytes) -> bool:
    """Whether usage may be reported somewhere in a chunk (0.1 us)."""
    return b'"usage' in data or b'invocationMetrics"' in data


def _ends(chunk: dict[str, Any]) -> bool:
    """Whether a chunk's report is for the whole stream: Gemini's are, from the first on."""
    candidates = chunk.get("candidates")
    if not isinstance(candidates, list):
        return True
    return any(isinstance(one, dict) and one.get("finishReason") for one in candidates[:PARTS_MAX])


Reader = TypeVar("Reader", bound=Completion)


def read_whole(reply: HttpReply, body: bytes, reader: Reader) -> Reader:
    """Return a reader of a whole streamed body; that of its slices if it is large and has been
    followed in slices.
    """
    if reply.followed is not None and isinstance(reply.followed[0], type(reader)):
        return reply.followed[0]
    if len(body) <= WHOLE_BYTES_MAX:
        reader.feed(body)
        reader.close()
    return reader


def follow(reply: HttpReply, body: bytes) -> Completion:
    """Follow a whole streamed body."""
    return read_whole(reply, body, Completion())
