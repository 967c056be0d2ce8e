"""A request of a connection and its response: `receive` and `send` of ASGI, and a reply at once.

uvicorn's own cycle passes every reply through two ASGI messages, checks each field by two regular
expressions, and has an event of asyncio per request. This one does the same work in fewer steps,
and takes a whole reply in one call (`reply`), which is how the data plane answers nearly always.
"""

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Protocol

from tollway.gateway.listener.known_heads import KnownHead

log = logging.getLogger(__name__)

_LINES = {
    code: b"HTTP/1.1 %d %b\r\n"
    % (code, HTTPStatus(code).phrase.encode() if code in HTTPStatus._value2member_map_ else b"")
    for code in range(100, 600)
}
_ALLOWED = bytes(byte for byte in range(256) if byte == 9 or (byte >= 32 and byte != 127))
HIGH_WATER_BYTES = 64 * 1024
_UNUSUAL = frozenset((b"transfer-encoding", b"upgrade", b"expect"))
_BODILESS = frozenset((204, 304))
_FAILED = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"21"),
    (b"connection", b"close"),
]


def encoded_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the status line and the lines of fields; RuntimeError for what would end its line."""
    lines = [_LINES[status], *[b"%b: %b\r\n" % pair for pair in headers]]
    head = b"".join(lines)
    check_lines(head, len(lines))
    return head


def check_lines(head: bytes, count: int) -> None:
    """Raise RuntimeError unless a head has so many lines and no control characters else."""
    controls = head.translate(None, _ALLOWED)  # a regular expression takes ten times as long
    if controls != b"\r\n" * count:
        raise RuntimeError("a field of the reply has characters that none may have")


class Flow:
    """Flow control of one connection."""

    # The mutable state: whether reading and writing are paused, and who waits to write.
    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable: asyncio.Future[None] | None = None
        self.read_paused = False
        self.write_paused = False

    async def drain(self) -> None:
        """Return when the client has read enough of what was written."""
        while self.write_paused:
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writable)

    def pause_reading(self) -> None:
        """Stop reading from the client."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read from the client again."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Let writers wait."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """Let writers go on."""
        self.write_paused = False
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None


class Owner(Protocol):
    """The connection of a request."""

    flow: Flow

    @property
    def transport(self) -> Any:
        """The connection's transport."""

    server_state: Any

    def on_response_complete(self) -> None:
        """Go on after a response."""

    def run(self, cycle: "Cycle", app: Any) -> None:
        """Have an application answer a request."""

    def complete_scope(self, cycle: "Cycle") -> None:
        """Make the scope of a request that of its connection."""


