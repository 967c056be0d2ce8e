"""HTTP/1.1 for clients, with limits, deadlines, and strict validation of requests.

Theory of operation. This class takes the place of uvicorn's protocol in its server, between the
parser's callbacks and the application. uvicorn's own is fast because it checks little: it does not
limit heads, has no deadline for receiving, accepts any Host or none and odd transfer codings, and
loses the body when the client offers an upgrade.

    WAITING -- first byte of a request --> HEAD -- blank line --> BODY -- its end --> WAITING

A head is checked when it is complete. Its request is started once the whole read is parsed, so that
a small one has its body by then and needs no task (`tollway/eager.py`). A refusal raised in a
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
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools

from tollway.backends.http.known_heads import KnownHeads
from tollway.eager import Eager
from tollway.gateway.listener.client import EXTENSION, Client, WholeRequest
from tollway.gateway.listener.connection_limit import ConnectionLimit
from tollway.gateway.listener.corked_transport import CorkedTransport
from tollway.gateway.listener.cycle import Cycle, Flow
from tollway.gateway.listener.known_heads import KnownHead
from tollway.gateway.listener.refusal import Shape, plain, refusal
from tollway.gateway.listener.request_head import (
    METHODS,
    HeadLimits,
    RequestRejected,
    check_head,
    framing,
    no_websocket,
    origin_form,
)
from tollway.gateway.listener.turns import Turns

log = logging.getLogger(__name__)

WAITING, HEAD, BODY = range(3)
Caller = Callable[[dict[str, Any], KnownHead | None], str]
Begin = Callable[[Client, WholeRequest], bool]

_ASGI = {"version": "3.0", "spec_version": "2.3"}

# 1 s: enough for a client to read a refusal while it is still sending.
_LINGER_S = 1.0


def never(client: Client, request: WholeRequest) -> bool:
    """Begin no request: the application answers."""
    return False


def one_caller(scope: dict[str, Any], known: KnownHead | None) -> str:
    """Return one name for all callers."""
    return ""


class LimitedHttpProtocol(asyncio.Protocol):
    """The protocol class for uvicorn's `http=`; see `limited_protocol` for other limits."""

    flow: Flow

    limits = HeadLimits()
    known = KnownHeads[KnownHead]()
    accepted: ClassVar[ConnectionLimit] = ConnectionLimit()
    turns: ClassVar[Turns] = Turns()
    shape: Shape = staticmethod(plain)
    caller: Caller = staticmethod(one_caller)
    begin: Begin = staticmethod(never)

    @classmethod
    def limit_bodies(cls, most: int) -> None:
        """Set the body limit to `most` bytes from the next request on, for open connections too."""
        cls.limits = replace(cls.limits, body_bytes=most)
        cls.known.clear()

    # The mutable state of this class: the phase of the request being received, since when, the
    # bytes received so far, and whether the connection has been refused.
    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """The arguments are uvicorn's: its configuration, and the state of its server."""
        self.app = config.loaded_app
        self.loop = _loop or asyncio.get_running_loop()
        self.keep_alive_s: float = config.timeout_keep_alive
        self.server_state = server_state
        self.connections = server_state.connections
        self.app_state = app_state
        self.parser: Any = httptools.HttpRequestParser(self)
        # A request after one with `connection: close` is not answered; it is no error either.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.pipeline: deque[Cycle] = deque()
        self.cycle: Cycle | None = None
        self.transport: Any = None
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
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
        self._counted: str | None = None  # the address for which the connection is counted
        self._serving: Cycle | None = None
        self._unstarted: Cycle | None = None

    # -- asyncio's protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first head, or refuse the connection."""
        self.connections.add(self)
        self.flow = Flow(transport)
        self._server = address(transport.get_extra_info("sockname"))
        self._address = address(transport.get_extra_info("peername"))
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self.transport = CorkedTransport(transport, self.loop)
        client = "" if self._address is None else self._address[0]
        if self.accepted.admit(client, self.limits.connections):
            self._counted = client
            self._start_clock()
        else:
            self._refuse(RequestRejected(503, "too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer, and cancel the work for the client."""
        self.connections.discard(self)
        if self._counted is not None:
            self.accepted.leave(self._counted)
        for cycle in (self._serving, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.wake()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None
        self._client.leave()
        if self._alarm is not None:
            self._alarm.cancel()

    def data_received(self, data: bytes) -> None:
        """Begin the request that the data brings."""
        if self._refused:
            return
        idle = self._phase == WAITING and (self.cycle is None or self.cycle.response_complete)
        if idle and (found := self.known.find(data)) is not None:
            self._begin_known(*found)
            return
        self._parse(data)
        cycle, self._unstarted = self._unstarted, None
        if cycle is not None and not cycle.disconnected:
            if idle and self._phase == WAITING and cycle is self.cycle:
                cycle.is_whole = True
                if cycle.is_plain:
                    made, sender = partial(KnownHead, cycle.scope), partial(self._sender, cycle)
                    self.known.accepted(data, self._body_bytes, made, sender)
            self._start(cycle)

    def _sender(self, cycle: Cycle) -> str:
        """Return who has sent a request, by its head."""
        return self.caller(cycle.scope, None)

    def _parse(self, data: bytes) -> None:
        """Parse received data; start the timer if it does not end a request."""
        self._read_bytes = len(data)
        self._unjudged_bytes += len(data)
        try:
            self.parser.feed_data(data)
            if self._phase == HEAD and self._unjudged_bytes > self.limits.head_bytes:
                self._check_size()  # all in one read, and still incomplete
        except httptools.HttpParserUpgrade as exc:
            self._reframe()
            self._parse(data[exc.args[0] :])
            return
        except RequestRejected as exc:
            self._refuse(exc)
            return
        except httptools.HttpParserError as exc:
            cause = exc.__context__
            malformed = RequestRejected(400, "the request is not valid HTTP/1.1 (RFC 9112)")
            self._refuse(cause if isinstance(cause, RequestRejected) else malformed)
            return
        if self._phase == WAITING:
            self._unjudged_bytes = 0
        elif self._unjudged_bytes - self._read_bytes > self.limits.head_bytes:
            self._refuse(
                RequestRejected(431, f"the header fields exceed {self.limits.head_bytes} bytes")
            )
        elif self._since_s is None:
            self._start_clock()

    def eof_received(self) -> None:
        """Let the transport close: a client that has sent its end is gone."""

    def pause_writing(self) -> None:
        """Let streams wait: the client reads slowly."""
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """Let streams go on."""
        self.flow.resume_writing()

    # -- uvicorn's server

    def shutdown(self) -> None:
        """Close the connection, or do so after the reply to the request in progress."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    # -- httptools' callbacks

    def on_message_begin(self) -> None:
        """Record the first byte of a request."""
        if self._reframing:
            return
        self._phase = HEAD
        self._since_s = None
        self._unjudged_bytes = self._read_bytes
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """Collect the target, within its limit."""
        if self._phase == HEAD:
            self.url += url
            if len(self.url) > self.limits.target_bytes:
                raise RequestRejected(
                    414, f"the request target exceeds {self.limits.target_bytes} bytes"
                )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field, within the limit. Trailers are dropped: they could pose as fields."""
        if self._phase != HEAD or b"_" in name:  # some read Content_Length as Content-Length
            return
        if len(self.headers) >= self.limits.fields:
            raise RequestRejected(
                431, f"the request has more than {self.limits.fields} header fields"
            )
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Check the head, convert the target to origin form, and let uvicorn start the request."""
        if self._phase != HEAD:
            return
        parser = self.parser
        method, version = parser.get_method(), parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise RequestRejected(505, "the HTTP version is neither 1.1 nor 1.0")
        if method not in METHODS:
            raise RequestRejected(501, "this method is not supported")
        if self._unjudged_bytes > self.limits.head_bytes:
            self._check_size()
        self.expect_100_continue = check_head(self.headers, version, self.limits)
        if self.url[:1] != b"/" or b"#" in self.url:
            self._normalize_target(method)
        if len(self.pipeline) >= self.limits.pipelined:
            raise RequestRejected(400, f"more than {self.limits.pipelined} pipelined requests")
        upgrade = parser.should_upgrade()
        if upgrade:
            no_websocket(self.headers)
        self._phase = BODY
        self._since_s = None
        self._body_bytes = self._unjudged_bytes = 0
        self._body_bytes_max = self.limits.body_bytes
        # An offer is ignored, and the request answered normally (RFC 9110 7.8).
        self._upgrade = framing(self.headers) if upgrade else None
        is_10 = version == "1.0"
        cycle = Cycle(
            self,
            self._scope(method, version),
            keep_alive=not is_10 and parser.should_keep_alive(),
            expects=self.expect_100_continue,
            lasts=is_10,
        )
        before, self.cycle = self.cycle, cycle
        if before is None or before.response_complete:
            self._unstarted = cycle
        else:
            self.flow.pause_reading()
            self.pipeline.append(cycle)

    def _scope(self, method: bytes, version: str) -> dict[str, Any]:
        """Return the ASGI scope of a request."""
        target: bytes = self.url
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._address,
            "scheme": self._scheme,
            "method": method.decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": self.app_state.copy(),
            "extensions": self._extensions,
        }

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body, within the limit."""
        self._unjudged_bytes = 0
        self._body_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            raise RequestRejected(413, f"the body exceeds {self._body_bytes_max} bytes")
        cycle = self.cycle
        assert cycle is not None
        if not cycle.response_complete:
            cycle.feed(body)

    def on_message_complete(self) -> None:
        """Record the end of a request."""
        if self._upgrade is None:
            self._phase = WAITING
            self._since_s = None
            assert self.cycle is not None
            self.cycle.end()
            if self.flow.read_paused and not self.pipeline:
                self.flow.resume_reading()  # otherwise a disconnect would go unnoticed

    # -- requests

    def _begin_known(self, known: KnownHead, body: bytes) -> None:
        """Begin a request that came whole, with a head that was accepted before."""
        self._since_s = None
        self.cycle = cycle = Cycle(self, known.scope, keep_alive=True, known=known)
        cycle.give(body)
        self._start(cycle)

    def _start(self, cycle: Cycle) -> None:
        """Have the application answer a request, in its tenant's turn."""
        if self.turns.is_now(self.loop):
            self._serve(cycle)
        else:
            cycle.waited = True
            known = cycle.known
            if known is not None and known.judge is None:  # the address may tell who it is
                self.complete_scope(cycle)
            self.turns.wait(self.caller(cycle.scope, known), self._serve, cycle)

    def _serve(self, cycle: Cycle) -> None:
        if self._client.left or cycle.disconnected:
            return
        self._serving = self._client.serving = cycle
        if not (cycle.is_whole and self._begun(cycle)):
            self.run(cycle, cycle.refusal or self.app)

    def _begun(self, cycle: Cycle) -> bool:
        """Begin a request without a coroutine; False if that fails, and the application answers."""
        try:
            return self.begin(self._client, cycle)
        except Exception:  # nothing has been admitted; raised here, it would close the connection
            log.exception("the request could not be begun without a coroutine")
            return False

    def run(self, cycle: Cycle, app: Any) -> None:
        """Have an application answer a request."""
        self.complete_scope(cycle)
        tasks = self.server_state.tasks
        running = Eager(cycle.run(app), self.loop, tasks.discard)
        self._client.running = running
        tasks.add(running)
        running.step()

    def complete_scope(self, cycle: Cycle) -> None:
        """Make the ASGI scope of a request with a known head that of this connection."""
        known = cycle.known
        if known is not None and cycle.scope is known.scope:
            cycle.scope = {
                **known.scope,
                "server": self._server,
                "client": self._address,
                "scheme": self._scheme,
                "state": self.app_state.copy(),
                "extensions": self._extensions,
            }

    def on_response_complete(self) -> None:
        """Start the next waiting request, or the timer of an idle connection."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self.loop.call_soon(self._start, self.pipeline.popleft())
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
            raise RequestRejected(431, f"the header fields exceed {self.limits.head_bytes} bytes")

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
        return since_s + (self.keep_alive_s if idle else self.limits.head_s)

    def _on_alarm(self) -> None:
        self._alarm = None
        if self._since_s is None or self._refused:
            return
        now_s = self.loop.time()
        expects = self.cycle is not None and self.cycle.waiting_for_100_continue
        if self.flow.read_paused or (self._phase == BODY and expects):
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
        if own and self.pipeline and self.pipeline[-1] is cycle:
            assert cycle is not None
            cycle.keep_alive = False
            cycle.refusal = refusal(why, self._path(), self.shape)
        elif own:
            assert cycle is not None
            cycle.disconnected = True
            cycle.wake()
            self._send_refusal(None if cycle.response_started else why)
        elif cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False  # the last request before the faulty one
        else:
            self._send_refusal(why)

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
            self.transport.write(refusal(why, self._path(), self.shape).encoded())
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)


def address(name: Any) -> tuple[str, int | None] | None:
    """Return the address of a socket as ASGI has it; None if it has none."""
    if isinstance(name, list | tuple):
        return str(name[0]), int(name[1])
    return (name, None) if isinstance(name, str) and name else None


def limited_protocol(
    limits: HeadLimits,
    shape: Shape = plain,
    caller: Caller = one_caller,
    begin: Begin = never,
) -> type[LimitedHttpProtocol]:
    """Return a protocol class with other limits; uvicorn creates its instances itself.

    `shape` formats refusals; it is called only when a request is refused. `caller` names who has
    sent a request, by its head; it is called only when more requests have come than can begin
    at once, and they begin in turns. `begin` begins to answer a request that has come whole without
    a coroutine; False if it has done nothing, and the application must answer.
    """
    own = {
        "limits": limits,
        "shape": staticmethod(shape),
        "known": KnownHeads[KnownHead](),
        "accepted": ConnectionLimit(),
        "turns": Turns(),
        "caller": staticmethod(caller),
        "begin": staticmethod(begin),
    }
    return type("Guarded", (LimitedHttpProtocol,), own)
