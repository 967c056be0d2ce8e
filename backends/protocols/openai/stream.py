"""A streamed completion: its text, its usage, and the chunk of usage that the client did not
request.

A server reports a stream's usage only if the request has `stream_options.include_usage`: in one
last chunk before `[DONE]`, with no choices. So the gateway always asks for it, and removes that
chunk again if the client did not ask. If the stream is cut the chunk is missing: the tokens seen
are then a lower bound.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson

from tollway.backends import openai_errors
from tollway.backends.protocols.openai import usage as openai_usage
from tollway.backends.protocols.sse import Event, Events
from tollway.backends.stream_text import spoken_bytes
from tollway.backends.types import Usage

DONE = b"[DONE]"
_ERROR_EVENT = b"event: error"
_ACTS = frozenset(("tool_calls", "function_call", "refusal", "audio", "images"))
_READ_BYTES_MAX = 4 << 20  # of an event's data, without what is only base64: 8 ms
_ENDS = {
    "response.completed": "stop",
    "response.incomplete": "length",
    "response.failed": "error",
}


def asks_for_usage(request: Any) -> bool:
    """Whether a request itself asks for the chunk of usage."""
    options = request.get("stream_options") if isinstance(request, dict) else None
    return isinstance(options, dict) and options.get("include_usage") is True


def asking_for_usage(request: dict[str, Any]) -> dict[str, Any]:
    """Return a streaming request that asks for the chunk of usage."""
    options = request.get("stream_options")
    options = options if isinstance(options, dict) else {}
    return {**request, "stream_options": {**options, "include_usage": True}}


class Completion:
    """Follows a stream event by event; `strip` says whether the chunk of usage is removed.

    Chat completions and completions stream chunks with choices; responses stream typed events, the
    last of which holds the usage.
    """

    # The mutable state is the contents of the chunks so far.
    def __init__(self, *, strip: bool = False) -> None:
        self._strip = strip
        self._told: Usage | None = None
        self._reports: dict[str, Any] = {}
        self._tier: Any = None
        self._is_final = False
        self._deltas = 0
        self._texts: list[str] = []
        self._keeps_text = True
        self.spoken_bytes = 0
        self.finish_reason: str | None = None
        self.error: Any = None
        self.begun = False
        self.done = False
        self.acted = False  # whether it answered by other means than text: a call, a sound, ...
        self._events = Events()

    def feed(self, chunk: bytes) -> bytes:
        """Read a chunk of the stream; return what goes to the client: whole events."""
        events = self._events.feed(chunk)
        if len(events) == 1:
            return self.relay(events[0])
        return b"".join([self.relay(event) for event in events])

    def close(self) -> bytes:
        """Return what is left at the end: an event without its blank line."""
        last = self._events.close()
        return b"" if last is None else self.relay(last)

    def mute(self) -> None:
        """Store no more text from now on: the answer will not be needed."""
        self._keeps_text = False
        self._texts.clear()

    @property
    def waiting(self) -> int:
        """How many bytes of an unfinished event are buffered."""
        return self._events.waiting

    def relay(self, event: Event) -> bytes:
        """Read an event; return what of it goes to the client (perhaps nothing)."""
        if event.data is None:
            return event.raw  # a comment, to keep the connection alive
        self.begun = True
        if len(event.data) > _READ_BYTES_MAX:
            return event.raw  # its usage is not worth blocking all other requests
        if event.data.strip() == DONE:
            self.done = True
            return event.raw
        try:
            chunk = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            if event.raw.startswith(_ERROR_EVENT):
                self.error = event.data.decode(errors="replace") or self.error
            return event.raw
        self.error = openai_errors.told(chunk) or self.error
        if not isinstance(chunk, dict):
            return event.raw
        self.spoken_bytes += spoken_bytes(chunk)
        return b"" if self._note(chunk, event.data) and self._strip else event.raw

    def refusal(self) -> tuple[int, bytes]:
        """Return the status and body of a unary reply with the error that the stream reports."""
        document = openai_errors.body_of(self.error)
        if self._reports:
            document["usage"] = self._reports
        return openai_errors.status_of(self.error), orjson.dumps(document)

    @property
    def text(self) -> str:
        """The text of the first choice so far."""
        return "".join(self._texts)

    @property
    def usage(self) -> Usage:
        """The usage of the stream: as reported, or at least the tokens seen."""
        if self._told is not None and (self._is_final or self.done or self.finish_reason):
            return self._told
        if self._told is not None:  # reported on the way, as some servers do with every chunk
            seen = max(self._told.output_tokens, float(self._deltas))
            return replace(self._told, output_tokens=seen, exact=False)
        return Usage(output_tokens=float(self._deltas), exact=False)

    @property
    def is_told(self) -> bool:
        """Whether the server reported the usage."""
        return self._told is not None

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
        for choice in choices:
            self._follow(choice)
        return False

    def _note_usage(self, chunk: dict[str, Any], usage: dict[str, Any]) -> None:
        """Merge a report of usage into the earlier ones: the later value of a name counts.

        Anthropic's first event reports the input, its last the output.
        """
        self._tier = chunk.get("service_tier") or self._tier
        news = {name: value for name, value in usage.items() if value is not None}
        merged = {**self._reports, **news}
        with suppress(ValueError):  # counts that are not numbers are ignored
            told = openai_usage.read(merged, tier=self._tier)
            if told is not None:
                self._told = told
            self._reports = merged

    def _note_response(self, kind: str, chunk: dict[str, Any]) -> None:
        """Read an event of the responses API."""
        if kind.endswith(".delta"):
            self._deltas += 1
            self.acted = self.acted or any(act in kind for act in ("_call", "audio", "refusal"))
            if kind == "response.output_text.delta" and isinstance(chunk.get("delta"), str):
                self._keep(chunk["delta"])
        response = chunk.get("response")
        if kind in _ENDS and isinstance(response, dict):
            with suppress(ValueError):
                self._told = openai_usage.of(response) or self._told
            self.error = response.get("error") or self.error
            self.finish_reason, self.done = _ENDS[kind], True

    def _follow(self, choice: Any) -> None:
        if not isinstance(choice, dict):
            return
        delta = choice.get("delta")
        said = delta if isinstance(delta, dict) else choice  # `text` is in the choice itself
        text = said.get("content") or said.get("text")
        # A chunk holds a token at least: of text, of reasoning, or of a call's arguments.
        if text or said.get("tool_calls") or said.get("reasoning_content") or said.get("reasoning"):
            self._deltas += 1
        if not (self.acted or _ACTS.isdisjoint(said)) and any(map(said.get, _ACTS)):
            self.acted = True
        if choice.get("index", 0) == 0:
            if isinstance(text, str):
                self._keep(text)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _keep(self, text: str) -> None:
        if self._keeps_text:
            self._texts.append(text)


def _reports(data: bytes) -> bool:
    """Whether usage may be reported somewhere in a chunk (0.1 us)."""
    return b'"usage' in data or b'invocationMetrics"' in data


def _ends(chunk: dict[str, Any]) -> bool:
    """Whether a chunk's report is for the whole stream: Gemini's are, from the first on."""
    candidates = chunk.get("candidates")
    if not isinstance(candidates, list):
        return True
    return any(isinstance(one, dict) and one.get("finishReason") for one in candidates)


def follow(body: bytes) -> Completion:
    """Follow a whole streamed body."""
    completion = Completion()
    completion.feed(body)
    completion.close()
    return completion