class Cycle:
    """One request and its response."""

    # The mutable state: the part of the body that was not received yet, and how far the response
    # has come.
    __slots__ = ("_body", "_body_bytes", "_chunked", "_connection", "_is_head", "_lasts",
                 "_left_bytes", "_news", "_wakeup", "disconnected", "is_whole", "keep_alive",
                 "known", "more_body", "refusal", "response_complete", "response_started", "scope",
                 "waited", "waiting_for_100_continue")  # fmt: skip

    def __init__(
        self,
        connection: Owner,
        scope: dict[str, Any],
        *,
        keep_alive: bool,
        expects: bool = False,
        lasts: bool = False,
        known: KnownHead | None = None,
    ) -> None:
        """`refusal`, if it is set, is the application that answers instead.

        `expects`: the client waits for a 100 (Continue). `lasts`: it knows no chunked coding, so
        that a reply of unknown length lasts until the connection is closed (RFC 9112 6.1).
        `known`: its head was accepted before.
        """
        self.scope = scope
        self._connection = connection
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._news = False
        self._is_head = scope["method"] == "HEAD"
        self._wakeup: asyncio.Future[None] | None = None
        self._chunked: bool | None = None
        self._left_bytes = 0
        self._lasts = lasts
        self.known = known
        self.is_whole = known is not None  # it came in one read, on an idle connection
        self.more_body = True
        self.disconnected = False
        self.keep_alive = keep_alive
        self.refusal: Any = None
        self.response_complete = False
        self.response_started = False
        self.waited = False
        self.waiting_for_100_continue = expects

    async def run(self, app: Any) -> None:
        """Have the application answer; an error of the application is answered by 500."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._connection.transport.close()
            raise
        except Exception:
            log.exception("the request could not be answered")
            self._fail()
        else:
            if not self.response_complete and not self.disconnected:
                if self.response_started:  # as after a stream that broke off
                    log.debug("the reply of the application has no end")
                else:
                    log.error("the application did not reply")
                self._fail()

    def _fail(self) -> None:
        if self.response_started or self.disconnected:
            self._connection.transport.close()
            return
        self.reply(500, _FAILED, b"Internal Server Error")

    # -- the request

    @property
    def is_plain(self) -> bool:
        """Whether its head, sent again, means the same: no upgrade, no coding, no expectation."""
        return self.keep_alive and _UNUSUAL.isdisjoint(name for name, _ in self.scope["headers"])

    @property
    def head(self) -> dict[str, Any]:
        """The scope of the request, completed."""
        self._connection.complete_scope(self)
        return self.scope

    @property
    def body(self) -> bytes:
        """The body as far as it has come and was not received."""
        body = self._body
        return body[0] if len(body) == 1 else b"".join(body)

    @property
    def tasks(self) -> set[Any]:
        """What serves requests."""
        tasks: set[Any] = self._connection.server_state.tasks
        return tasks

    def hand_over(self, app: Any) -> None:
        """Have a coroutine answer the rest."""
        self._connection.run(self, app)

    def give(self, body: bytes) -> None:
        """Give it its whole body."""
        self._body.append(body)
        self.more_body = False
        self._news = True

    def feed(self, body: bytes) -> None:
        """Add a part of the body."""
        self._body.append(body)
        self._body_bytes += len(body)
        if self._body_bytes > HIGH_WATER_BYTES:
            self._connection.flow.pause_reading()
        self.wake()

    def end(self) -> None:
        """Note that the body has ended."""
        self.more_body = False
        self.wake()

    def wake(self) -> None:
        """Let `receive` look again: there is more, or the client has left."""
        self._news = True
        wakeup = self._wakeup
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)

    async def receive(self) -> dict[str, Any]:
        """Return the next ASGI message of the request."""
        connection = self._connection
        if self.waiting_for_100_continue and not connection.transport.is_closing():
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            connection.flow.resume_reading()
            while not self._news:
                self._wakeup = asyncio.get_running_loop().create_future()
                await self._wakeup
            self._news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self._body, self._body_bytes = self._body, [], 0
        whole = body[0] if len(body) == 1 else b"".join(body)
        return {"type": "http.request", "body": whole, "more_body": self.more_body}

    # -- the response

    def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send a whole response, and return True; False if the client must first read others.

        `headers` state the length of its body, if it may have one.
        """
        if self.disconnected:
            return True
        if self._connection.flow.write_paused:
            return False
        self.response_started = True
        head = self._head(status, headers)
        if self._is_head:
            body = b""
        elif self._chunked:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        elif len(body) != self._left_bytes:
            raise RuntimeError("the reply is not as long as its content-length")
        self._connection.transport.write_last(head + body)
        self._complete()
        return True

    def reply_as_is(self, data: bytes) -> bool:
        """Send a whole response, which states its length; False if `reply` must send it."""
        if self.disconnected:
            return True
        connection = self._connection
        if connection.flow.write_paused or not self.keep_alive:
            return False
        self.response_started = True
        self.waiting_for_100_continue = False
        connection.transport.write_last(data)
        self._complete()
        return True

    async def send(self, message: dict[str, Any]) -> None:
        """Send one ASGI message of the response."""
        flow = self._connection.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"a response cannot start with {message['type']!r}")
            self.response_started = True
            head = self._head(message["status"], message.get("headers", ()))
            self._connection.transport.write(head)
        elif message["type"] != "http.response.body" or self.response_complete:
            raise RuntimeError(f"a response cannot continue with {message['type']!r}")
        else:
            self._part(message.get("body", b""), message.get("more_body", False))

    def _part(self, body: bytes, more: bool) -> None:
        write = self._connection.transport.write
        if self._is_head:
            self._left_bytes = 0
        elif self._chunked:
            if body:
                write(b"%x\r\n%b\r\n%b" % (len(body), body, b"" if more else b"0\r\n\r\n"))
            elif not more:
                write(b"0\r\n\r\n")
        elif self._chunked is False:
            self._left_bytes -= len(body)
            if self._left_bytes < 0:
                raise RuntimeError("the reply is longer than its content-length")
            write(body)
        else:  # it lasts until the connection is closed
            write(body)
        if not more:
            if self._left_bytes:
                raise RuntimeError("the reply is shorter than its content-length")
            self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self._body = []  # an idle connection should not keep it
        self.wake()
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.on_response_complete()

    def _head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the head of the response, and find out how its body is framed."""
        self.waiting_for_100_continue = False
        lines = [_LINES[status]]
        closes = False
        for name, value in headers:
            if name == b"content-length":
                self._chunked, self._left_bytes = False, int(value)
            elif name == b"connection" and b"close" in value.lower():
                closes = True
            lines.append(b"%b: %b\r\n" % (name, value))
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self._chunked is None and status not in _BODILESS and not self._is_head:
            if self._lasts:
                self.keep_alive = False
            else:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(lines)
        check_lines(head, len(lines))
        return head + b"\r\n"
