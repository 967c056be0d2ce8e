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
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import httptools

from tollway.backends.documents import streams_events
from tollway.backends.errors import BackendError, BadReply, ConnectFailed, DeadlineExceeded
from tollway.backends.http.exchange import Exchange
from tollway.backends.http.known_heads import KnownHeads
from tollway.backends.http.tcp_info import unheard
from tollway.backends.http.tls_alerts import refuses_us
from tollway.backends.http.turn_writes import turn_writes
from tollway.backends.types import Call, Headers

MAX_FIELDS = 200
"""Header fields in a reply; servers send 5 to 30."""

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of a reply's head, and of anything else that is not body."""

MAX_INTERIM = 8
"""1xx replies before the final one: a 100, a few 103; more is a flood."""

HIGH_WATER_BYTES = 256 * 1024
"""Unread body bytes at which reading from the backend pauses: one read of the event loop."""

IDLE, HEAD, BODY, DONE = range(4)


@dataclass(slots=True, eq=False)
class KnownReply:
    """What was read from a reply's head. The fields are not changed.

    `made`: what `maker` has made of the head, so that it need not do so again. `is_plain`: whether
    its body is passed on as it is; None if nobody has looked.
    """

    status: int
    headers: Headers
    streamed: bool
    maker: object = None
    made: bytes = b""
    is_plain: bool | None = None


KNOWN = KnownHeads[KnownReply]()
"""The heads that servers send again and again. What a head means depends on its bytes alone."""

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


class Owner(Protocol):
    """Lends a connection out: notified once when its exchange ended, once when it is closed."""

    def ended(self, connection: "Connection", reusable: bool) -> None:
        """Take the connection back; if it is not reusable, it is closing."""

    def lost(self, connection: "Connection") -> None:
        """Remove the connection: it is closed."""


