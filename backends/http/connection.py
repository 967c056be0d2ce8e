"""One HTTP/1.1 connection to a backend: one call on the wire at a time, and its reply.

Theory of operation. A connection carries one `Exchange` at a time through four phases:

    IDLE -> HEAD -> BODY -> DONE -> IDLE | closed

The parser's callbacks change the phase and fill the exchange; `data_received` acts once the whole
read is parsed. So a small reply is complete before any task wakes: the connection is back in its
pool, and the caller holds only bytes. An exchange ends exactly once, in `_end`, however it ends
(complete, cut, malformed, late, abandoned), and there its owner is notified.

A surprise: the parser is strict about heads (RFC 9112) but accepts any status number, any version
and codings before `chunked`, and it buffers a header field without limit while it trickles in. So
`_mute` counts the bytes since the reply last made progress.

One lazy alarm watches a connection: most calls only move the deadline later, and arming a timer for
each would cost more than parsing its reply. It is rearmed only when something falls due earlier.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol, cast

import httptools

from tollway.backends.documents import streams_events
from tollway.backends.http.tls_alerts import refuses_us
from tollway.backends.types import (
    BackendError,
    BadReply,
    Call,
    ConnectFailed,
    DeadlineExceeded,
    Headers,
)

MAX_FIELDS = 200
"""Header fields in a reply; servers send 5 to 30."""

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of a reply's head, and of anything else that is not body."""

MAX_INTERIM = 8
"""1xx replies before the final one: a 100, a few 103; more is a flood."""

HIGH_WATER_BYTES = 256 * 1024
"""Unread body bytes at which reading from the backend pauses: one read of the event loop."""

# Memory of a chunk beside its bytes: a flood of chunks of one byte is a flood too.
_CHUNK_BYTES = 64

IDLE, HEAD, BODY, DONE = range(4)

OWN_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
"""Fields of a request that the transport sets itself."""

_TCP_INFO_BYTES = 216  # struct tcp_info of linux/tcp.h, up to tcpi_bytes_retrans
_U64 = struct.Struct("=Q")

_BODY_EXPECTED = frozenset((b"POST", b"PUT", b"PATCH"))


CLOSED = "the backend closed the connection instead of replying"
"""The error of a call that may have been lost on a reused connection."""


class StaleConnection(BadReply):
    """A reused connection turned out to be closed before any byte of the reply came.

    `unheard`: how many bytes the backend had certainly not received when it closed; `chunked`:
    whether the previous reply was chunked.
    """

    def __init__(self, unheard: int, *, chunked: bool = False) -> None:
        super().__init__(CLOSED)
        self.unheard = unheard
        self.chunked = chunked


def request_head(call: Call, host: bytes) -> bytes:
    """Return the head of `call` as it is sent; the transport sets the framing itself.

    Raises ValueError for a method, target or field that would end its line early.
    """
    lines = [b"%b %b HTTP/1.1\r\n" % (call.method, call.target)]
    has_host = False
    for name, value in call.headers:
        if name == b"host":
            has_host = True
        elif name in OWN_FRAMING:
            continue
        lines.append(b"%b: %b\r\n" % (name, value))
    if not has_host:
        lines.insert(1, b"host: %b\r\n" % host)
    if needs_length(call):
        lines.append(b"content-length: %d\r\n" % len(call.body))
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b" " in call.target:
        raise ValueError("a line break or a space where a request may have none")
    return head + b"\r\n"


def needs_length(call: Call) -> bool:
    """Return whether a request must state the length of its body, even if 0 (RFC 9110 8.6)."""
    return bool(call.body) or call.method in _BODY_EXPECTED


def unheard(transport: asyncio.BaseTransport | None) -> int:
    """Return how many of the bytes sent the peer had not received when it closed.

    A FIN acknowledges what came before it, so bytes not acknowledged then arrived too late to be
    acted on. (A RST acknowledges nothing.) 0 if the kernel does not report it: Linux does since
    4.19.
    """
    option = getattr(socket, "TCP_INFO", None)
    end = None if transport is None else transport.get_extra_info("socket")
    if option is None or end is None:
        return 0
    try:
        info = end.getsockopt(socket.IPPROTO_TCP, option, _TCP_INFO_BYTES)
    except OSError:  # not a socket of TCP
        return 0
    if len(info) < _TCP_INFO_BYTES:
        return 0
    acknowledged, sent, repeated = (_U64.unpack_from(info, at)[0] for at in (120, 200, 208))
    return max(0, int(sent - repeated - (acknowledged - 1)))  # the SYN was acknowledged too


class Owner(Protocol):
    """Lends a connection out: notified once when its exchange ended, once when it is closed."""

    def ended(self, connection: "Connection", reusable: bool) -> None:
        """Take the connection back; if it is not reusable, it is closing."""

    def lost(self, connection: "Connection") -> None:
        """Remove the connection: it is closed."""


