"""Media: replies that are files (sound, images, stored content), relayed as they come.

They may be larger than any reply that is read, and a client plays a sound while it arrives.
"""

from collections.abc import Generator
from typing import Any

from tollway.backends.documents import media_type
from tollway.backends.types import Headers, HttpReply, ModelAnswer, Usage


class MediaReader:
    """Passes every byte on; the usage is that of the request, if that tells it."""

    is_media = True
    media_type = b""
    error: Any = None
    begun = True
    spoken_bytes = 0
    waiting = 0
    object_id = ""

    def __init__(self, usage: Usage | None = None) -> None:
        self._usage = usage

    def takes(self, reply: HttpReply) -> bool:
        """Return whether a reply's body is anything but a document."""
        kind = media_type(reply.headers)
        return reply.status in (200, 206) and bool(kind) and b"json" not in kind

    def feed(self, chunk: bytes) -> bytes:
        """Return the chunk."""
        return chunk

    def close(self) -> bytes:
        """Return nothing: nothing is held back."""
        return b""

    def feed_slices(self, chunk: bytes) -> Generator[None, None, bytes]:
        """Return the chunk: nothing in it takes time."""
        yield from ()
        return self.feed(chunk)

    def close_slices(self) -> Generator[None, None, bytes]:
        """Return nothing: nothing is held back."""
        yield from ()
        return self.close()

    def release(self) -> bytes:
        """Return nothing: nothing is held back."""
        return b""

    def mute(self) -> None:
        """Do nothing: nothing is kept."""

    def refusal(self) -> tuple[int, bytes]:
        """Return the status and body of a failure, of which a file reports none."""
        return 502, b""

    def reported_usage(self, headers: Headers) -> Usage | None:
        """Return the usage that the request tells."""
        return self._usage

    def answer(self) -> ModelAnswer:
        """Return an answer without a value."""
        return ModelAnswer()
