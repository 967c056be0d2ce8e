"""A streamed reply on its way from a backend to the client, event by event.

Nothing is read from the backend that the client does not take: a slow client slows the backend. It
ends once, however it ends (at its end, broken off, left by the client, past its deadline), and then
says so to whoever settles it.
"""

from collections.abc import Callable

from backends.types import BackendError, BadReply, Follower, Reply

EVENT_STREAM = b"text/event-stream"

Ended = Callable[[str, bool], None]
"""(why it broke off or "", whether the client left)"""


def is_stream(reply: Reply) -> bool:
    """Whether a reply is a stream of events."""
    if reply.status == 200:
        for name, value in reply.headers:
            if name == b"content-type" and value.startswith(EVENT_STREAM):
                return True
    return False


class Relay:
    """Reads a stream through a follower."""

    # The mutable state is what was read and not yet taken, and whether the stream is over.

    def __init__(self, reply: Reply, follower: Follower) -> None:
        self.reply = reply
        self.follower = follower
        self.on_end: Ended = lambda error, left: None
        self._chunks = aiter(reply.stream)
        self._first = b""
        self._drained = False
        self._ended = False

    async def begin(self) -> None:
        """Wait for the first event: until then nothing has been promised to the client.

        Raises BackendError where none comes, or where the first says that the call failed.
        """
        try:
            self._first = await self._next()
            if not self._first:
                raise BadReply("an empty stream")
            if self.follower.error:
                raise BadReply(f"an error in the stream: {self.follower.error}")
        except BaseException:
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
            return self.follower.feed(chunk)
        except ValueError as exc:
            raise BadReply(str(exc)) from exc

    @property
    def complete(self) -> bool:
        """Whether it was read to an end that the backend said was one."""
        return self._drained and self.follower.whole

    async def close(self, error: str = "", *, left: bool = False) -> None:
        """End it, at whatever point it is; once."""
        if self._ended:
            return
        self._ended = True
        try:
            await self.reply.stream.aclose()
        except BackendError as exc:
            error = error or str(exc)
        finally:
            self.on_end(error, left)