class Exchange:
    """One call's reply as it arrives; also the stream of its body."""

    __slots__ = ("_buffered", "_chunks", "_on_first", "_wakeup", "connection", "error", "head",
                 "headers", "status")  # fmt: skip

    # The mutable state of an exchange belongs to its connection until `connection` is None.
    def __init__(self, connection: "Connection", head: asyncio.Future[None]) -> None:
        self.connection: Connection | None = connection
        self.head = head
        self.status = 0
        self.headers: Headers = []
        self.error: BackendError | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._on_first: Callable[[], None] | None = None
        self._wakeup: asyncio.Future[None] | None = None

    def feed(self, chunk: bytes) -> int:
        """Add a part of the body; return how much memory waits to be read, in bytes."""
        self._chunks.append(chunk)
        self._buffered += len(chunk) + _CHUNK_BYTES
        if self._on_first is not None:
            first, self._on_first = self._on_first, None
            first()
        return self._buffered

    def on_first(self, told: Callable[[], None]) -> None:
        """Call `told` when the first part of the body has arrived, at once if it already has."""
        if self._chunks:
            told()
        elif self.connection is not None:
            self._on_first = told

    def wake(self) -> None:
        """Wake the task that waits for the head or for more of the body."""
        if not self.head.done():
            self.head.set_result(None)
        wakeup = self._wakeup
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self.error is not None:
                raise self.error
            if self.connection is None:
                raise StopAsyncIteration
            self._wakeup = self.head.get_loop().create_future()
            await self._wakeup
        chunk = self._chunks.popleft()
        self._buffered -= len(chunk) + _CHUNK_BYTES
        if self.connection is not None and self._buffered == 0:
            self.connection.read_on()
        return chunk

    async def aclose(self) -> None:
        """End the exchange; cut the connection if the body was not read to its end."""
        self._chunks.clear()
        if self.connection is not None:
            self.connection.abandon()


