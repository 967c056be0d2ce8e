"""Relays a reply as it comes, where it is a stream of events, or its size is not known or large.

Everything else is read whole first, so that another backend can be asked if it fails.
"""

from tollway.backends import usage_headers
from tollway.backends.bodies.media import MediaReader
from tollway.backends.documents import header, media_type, streams_events
from tollway.backends.errors import InvalidAnswer
from tollway.backends.protocols.http.reading import TEXT_BYTES_MAX, ReplyReader, is_text
from tollway.backends.types import Headers, HttpReply, ModelAnswer, Usage

WHOLE_BYTES_MAX = 256 << 10  # of a reply that is no document: a small image, a page of text
_LINES = (b"jsonl", b"json-lines", b"jsonlines", b"ndjson", b"json-seq", b"stream+json")


class HttpRelay(MediaReader):
    """Passes every byte on; keeps a short text, which may be the answer."""

    # The mutable state is the reply, and the text so far.
    def __init__(self, read: ReplyReader) -> None:
        super().__init__()
        self._read = read
        self._reply: HttpReply | None = None
        self._keeps = False
        self._text = b""

    def takes(self, reply: HttpReply) -> bool:
        """Return whether to relay a reply rather than read it first."""
        if not 200 <= reply.status < 300:
            return False
        kind = media_type(reply.headers)
        if streams_events(reply.headers) or kind.endswith(_LINES):
            self._reply = reply
            return True
        if b"json" in kind or not kind:
            return False
        size = header(reply.headers, b"content-length")
        if size is not None and size.isdigit() and len(size) < 10 and int(size) <= WHOLE_BYTES_MAX:
            return False
        self._reply, self._keeps = reply, is_text(kind)
        return True

    def feed(self, chunk: bytes) -> bytes:
        """Return the chunk."""
        if self._keeps:
            self._text += chunk
            self._keeps = len(self._text) <= TEXT_BYTES_MAX
        return chunk

    def reported_usage(self, headers: Headers) -> Usage | None:
        """Return the device seconds that header fields report."""
        return usage_headers.from_headers(headers)

    def answer(self) -> ModelAnswer:
        """Return the answer: a short text, or a header field."""
        if self._reply is None:
            return ModelAnswer()
        if not self._keeps:
            try:
                return self._read(self._reply, None)
            except InvalidAnswer:
                return ModelAnswer()  # nobody looked for it in the body
        return self._read(self._reply, self._text.decode("utf-8", "replace").strip())
