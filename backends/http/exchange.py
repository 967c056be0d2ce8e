"""One call's reply as it arrives at a connection, and the stream of its body."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from tollway.backends.errors import BackendError
from tollway.backends.types import Headers
from tollway.eager import Reply

# Memory of a chunk beside its bytes: a flood of chunks of one byte is a flood too.
_CHUNK_BYTES = 64


class Carrier(Protocol):
    """The connection that carries an exchange."""

    def read_on(self) -> None:
        """Resume reading from the backend: the reply so far has been read."""

    def abandon(self) -> None:
        """End the exchange by cutting the connection."""


class Exchange:
    """One call's reply as it arrives; also the stream of its body."""

    __slots__ = ("_buffered", "_chunks", "_on_first", "_wakeup", "connection", "error", "head",
                 "headers", "known", "status")  # fmt: skip

    # The mutable state of an exchange belongs to its connection until `connection` is None.
    def __init__(self, connection: Carrier) -> None:
        self.connection: Carrier | None = connection
        self.head = Reply()
        self.status = 0
        self.headers: Headers = []
        self.known: Any = None  # what is known of its head, if that came before
        self.error: BackendError | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._on_first: Callable[[], None] | None = None
        self._wakeup: Reply | None = None

    def feed(self, chunk: bytes) -> int:
        """Add a part of the body; return how much memory waits to be read, in bytes."""
        self._chunks.append(chunk)
        self._buffered += len(chunk) + _CHUNK_BYTES
        if self._on_first is not None:
            first, self._on_first = self._on_first, None
            first()
        return self._buffered

    def on_first(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the first part of the body arrives, at once if it already has."""
        if self._chunks:
            callback()
        elif self.connection is not None:
            self._on_first = callback

    def wake(self) -> None:
        """Wake the task that waits for the head or for more of the body."""
        self.head.bring()
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.bring()

    @property
    def whole(self) -> bytes | None:
        """The body if it has ended well and nothing of it was read; else None."""
        if self.connection is not None or self.error is not None:
            return None
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return all that waits: a reader that is behind catches up in one step."""
        while not self._chunks:
            if self.error is not None:
                raise self.error
            if self.connection is None:
                raise StopAsyncIteration
            self._wakeup = Reply()
            await self._wakeup
        chunks = self._chunks
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self.connection is not None:
            self.connection.read_on()
        return chunk

    async def aclose(self) -> None:
        """End the exchange; cut the connection if the body was not read to its end."""
        self._chunks.clear()
        if self.connection is not None:
            self.connection.abandon()