class Connection(asyncio.Protocol):
    """A connection as asyncio's protocol and as httptools' callbacks (`on_...`)."""

    # The mutable state of a connection is its phase, its parser and the exchange it carries.
    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, idle_limit_s: float) -> None:
        self.idle_since_s = 0.0
        self.entered_s = 0.0  # when the call that it carries took its slot; set by its owner
        self.closed = False
        self.chunked = False  # whether the last reply was
        self._owner = owner
        self._loop = loop
        self._idle_limit_s = idle_limit_s
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._phase = IDLE
        self._headers: Headers = []
        self._mute = 0
        self._interim = 0
        self._bodiless = False
        self._keep = False
        self._until_close = False
        self.streamed = False  # whether the reply is a stream of events: silence is limited
        self._paused = False
        self._used = False
        self._heard_s = 0.0
        self._deadline_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = 0.0

    # -- for the owner

    @property
    def usable(self) -> bool:
        """Whether it can carry a call: the socket may close before `connection_lost` is called."""
        return not (self.closed or self._transport is None or self._transport.is_closing())

    def send(self, head: bytes, call: Call, deadline_s: float) -> Exchange:
        """Send `call`; its reply fills the returned exchange."""
        assert self._phase == IDLE and self._transport is not None
        exchange = Exchange(self, self._loop.create_future())
        self._exchange, self._phase = exchange, HEAD
        self._headers = exchange.headers
        self._mute = self._interim = 0
        self._bodiless = call.method == b"HEAD"
        self._deadline_s = deadline_s
        self._arm(deadline_s)
        if self._transport.is_closing():  # a new one that its server closed at once
            self._fail(ConnectFailed("the backend closed the connection before the request"))
        else:
            self._transport.write(head + call.body if call.body else head)
        return exchange

    def abandon(self) -> None:
        """End the exchange, if one is running, by cutting the connection."""
        if self._exchange is not None:
            self._fail(BadReply("the call was abandoned"))

    def close(self) -> None:
        """Close the connection; a running exchange fails."""
        self.abandon()
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def read_on(self) -> None:
        """Resume reading from the backend: the reply so far has been read."""
        if self._paused:
            self._paused = False
            self._heard_s = self._loop.time()
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    # -- asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the open socket."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse the data received, then act on it once."""
        exchange = self._exchange
        if exchange is None:
            self.close()  # unrequested: whatever this is, the next reply must not start with it
            return
        self._mute += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._keep = False
            if self._phase != DONE:  # else: bytes after a whole reply, which remains valid
                self._fail(BadReply(f"malformed reply: {exc.__context__ or exc}"))
                return
        if self._phase == DONE:
            assert self._transport is not None
            # A reply may end before a long body is sent: the rest of that would precede the next
            # call.
            self._end(reusable=self._keep and not self._transport.get_write_buffer_size())
        elif self._mute > MAX_HEAD_BYTES:
            self._fail(BadReply(f"more than {MAX_HEAD_BYTES} bytes that are not body"))
            return
        elif self._phase == BODY:
            self._streaming(exchange)
        else:
            return
        exchange.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange that the loss cut or, as in HTTP/1.0, completed."""
        self.closed = True
        exchange = self._exchange
        if exchange is None:
            pass
        elif self._phase == BODY and self._until_close and exc is None:
            self._end(reusable=False)
            exchange.wake()
        elif self._phase == HEAD and self._used and self._mute == 0 and self._interim == 0:
            unheard_bytes = 0 if exc else unheard(self._transport)
            self._fail(StaleConnection(unheard_bytes, chunked=self.chunked))
        elif self._phase == HEAD and not self._mute and refuses_us(exc):
            self._fail(ConnectFailed(f"the backend does not take our certificate: {exc}"))
        else:
            self._fail(BadReply(f"the connection broke off: {exc or 'closed too early'}"))
        if self._alarm is not None:
            self._alarm.cancel()
        del self._parser  # it holds our callbacks: a cycle
        self._owner.lost(self)

    # -- httptools' callbacks

    def on_message_begin(self) -> None:
        """Refuse an unrequested reply."""
        if self._phase == DONE:
            raise ValueError("bytes after the reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; trailers are collected too, and dropped."""
        if len(self._headers) >= MAX_FIELDS:
            raise ValueError(f"more than {MAX_FIELDS} header fields")
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Handle a head: interim, malformed or final."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._swallow(status)
            return
        exchange = self._exchange
        assert exchange is not None
        if not 200 <= status < 600:
            raise ValueError(f"status {status}")
        self._check_head(exchange.headers)
        exchange.status = status
        if status in (204, 304):  # no body follows, whatever a length says (RFC 9110 15.3.5)
            exchange.headers = [pair for pair in exchange.headers if pair[0] != b"content-length"]
        self._headers = []
        self._mute = 0
        if self._bodiless:  # the parser waits for a body that a HEAD never gets
            self._phase = DONE
            self._parser = httptools.HttpResponseParser(self)
        else:
            self._phase = BODY

    def on_body(self, chunk: bytes) -> None:
        """Pass on a part of the body."""
        if self._phase != BODY:
            raise ValueError("a body where there may be none")
        self._mute = 0
        exchange = self._exchange
        assert exchange is not None and self._transport is not None
        if exchange.feed(chunk) > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Record the end of the final reply."""
        if self._phase == BODY:
            self._phase = DONE

    # -- inside

    def _swallow(self, status: int) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM or status == 101:
            raise ValueError(f"unasked or endless {status}")
        self._headers.clear()

    def _check_head(self, headers: Headers) -> None:
        """Refuse invalid heads that the parser accepts, and record how the body ends."""
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            raise ValueError("neither HTTP/1.1 nor HTTP/1.0")
        if self._mute > MAX_HEAD_BYTES and sum(map(_field_bytes, headers)) > MAX_HEAD_BYTES:
            raise ValueError(f"a head above {MAX_HEAD_BYTES} bytes")
        framed = self.chunked = False
        for name, value in headers:
            if name == b"content-length":
                framed = True
            elif name == b"transfer-encoding":
                if framed or value.strip().lower() != b"chunked":
                    raise ValueError("a transfer coding other than chunked, once")
                framed = self.chunked = True
        self._until_close = not framed
        self.streamed = streams_events(headers)
        self._keep = self._parser.should_keep_alive()

    def _streaming(self, exchange: Exchange) -> None:
        """Limit the silence between two parts of a stream as well as the deadline."""
        self._heard_s = self._loop.time()
        if self.streamed and not exchange.head.done():
            self._arm(self._heard_s + self._idle_limit_s)

    def _end(self, *, reusable: bool) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._exchange, self._phase = None, IDLE
        exchange.connection = None
        self._used = True
        self.idle_since_s = self._loop.time()
        self.read_on()
        if not reusable and not self.closed:
            self.closed = True
            assert self._transport is not None
            self._transport.abort()
        self._owner.ended(self, reusable and not self.closed)

    def _fail(self, error: BackendError) -> None:
        exchange = self._exchange
        assert exchange is not None
        exchange.error = error
        self._end(reusable=False)
        exchange.wake()

    def _arm(self, when_s: float) -> None:
        if self._alarm is not None:
            if self._alarm_s <= when_s:
                return
            self._alarm.cancel()
        self._alarm_s = when_s
        self._alarm = self._loop.call_at(when_s, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        if self._exchange is None:
            return
        now_s = self._loop.time()
        quiet = self._phase == BODY and self.streamed and not self._paused
        due_s = self._heard_s + self._idle_limit_s if quiet else self._deadline_s
        if now_s >= self._deadline_s:
            self._fail(DeadlineExceeded("no whole reply within the deadline", ran=True))
        elif now_s >= due_s:
            self._fail(BadReply(f"silent for {self._idle_limit_s} s in the middle of a body"))
        else:
            # 1 ms: the loop's clock ticks in milliseconds, so a timer may fire a tick early.
            self._arm(max(min(due_s, self._deadline_s), now_s + 0.001))


def _field_bytes(pair: tuple[bytes, bytes]) -> int:
    return len(pair[0]) + len(pair[1]) + 4
