"""Asks the gateway's application over ASGI, without a connection.

Theory of operation. A call of gRPC becomes the request that the same call over REST would be, and
is answered by the same application: keys, limits, budgets, the router and the journal cannot tell
the difference. It begins without a task, as behind the HTTP listener (`tollway.eager`), and not
inside grpcio's: that ends when the client cancels. The application is then told as the HTTP
listener tells it (`Client.leave`): a call of a model is cancelled, and what it cost is settled.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tollway.backends.types import Headers
from tollway.eager import Eager
from tollway.gateway.data_plane.admission import NO_KEY
from tollway.gateway.grpc_listener.failures import (
    INTERNAL,
    UNAUTHENTICATED,
    UNAVAILABLE,
    Failed,
)
from tollway.gateway.listener.client import EXTENSION, Client
from tollway.gateway.listener.known_heads import KnownHead

log = logging.getLogger(__name__)

_DEADLINE = b"x-tollway-deadline-ms"
_DEADLINE_MAX_S = 86_400.0  # what the field may say; a route's own limit is lower
# What the call itself says of its body and its connection; and gRPC's own.
_OURS = frozenset(
    (
        *(b"content-type", b"content-length", b"content-encoding", b"transfer-encoding"),
        *(b"host", b"te", b"expect", b"upgrade", b"connection", b"accept-encoding"),
        *(b"grpc-accept-encoding", b"grpc-encoding", b"grpc-timeout"),
        b"inference-header-content-length",
    )
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the metadata, the peer's address (host, port), and the time left, if limited."""

    metadata: Headers
    peer: tuple[str, int] | None
    remaining_s: float | None = None

    def headers(self) -> Headers:
        """Return the metadata as header fields, with the deadline of the call."""
        fields = [
            pair for pair in self.metadata if pair[0] not in _OURS and not pair[0].endswith(b"-bin")
        ]
        if self.remaining_s is None or self.remaining_s >= _DEADLINE_MAX_S:
            return fields
        left_ms = max(1.0, self.remaining_s * 1000)
        if any(name == _DEADLINE and _is_sooner(value, left_ms) for name, value in fields):
            return fields
        fields = [pair for pair in fields if pair[0] != _DEADLINE]
        return [*fields, (_DEADLINE, b"%.3f" % left_ms)]


def _is_sooner(value: bytes, left_ms: float) -> bool:
    """Return whether a deadline in the metadata comes first; the gateway refuses what is none."""
    try:
        return not float(value) >= left_ms
    except ValueError:
        return True


@dataclass(slots=True)
class Reply:
    """A reply as it arrives; it serves as the connection that the application writes to."""

    most: int
    status: int = 0
    headers: Headers = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)
    size: int = 0
    is_whole: bool = False
    known: KnownHead | None = None
    waited: bool = False

    def reply(self, status: int, headers: Headers, body: bytes) -> bool:
        """Take a whole reply."""
        self.status, self.headers, self.body, self.is_whole = status, headers, [body], True
        return True

    async def send(self, message: dict[str, Any]) -> None:
        """Take a message of ASGI."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
            return
        part = message.get("body", b"")
        self.body.append(part)
        self.size += len(part)
        self.is_whole = not message.get("more_body", False)
        if self.size > self.most:
            raise OSError("the reply is too large")  # as when a client hangs up


class Exchange:
    """The application, asked by one call at a time or by many."""

    # The mutable state is the requests in progress; some go on after their client has left.

    def __init__(self, app: Any, *, scheme: str, reply_bytes_max: int) -> None:
        self._app = app
        self._scheme = scheme
        self._most = reply_bytes_max
        self._serving: set[asyncio.Future[None]] = set()

    def who(self, caller: Caller, *, needs_key: bool) -> str:
        """Return who calls, by the head alone: a tenant, or one of a few callers without a key.

        Failed if a key is needed and there is none: such a call need not be read.
        """
        scope = self._scope(caller, "POST", b"/v2", caller.headers(), Client())
        if needs_key and not self._app.knows(scope):
            raise Failed(UNAUTHENTICATED, NO_KEY)
        party: str = self._app.caller(scope)
        return party

    async def ask(
        self,
        caller: Caller,
        method: str,
        path: bytes,
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
    ) -> tuple[int, Headers, bytes]:
        """Return (status, fields, body) of the reply; Failed if there is none."""
        client, reply, left = Client(), Reply(self._most), asyncio.Event()
        client.serving = reply
        fields = [*caller.headers(), *headers]
        if body:
            fields.append((b"content-length", b"%d" % len(body)))
        scope = self._scope(caller, method, path, fields, client)
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if waiting:
                return waiting.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._serving.add(done)
        done.add_done_callback(self._serving.discard)
        running = self._run(scope, receive, reply)
        client.running = serving = Eager(running, loop, lambda ended: done.set_result(None))
        loop.call_soon(serving.step)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            client.leave()
            left.set()
            raise
        if not reply.is_whole:
            cut = bool(reply.status)
            why = "the reply broke off" if cut else "the gateway could not answer; see its log"
            raise Failed(UNAVAILABLE if cut else INTERNAL, why)
        return reply.status, reply.headers, b"".join(reply.body)

    async def _run(self, scope: dict[str, Any], receive: Any, reply: Reply) -> None:
        try:
            await self._app(scope, receive, reply.send)
        except Exception:
            log.exception("a call could not be answered")

    def _scope(
        self, caller: Caller, method: str, path: bytes, fields: Headers, client: Client
    ) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "2",
            "method": method,
            "scheme": self._scheme,
            "path": path.decode("ascii"),
            "raw_path": path,
            "query_string": b"",
            "root_path": "",
            "headers": fields,
            "client": caller.peer,
            "server": None,
            "extensions": {EXTENSION: client},
        }

    async def close(self, within_s: float) -> None:
        """Wait a limited time until the calls whose clients have left are settled."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=within_s)