class Connection(asyncio.Protocol):
    """A connection as asyncio's protocol and as httptools' callbacks (`on_...`)."""

    # The mutable state of a connection is its phase, its parser and the exchange it carries.
    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, idle_limit_s: float) -> None:
        self.idle_since_s = 0.0
        self.entered_s = 0.0  # when the call that it carries took its slot; set by its owner
        self.tenant = ""  # whose call that is; set by its owner
        self.closed = False
        self.chunked = False  # whether the last reply was
        self._owner = owner
        self.loop = loop
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
        self._length_bytes: int | None = None
        self._until_close = False
        self.streamed = False  # whether the reply is a stream of events: silence is limited
        self._paused = False
        self._used = False
        self._heard_s = 0.0
        self._deadline_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = 0.0
        self._writes = turn_writes(loop)
        self._unwritten = b""  # the call, until the iteration that sends it has ended

    # -- for the owner

    @property
    def usable(self) -> bool:
        """Whether it can carry a call: the socket may close before `connection_lost` is called."""
        return not (self.closed or self._transport is None or self._transport.is_closing())

    def send(self, head: bytes, call: Call, deadline_s: float) -> Exchange:
        """Send `call`; its reply fills the returned exchange."""
        assert self._phase == IDLE and self._transport is not None
        exchange = Exchange(self)
        self._exchange, self._phase = exchange, HEAD
        self._headers = exchange.headers
        self._mute = self._interim = 0
        self._bodiless = call.method == b"HEAD"
        self._deadline_s = deadline_s
        self._arm(deadline_s)
        if self._transport.is_closing():  # a new one that its server closed at once
            self._fail(ConnectFailed("the backend closed the connection before the request"))
        else:
            self._unwritten = head + call.body if call.body else head
            self._writes.add(self._write)
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
            self._heard_s = self.loop.time()
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
        if self._unwritten:  # unrequested too, such as a 408 for an idle connection
            self._fail(self._unsent())
            return
        fresh = self._phase == HEAD and not (self._mute or self._interim or self._bodiless)
        if fresh and (found := KNOWN.find(data)) is not None:
            self._take_whole(exchange, *found)
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
            if fresh and self._keep and self._length_bytes is not None and not self._interim:
                KNOWN.accepted(data, self._length_bytes, partial(self._known, exchange))
            # A reply may end before a long body is sent: the rest of that would precede the next
            # call.
            self._end(reusable=self._keep and not self._transport.get_write_buffer_size())
        elif self._mute > MAX_HEAD_BYTES:
            self._fail(BadReply(f"more than {MAX_HEAD_BYTES} bytes outside the body"))
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
        elif self._unwritten:
            self._fail(self._unsent())
        elif self._phase == BODY and self._until_close and exc is None:
            self._end(reusable=False)
            exchange.wake()
        elif self._phase == HEAD and self._used and self._mute == 0 and self._interim == 0:
            unheard_bytes = 0 if exc else unheard(self._transport)
            self._fail(StaleConnection(unheard_bytes, chunked=self.chunked))
        elif self._phase == HEAD and not self._mute and refuses_us(exc):
            self._fail(ConnectFailed(f"the backend does not accept our certificate: {exc}"))
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
            self._length_bytes = None
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
            raise ValueError("a body that is not allowed")
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

    def _write(self) -> None:
        """Write the call, unless it has ended already or its connection is closing."""
        data, transport = self._unwritten, self._transport
        if data and transport is not None and not transport.is_closing():
            self._unwritten = b""
            transport.write(data)

    def _unsent(self) -> BackendError:
        """Return the error of a call of which nothing was sent."""
        if self._used:
            return StaleConnection(len(self._unwritten), chunked=self.chunked)
        return ConnectFailed("the backend closed the connection before the request")

    def _swallow(self, status: int) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM or status == 101:
            raise ValueError(f"unexpected status {status}")
        self._headers.clear()

    def _check_head(self, headers: Headers) -> None:
        """Refuse invalid heads that the parser accepts, and record how the body ends."""
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            raise ValueError("neither HTTP/1.1 nor HTTP/1.0")
        if self._mute > MAX_HEAD_BYTES and sum(map(_field_bytes, headers)) > MAX_HEAD_BYTES:
            raise ValueError(f"a head above {MAX_HEAD_BYTES} bytes")
        framed = self.chunked = False
        self._length_bytes = None
        for name, value in headers:
            if name == b"content-length":
                framed = True
                self._length_bytes = int(value)  # digits only: the parser has checked that
            elif name == b"transfer-encoding":
                if framed or value.strip().lower() != b"chunked":
                    raise ValueError("a transfer coding other than chunked, once")
                framed = self.chunked = True
                self._length_bytes = None
        self._until_close = not framed
        self.streamed = streams_events(headers)
        # uvicorn sends what a failed application says and then closes, unannounced: the next call
        # on the connection would be lost.
        self._keep = self._parser.should_keep_alive() and self._parser.get_status_code() != 500

    def _known(self, exchange: Exchange) -> KnownReply:
        return KnownReply(exchange.status, exchange.headers.copy(), self.streamed)

    def _take_whole(self, exchange: Exchange, known: KnownReply, body: bytes) -> None:
        """Take a whole reply whose head was parsed before."""
        exchange.status, exchange.known = known.status, known
        exchange.headers = known.headers.copy()
        self._headers = []
        self.chunked, self.streamed = False, known.streamed
        if body:
            exchange.feed(body)
        assert self._transport is not None
        self._end(reusable=not self._transport.get_write_buffer_size())
        if exchange.head.resume is None:
            exchange.wake()
        else:  # nobody can have begun to read
            exchange.head.bring()

    def _streaming(self, exchange: Exchange) -> None:
        """Limit the silence between two parts of a stream as well as the deadline."""
        self._heard_s = self.loop.time()
        if self.streamed and not exchange.head.done:
            self._arm(self._heard_s + self._idle_limit_s)

    def _end(self, *, reusable: bool) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._exchange, self._phase = None, IDLE
        self._unwritten = b""
        exchange.connection = None
        self._used = True
        self.idle_since_s = self.loop.time()
        if self._paused:
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
        self._alarm = self.loop.call_at(when_s, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        if self._exchange is None:
            return
        now_s = self.loop.time()
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
