"""The ASGI entry point: sends control-plane paths to Starlette, all others to the data plane."""

from collections.abc import Awaitable, Callable
from typing import Any

from tollway.eager import as_task
from tollway.gateway.data_plane.asgi import Receive, Scope, Send
from tollway.gateway.data_plane.handler import DataPlane
from tollway.gateway.data_plane.in_flight import InFlight
from tollway.gateway.data_plane.problems import HttpProblem, of_refusal
from tollway.gateway.data_plane.reply_stamp import ReplyStamp
from tollway.gateway.listener.client import Client, WholeRequest
from tollway.gateway.listener.known_heads import KnownHead

# Compared with the bytes that the client sent, as the paths of routes are.
_HEALTH = frozenset({b"/metrics", b"/livez", b"/readyz", b"/healthz"})
_CONTROL = b"/_tollway/"

ASGI = Callable[[Any, Any, Any], Awaitable[None]]


class App:
    """Dispatches each request to its plane, and opens and closes the gateway with the server."""

    # The mutable state is the data plane.

    def __init__(
        self,
        proxy: DataPlane,
        control: ASGI,
        opened: Callable[[], Awaitable[None]],
        closed: Callable[[], Awaitable[None]],
        *,
        in_flight: InFlight,
        stamp: ReplyStamp,
    ) -> None:
        """`in_flight` limits the data-plane requests.

        The data plane stamps its own replies.
        """
        self._proxy = proxy
        self._control = control
        self._opened = opened
        self._closed = closed
        self._stamp = stamp
        self._in_flight = in_flight

    def leave(self) -> None:
        """Close each connection with its next reply from now on.

        Otherwise they would be closed idle at shutdown. A request sent at that moment would be
        lost, and its client could not tell whether it was received.
        """
        self._stamp.leaving = True

    def serve(self, proxy: DataPlane) -> None:
        """Send all new requests to another data plane."""
        self._proxy = proxy

    def shape(self, path: bytes, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the content type and body of a problem, in the format of a path's protocol.

        Used for requests that are refused before they reach a route.
        """
        return self._proxy.shape(path, status, problem)

    def caller(self, scope: Scope, known: KnownHead | None = None) -> str:
        """Return who has sent a request: its tenant, or one of a few callers without a key."""
        return self._proxy.caller(scope, known)

    def begin(self, client: Client, request: WholeRequest) -> bool:
        """Begin to answer a request in callbacks.

        False if nothing was done, and the application must answer it.
        """
        if request.known is None or request.known.judge is not self._proxy:
            path: bytes = request.head["raw_path"]
            if path.startswith(_CONTROL) or path in _HEALTH:
                return False
        return self._proxy.begin(client, request)

    def knows(self, scope: Scope) -> bool:
        """Return whether a request may be anybody's: without a known key it need not be read."""
        return self._proxy.knows(scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "http":
            path: bytes = scope["raw_path"]
            if path.startswith(_CONTROL) or path in _HEALTH:
                await as_task()
                await self._control(scope, receive, self._stamp.onto(send))
            elif self._in_flight.count >= self._in_flight.most:
                refused = of_refusal(self._in_flight.refusal())
                written = self.shape(scope["raw_path"], refused.status, refused.problem())
                await refuse(refused, written, self._stamp.onto(send))
            else:
                self._in_flight.count += 1
                try:
                    await self._proxy(scope, receive, send)
                finally:
                    self._in_flight.count -= 1
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send(
                {"type": "websocket.close", "code": 1003, "reason": "WebSocket is not supported"}
            )

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        message: dict[str, Any] = await receive()
        assert message["type"] == "lifespan.startup", message
        try:
            await self._opened()
        except Exception as exc:  # report every failure to the server
            await send({"type": "lifespan.startup.failed", "message": f"tollway: {exc}"})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._closed()
        await send({"type": "lifespan.shutdown.complete"})


async def refuse(refused: HttpProblem, written: tuple[bytes, bytes], send: Send) -> None:
    """Answer a request without reading it; `written` is (content type, body)."""
    content_type, body = written
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"x-tollway-reason", refused.reason.encode()),
        *refused.headers,
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
