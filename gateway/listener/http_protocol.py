"""uvicorn's HTTP/1.1 protocol with limits, deadlines, and strict validation of requests.

Theory of operation. uvicorn over httptools is fast because it checks little. It does not limit
heads, has no deadline for receiving, accepts any Host or none and odd transfer codings, and loses
the body when the client offers an upgrade. This class sits between the parser's callbacks and
uvicorn's own:

    WAITING -- first byte of a request --> HEAD -- blank line --> BODY -- its end --> WAITING

A head is checked when it is complete, before uvicorn creates a task for it. A refusal raised in a
callback stops the parser. `_refuse` then answers in request order: at once or, if an earlier
request of the same connection is still being answered, by closing the connection after that reply.
Data sent after a refusal is read and discarded for a moment, because closing a socket with unread
bytes makes the kernel reset it, and the client would never see the refusal.

Requests that arrive in one read, which are nearly all, never use the clock. One lazy timer per
connection watches the others.

An offered upgrade makes the parser stop after the head and drop the body (llhttp leaves what
follows to the new protocol). A new parser is then given a head that contains only the framing of
the body, and continues from there.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPResponseStartEvent,
    Scope,
)
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tollway.gateway.listener.client import EXTENSION, Client
from tollway.gateway.listener.corked_transport import CorkedTransport
from tollway.gateway.listener.request_head import (
    METHODS,
    HeadLimits,
    RequestRejected,
    check_head,
    framing,
    no_websocket,
    origin_form,
)

WAITING, HEAD, BODY = range(3)

# 1 s: enough for a client to read a refusal while it is still sending.
_LINGER_S = 1.0


Shape = Callable[[bytes, int, dict[str, Any]], tuple[bytes, bytes]]
"""Returns the content type and body of a problem, for a raw path and a status."""

_TITLES = {413: "Content Too Large", 414: "URI Too Long"}
"""Titles of RFC 9110: Python's own differ between its versions, and clients compare them."""


