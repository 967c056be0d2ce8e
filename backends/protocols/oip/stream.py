"""Follows a streamed inference: the events of `generate_stream` and `infer_stream`.

An event is a whole reply, so each has the model's name. The answer is the texts of all events.
"""

from typing import Any

import orjson

from tollway.backends import usage_headers
from tollway.backends.documents import EVENT_STREAM, load_reply, shown
from tollway.backends.errors import InvalidAnswer
from tollway.backends.protocols.oip import names
from tollway.backends.protocols.sse import (
    READ_BYTES_MAX,
    Event,
    Events,
    InSlices,
    in_slices,
    rest_in_slices,
)
from tollway.backends.types import Document, Headers, ModelAnswer, Usage

TEXT_CHARS_MAX = 64 << 10  # of the answer that is kept


class EventReader:
    """Passes events on, with the model's name that was asked for."""

    is_media = False
    media_type = EVENT_STREAM
    object_id = ""

    # The mutable state is the unfinished event, and the texts so far.
    def __init__(self, model: str) -> None:
        self._model = model
        self._events = Events()
        self._texts: list[str] = []
        self._keeps = True
        self.error: Any = None
        self.begun = False
        self.spoken_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """Return the events that a chunk completes."""
        return b"".join([self._passed(event) for event in self._events.feed(chunk)])

    def close(self) -> bytes:
        """Return what is left at the end."""
        last = self._events.close()
        return b"" if last is None else self._passed(last)

    def feed_slices(self, chunk: bytes) -> InSlices:
        """Do what `feed` does, and yield after each slice of some milliseconds."""
        return in_slices(self._events, chunk, self._passed)

    def close_slices(self) -> InSlices:
        """Do what `close` does, and yield after each slice of some milliseconds."""
        return rest_in_slices(self._events, self._passed)

    def release(self) -> bytes:
        """Return nothing: no event waits for a later one."""
        return b""

    def mute(self) -> None:
        """Store no more of the answer."""
        self._keeps = False
        self._texts.clear()

    def refusal(self) -> tuple[int, bytes]:
        """Return the status and body of a unary reply with the error that the stream reports."""
        return 500, orjson.dumps({"error": str(self.error)})

    @property
    def waiting(self) -> int:
        """How many bytes of an unfinished event are buffered."""
        return self._events.waiting

    def reported_usage(self, headers: Headers) -> Usage | None:
        """Return the device seconds that header fields report."""
        return usage_headers.from_headers(headers)

    def answer(self) -> ModelAnswer:
        """Return the texts of all events; InvalidAnswer if there are none."""
        if not self._texts:
            raise InvalidAnswer("no event has a text")
        return ModelAnswer("".join(self._texts))

    def _passed(self, event: Event, document: Document | None = None) -> bytes:
        """Note what an event says, and return it with the right name."""
        if event.data is None:
            return event.raw
        self.begun = True
        self._note(event.data, document)
        new = names.in_document(event.data, self._model)
        return event.raw if new is event.data else event.raw.replace(event.data, new, 1)

    def _note(self, data: bytes, sliced: Document | None) -> None:
        if sliced is None and len(data) > READ_BYTES_MAX:
            return
        try:
            document = load_reply(data) if sliced is None else sliced.value
        except InvalidAnswer:
            return
        if not isinstance(document, dict):
            return
        if document.get("error") and self.error is None:
            self.error = shown(document["error"])
        text = document.get("text_output")
        if isinstance(text, str):
            self.spoken_bytes += len(text.encode("utf-8", "replace"))
            if self._keeps and self.spoken_bytes <= TEXT_CHARS_MAX:
                self._texts.append(text)
