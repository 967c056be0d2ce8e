"""A streamed reply on its way from a backend to the client, event by event.

Nothing is read from the backend that the client does not take: a slow client slows the backend. The
stream is over when its body is, whatever its events said of an end; it ends once, however it ends
(at its end, broken off, left by the client, past its deadline), and then says so to whoever settles
it.
"""

from collections.abc import Callable

from backends.documents import EVENT_STREAM, media_type
from backends.types import BackendError, BadReply, Follower, Reply
from gateway.buffers import Buffer

COMMENTS_BYTES_MAX = 64 << 10
"""Of comments before the first event that are kept for the client: a ping a second, for an hour."""

Ended = Callable[[str, bool], None]
"""(why it broke off or "", whether the client left)"""


def is_stream(reply: Reply) -> bool:
    """Whether a reply is a stream of events."""
    return reply.status == 200 and media_type(reply.headers) == EVENT_STREAM


class Relay:
    """Reads a stream through a follower, within what it may buffer."""

    # The mutable state is what was read and not yet taken, and whether the stream is over.

    def __init__(self, reply: Reply, follower: Follower, buffer: Buffer) -> None:
        self.reply = reply
        self.follower = follower
        self.on_end: Ended = lambda error, left: None
        self._buffer = buffer
        self._chunks = aiter(reply.stream)
        self._first = b""
        self._drained = False
        self._ended = False

    async def begin(self) -> None:
        """Wait for the first event: until then nothing has been promised to the client.

        A comment is none: it goes to the client with what follows. Raises BackendError where no
        event comes, or where the first says that the call failed.
        """
        try:
            first, size = [], 0
            while not self.follower.begun and (part := await self._next()):
                if self.follower.begun or size + len(part) <= COMMENTS_BYTES_MAX:
                    first.append(part)
                    size += len(part)
            if self.follower.error:
                raise BadReply(f"an error in the stream: {self.follower.error}")
            if not self.follower.begun:
                raise BadReply("an empty stream")
            self._first = b"".join(first)
        except BaseException:
            self._buffer.close()
            await self.reply.stream.aclose()
            raise

    async def read(self) -> bytes:
        """Return what goes to the client next; empty at the end. BackendError: it broke off."""
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._next()

    async def _next(self) -> bytes:
        while not self._drained:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                self._drained = True
                if rest := self.follower.close():
                    return rest
            elif out := self._feed(chunk):
                return out
        return b""

    def _feed(self, chunk: bytes) -> bytes:
        try:
            out = self.follower.feed(chunk)
            self._buffer.hold(self.follower.waiting)
        except ValueError as exc:
            raise BadReply(str(exc)) from exc
        return out

    async def close(self, error: str = "", *, left: bool = False) -> None:
        """End it, at whatever point it is; once."""
        if self._ended:
            return
        self._ended = True
        self._buffer.close()
        try:
            await self.reply.stream.aclose()
        except BackendError as exc:
            error = error or str(exc)
        finally:
            self.on_end(error, left)
