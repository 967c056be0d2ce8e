"""The ASGI entry point: sends control-plane paths to Starlette, all others to the data plane."""

from collections.abc import Awaitable, Callable
from typing import Any

from tollway.gateway.data_plane.asgi import Receive, Scope, Send
from tollway.gateway.data_plane.date_header import DateHeader
from tollway.gateway.data_plane.handler import DataPlane
from tollway.gateway.data_plane.problems import HttpProblem, of_refusal
from tollway.gateway.routing.refusals import overloaded

_HEALTH = frozenset({"/metrics", "/livez", "/readyz", "/healthz"})
_CONTROL = "/_tollway/"

ASGI = Callable[[Any, Any, Any], Awaitable[None]]


class App:
    """Dispatches each request to its plane, and opens and closes the gateway with the server."""

    # The mutable state is the number of data-plane requests in progress, the formatted date, and
    # whether connections are to be closed.

    def __init__(
        self,
        proxy: DataPlane,
        control: ASGI,
        opened: Callable[[], Awaitable[None]],
        closed: Callable[[], Awaitable[None]],
        *,
        most: int,
        shed: Callable[[], None],
    ) -> None:
        """Serve at most `most` data-plane requests at once; call `shed` for each one refused."""
        self._proxy = proxy
        self._control = control
        self._opened = opened
        self._closed = closed
        self._dates = DateHeader()
        self._most = most
        self._shed = shed
        self._busy = 0
        self._leaving = False

    def leave(self) -> None:
        """Close each connection with its next reply from now on.

        Otherwise they would be closed idle at shutdown. A request sent at that moment would be
        lost, and its client could not tell whether it was received.
        """
        self._leaving = True

    def serve(self, proxy: DataPlane) -> None:
        """Send all new requests to another data plane."""
        self._proxy = proxy

    def shape(self, path: bytes, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the content type and body of a problem, in the format of a path's protocol.

        Used for requests that are refused before they reach a route.
        """
        return self._proxy.shape(path, status, problem)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith(_CONTROL) or path in _HEALTH:
                await self._control(scope, receive, self._dated(send))
            elif self._busy >= self._most:
                self._shed()
                refused = of_refusal(overloaded("this gateway"))
                written = self.shape(scope["raw_path"], refused.status, refused.problem())
                await refuse(refused, written, self._dated(send))
            else:
                self._busy += 1
                try:
                    await self._proxy(scope, receive, self._dated(send))
                finally:
                    self._busy -= 1
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1003, "reason": "no WebSocket here"})

    def _dated(self, send: Send) -> Send:
        """Return a `send` that adds a Date unless the backend's reply has one.

        It also closes the connection during shutdown.
        """

        def dated(message: dict[str, Any]) -> Any:
            if message["type"] == "http.response.start":
                for name, _ in message["headers"]:
                    if name == b"date":
                        break
                else:
                    message["headers"] = [*message["headers"], (b"date", self._dates.now())]
                if self._leaving:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            return send(message)

        return dated

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
