"""A streamed reply on its way from a backend to the client, event by event.

The relay reads from the backend only as fast as the client reads, so a slow client slows the
backend. The stream is over when its body ends, even if an event announced the end earlier. It ends
exactly once, whatever the cause (its end, a break, a client that disconnects, the deadline), and
then calls `on_end`, which settles it.
"""

from collections.abc import Awaitable, Callable, Generator

from tollway.backends import openai_errors
from tollway.backends.documents import EVENT_STREAM, media_type
from tollway.backends.errors import BackendError, BadReply, FailedAtOnce
from tollway.backends.ports import StreamReader
from tollway.backends.protocols.sse import is_small
from tollway.backends.rules.backend import WholeRequestRules
from tollway.backends.types import HttpReply
from tollway.gateway.routing.bodies.buffers import Buffer

COMMENTS_BYTES_MAX = 64 << 10
"""Limit of the comments before the first event that are kept for the client: one ping per second
for an hour."""

HELD_BYTES_MAX = 256 << 10
"""Limit of what is held back of a stream until a cascade has decided: text has some bytes a token,
and log-probabilities a hundred."""

CLOSE, DRAIN = "close", "drain"
"""What is done with a stream whose client has disconnected."""

_OF_THE_STREAM = frozenset({b"content-type", b"content-length", b"content-encoding"})

Ended = Callable[[str, str], None]
"""(error or "", CLOSE or DRAIN if the client disconnected, ESCALATED, or "")"""

Work = Generator[None, None, bytes]
InTurns = Callable[[Work], Awaitable[bytes]]
"""Does work that yields after each slice, in turns with other work."""


def is_stream(reply: HttpReply, kind: bytes = EVENT_STREAM) -> bool:
    """Whether a reply is a stream; `kind`: its media type, which its reader knows."""
    return reply.status == 200 and media_type(reply.headers) == kind


class StreamRelay:
    """Relays a stream through a stream reader, within its buffer limit."""

    # The mutable state is the data read but not yet taken, a chunk that is being read, the time of
    # the first text, and whether the stream is over.

    def __init__(
        self,
        reply: HttpReply,
        follower: StreamReader,
        buffer: Buffer,
        *,
        in_turns: InTurns,
        clock: Callable[[], float],
        drain_s: float = 0.0,
    ) -> None:
        """`in_turns` reads large events.

        `drain_s`: how long to read on after the client disconnects; 0 closes it at once.
        """
        self.reply = reply
        self.follower = follower
        self.on_end: Ended = lambda error, abandoned: None
        self.drain_s = drain_s
        self.tap: Callable[[bytes], None] | None = None
        """Gets what goes to the client, if it is recorded."""
        self.spoke_s: float | None = None
        """The time of its first text, on `clock`; None before that."""
        self._clock = clock
        self._buffer = buffer
        self._chunks = aiter(reply.stream)
        self._in_turns = in_turns
        self._work: Work | None = None
        self._first = b""
        self.whole = False
        """Whether it was read to the end of its body."""
        self._ended = False

    async def begin(self) -> None:
        """Wait for the first event; until then nothing has been sent to the client.

        A comment does not count as an event: it goes to the client with what follows. Raises
        BackendError if no event comes or if the first one reports that the call failed.
        """
        try:
            first, size = [], 0
            while not self.follower.begun and (part := await self.read()):
                if self.follower.begun or size + len(part) <= COMMENTS_BYTES_MAX:
                    first.append(part)
                    size += len(part)
            if self.follower.error:
                raise self._failure()
            if not self.follower.begun:
                raise BadReply("an empty stream")
            self._first = b"".join(first)
        except BaseException:
            self._buffer.close()
            await self.reply.stream.aclose()
            raise

    async def hold(self, text_bytes: int) -> None:
        """Hold back the beginning of a stream, until `text_bytes` of text have come, or its end.

        Raises BackendError if it breaks off before that; nothing has been sent to the client.
        """
        parts, size = [self._first], len(self._first)
        self._first = b""
        try:
            while self.follower.spoken_bytes < text_bytes and size < HELD_BYTES_MAX:
                if not (part := await self.read()):
                    break
                parts.append(part)
                size += len(part)
            if self.follower.error:
                raise self._failure()
        except BaseException:
            self._buffer.close()
            await self.reply.stream.aclose()
            raise
        self._first = b"".join(parts)

    def _failure(self) -> BadReply:
        """Return the failure that its first events report."""
        why = f"an error in the stream: {openai_errors.text_of(self.follower.error)}"
        if self.follower.spoken_bytes:
            return BadReply(why)
        return FailedAtOnce(why, *self.follower.refusal())

    async def read(self) -> bytes:
        """Return the next bytes for the client, empty at the end; BackendError if it broke off."""
        out = await self._next()
        if self.tap is not None:
            self.tap(out)
        return out

    async def _next(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        if self.whole:
            return b""
        follower = self.follower
        if self._work is not None and (out := await self._done(self._work)):
            return out
        async for chunk in self._chunks:
            if is_small(chunk, follower.waiting):
                try:
                    out = follower.feed(chunk)
                    self._buffer.hold(follower.waiting)
                except ValueError as exc:
                    raise BadReply(str(exc)) from exc
            else:
                out = await self._done(follower.feed_slices(chunk))
            if self.spoke_s is None and follower.spoken_bytes:
                self.spoke_s = self._clock()
            if out:
                return out
        out = await self._done(follower.close_slices())
        self.whole = True
        return out

    async def _done(self, work: Work) -> bytes:
        """Return the result of work on a large chunk.

        If the caller is cancelled, because its client has disconnected, whoever reads on to the
        end of the stream goes on with the work: there may be usage in it.
        """
        self._work = work
        try:
            try:
                next(work)  # nearly always all of it
            except StopIteration as end:
                out: bytes = end.value
            else:
                out = await self._in_turns(work)
            self._buffer.hold(self.follower.waiting)
        except ValueError as exc:
            self._work = None
            raise BadReply(str(exc)) from exc
        self._work = None
        return out

    async def close(self, error: str = "", *, abandoned: str = "") -> None:
        """End the stream at any point; later calls have no effect."""
        if self._ended:
            return
        self._ended = True
        self._buffer.close()
        try:
            await self.reply.stream.aclose()
        except BackendError as exc:
            error = error or str(exc)
        finally:
            self.on_end(error, abandoned)


def refusal(reply: HttpReply, failure: FailedAtOnce) -> HttpReply:
    """Return the error reply that the server would have sent before the head of the stream."""
    headers = [pair for pair in reply.headers if pair[0] not in _OF_THE_STREAM]
    headers.append((b"content-type", b"application/json"))
    return HttpReply(failure.status, headers, WholeRequestRules(failure.body))