def plain(path: bytes, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return a problem in the format of RFC 9457, for any path."""
    return b"application/problem+json", json.dumps(problem).encode()


class LimitedHttpProtocol(HttpToolsProtocol):
    """The protocol class for uvicorn's `http=`; see `limited_protocol` for other limits."""

    limits = HeadLimits()
    shape: Shape = staticmethod(plain)

    @classmethod
    def limit_bodies(cls, most: int) -> None:
        """Set the body limit to `most` bytes from the next request on, for open connections too."""
        cls.limits = replace(cls.limits, body_bytes=most)

    # The mutable state of this class: the phase of the request being received, since when, the
    # bytes received so far, and whether the connection has been refused.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = WAITING
        self._read_bytes = 0
        self._unjudged_bytes = 0
        self._body_bytes = 0
        self._body_bytes_max = 0
        self._since_s: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = 0.0
        self._refused = False
        self._upgrade: bytes | None = None
        self._reframing = False
        self._client = Client()
        self._extensions: dict[str, Any] = {EXTENSION: self._client}
        self._serving: RequestResponseCycle | None = None

    # -- asyncio's protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first head, or refuse the connection."""
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, CorkedTransport(transport, self.loop))
        if len(self.connections) > self.limits.connections:
            self._refuse(RequestRejected(503, "too many connections"))
        else:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer, and cancel the work for the client."""
        if self._serving is not None and not self._serving.response_complete:
            self._serving.disconnected = True  # uvicorn sets it only for the latest request
        super().connection_lost(exc)
        self._client.leave()
        if self._alarm is not None:
            self._alarm.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse received data; start the timer if it does not end a request."""
        if self._refused:
            return
        self._read_bytes = len(data)
        self._unjudged_bytes += len(data)
        try:
            self.parser.feed_data(data)
            if self._phase == HEAD and self._unjudged_bytes > self.limits.head_bytes:
                self._check_size()  # all in one read, and still incomplete
        except httptools.HttpParserUpgrade as exc:
            self._reframe()
            self.data_received(data[exc.args[0] :])
            return
        except RequestRejected as exc:
            self._refuse(exc)
            return
        except httptools.HttpParserError as exc:
            cause = exc.__context__
            malformed = RequestRejected(400, "not a valid request (RFC 9112)")
            self._refuse(cause if isinstance(cause, RequestRejected) else malformed)
            return
        if self._phase == WAITING:
            self._unjudged_bytes = 0
        elif self._unjudged_bytes - self._read_bytes > self.limits.head_bytes:
            self._refuse(
                RequestRejected(431, f"more than {self.limits.head_bytes} bytes of fields")
            )
        elif self._since_s is None:
            self._start_clock()

    # -- httptools' callbacks

    def on_message_begin(self) -> None:
        """Record the first byte of a request."""
        if self._reframing:
            return
        self._phase = HEAD
        self._since_s = None
        self._unjudged_bytes = self._read_bytes
        super().on_message_begin()
        self.scope["extensions"] = self._extensions

    def on_url(self, url: bytes) -> None:
        """Collect the target, within its limit."""
        if self._phase == HEAD:
            self.url += url
            if len(self.url) > self.limits.target_bytes:
                raise RequestRejected(
                    414, f"a target of more than {self.limits.target_bytes} bytes"
                )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field, within the limit. Trailers are dropped: they could pose as fields."""
        if self._phase != HEAD or b"_" in name:  # some read Content_Length as Content-Length
            return
        if len(self.headers) >= self.limits.fields:
            raise RequestRejected(431, f"more than {self.limits.fields} header fields")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Check the head, convert the target to origin form, and let uvicorn start the request."""
        if self._phase != HEAD:
            return
        parser = self.parser
        method, version = parser.get_method(), parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise RequestRejected(505, "neither HTTP/1.1 nor HTTP/1.0")
        if method not in METHODS:
            raise RequestRejected(501, "a method that is not served here")
        if self._unjudged_bytes > self.limits.head_bytes:
            self._check_size()
        self.expect_100_continue = check_head(self.headers, version, self.limits)
        if self.url[:1] != b"/" or b"#" in self.url:
            self._normalize_target(method)
        if len(self.pipeline) >= self.limits.pipelined:
            raise RequestRejected(400, f"more than {self.limits.pipelined} requests before a reply")
        upgrade = parser.should_upgrade()
        if upgrade:
            no_websocket(self.headers)
        self._phase = BODY
        self._since_s = None
        self._body_bytes = self._unjudged_bytes = 0
        self._body_bytes_max = self.limits.body_bytes
        self._upgrade = framing(self.headers) if upgrade else None
        super().on_headers_complete()
        if version == "1.0":
            until_close(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body, within the limit."""
        self._unjudged_bytes = 0
        self._body_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            raise RequestRejected(413, f"a body of more than {self._body_bytes_max} bytes")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Record the end of a request."""
        if self._upgrade is None:
            self._phase = WAITING
            self._since_s = None
            super().on_message_complete()
            if self.flow.read_paused and not self.pipeline:
                self.flow.resume_reading()  # otherwise a disconnect would go unnoticed

    # -- uvicorn's request cycle

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Record which of the pipelined requests is being served."""
        self._serving = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Start the next waiting request, or the timer of an idle connection.

        This is uvicorn's own method without its timer per response.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._phase == WAITING:
            self._start_clock()

    # -- checks of a head

    def _normalize_target(self, method: bytes) -> None:
        """Convert the target to origin form; the host of an absolute one replaces Host (3.2.2)."""
        self.url, host = origin_form(self.url, method)
        if host is not None:
            self.headers[:] = [pair for pair in self.headers if pair[0] != b"host"]
            self.headers.insert(0, (b"host", host))

    def _check_size(self) -> None:
        """Measure a head exactly: the data read may be mostly a body, or other requests."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.limits.head_bytes:
            raise RequestRejected(431, f"more than {self.limits.head_bytes} bytes of fields")

    def _should_upgrade(self) -> bool:
        """Return False: an offer is ignored and the request answered normally (RFC 9110 7.8)."""
        return False

    def _reframe(self) -> None:
        """Start a new parser with the framing of the body that the old one dropped."""
        assert self._upgrade is not None
        head, self._upgrade = b"POST / HTTP/1.1\r\n%b\r\n" % self._upgrade, None
        self.parser = httptools.HttpRequestParser(self)
        self._reframing = True
        self.parser.feed_data(head)
        self._reframing = False

    # -- deadlines

    def _start_clock(self) -> None:
        self._since_s = self.loop.time()
        due_s = self._due_s(self._since_s)
        if self._alarm is None:
            self._arm(due_s)
        elif due_s < self._alarm_s:
            self._alarm.cancel()
            self._arm(due_s)

    def _arm(self, when_s: float) -> None:
        self._alarm_s = when_s
        self._alarm = self.loop.call_at(when_s, self._on_alarm)

    def _due_s(self, since_s: float) -> float:
        if self._phase == BODY:
            needed_s = self._body_bytes / self.limits.body_bytes_per_s
            return since_s + self.limits.body_grace_s + needed_s
        idle = self._phase == WAITING and self.cycle is not None
        return since_s + (self.timeout_keep_alive if idle else self.limits.head_s)

    def _on_alarm(self) -> None:
        self._alarm = None
        if self._since_s is None or self._refused:
            return
        now_s = self.loop.time()
        if self.flow.read_paused or (self._phase == BODY and self.cycle.waiting_for_100_continue):
            self._since_s = now_s  # the client is waiting for the gateway
        due_s = self._due_s(self._since_s)
        if now_s < due_s:
            self._arm(max(due_s, now_s + 0.001))  # the loop's clock counts in milliseconds
        elif self._phase == WAITING:
            self.transport.close()
        else:
            self._refuse(RequestRejected(408, "the request arrived too slowly"))

    # -- refusing

    def _refuse(self, why: RequestRejected) -> None:
        """Refuse further input: answer, and close once the client has had time to read it."""
        self._refused = True
        cycle = self.cycle
        own = self._phase == BODY  # the faulty request has its own cycle
        if own and self.pipeline and self.pipeline[0][0] is cycle:
            cycle.keep_alive = False
            self.pipeline[0] = (cycle, _refusal_app(why.status, *self._written(why)))
        elif own:
            cycle.disconnected = True
            cycle.message_event.set()
            self._send_refusal(None if cycle.response_started else why)
        elif cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False  # the last request before the faulty one
        else:
            self._send_refusal(why)

    def _written(self, why: RequestRejected) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return the headers and body of a refusal, in the format of the path's protocol."""
        title = _title(why.status)
        problem = {"type": "about:blank", "title": title, "status": why.status}
        problem["detail"] = why.detail
        content_type, body = self.shape(self._path(), why.status, problem)
        fields = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        return fields, body

    def _path(self) -> bytes:
        """Return the path of the request being received; empty if it is not known."""
        if self._phase == WAITING:
            return b""
        target: bytes = self.url
        if target[:1] != b"/":
            try:
                target, _ = origin_form(target, b"")
            except RequestRejected:
                return b""
        return target.partition(b"?")[0]

    def _send_refusal(self, why: RequestRejected | None) -> None:
        if self.transport.is_closing():
            return
        if why is not None:
            fields, body = self._written(why)
            headers = b"".join(b"%b: %b\r\n" % pair for pair in fields)
            status = b"%d %b" % (why.status, _title(why.status).encode())
            self.transport.write(b"HTTP/1.1 %b\r\n%b\r\n%b" % (status, headers, body))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)


def until_close(cycle: RequestResponseCycle) -> None:
    """End a reply of unknown length by closing the connection: HTTP/1.0 has no chunked coding.

    See RFC 9112 6.1. uvicorn chunks such replies whatever the client's version.
    """
    send, lasts = cycle.send, False

    async def unchunked(message: ASGISendEvent) -> None:
        nonlocal lasts
        if message["type"] == "http.response.start":
            lasts = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
            if lasts:
                cycle.chunked_encoding = False
        elif message["type"] == "http.response.body" and lasts:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = unchunked  # type: ignore[method-assign]


def limited_protocol(limits: HeadLimits, shape: Shape = plain) -> type[LimitedHttpProtocol]:
    """Return a protocol class with other limits; uvicorn creates its instances itself.

    `shape` formats refusals; it is called only when a request is refused.
    """
    own = {"limits": limits, "shape": staticmethod(shape)}
    return type("Guarded", (LimitedHttpProtocol,), own)


def _title(status: int) -> str:
    return _TITLES.get(status) or HTTPStatus(status).phrase


def _refusal_app(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> ASGI3Application:
    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": status,
            "headers": headers,
            "trailers": False,
        }
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return app
