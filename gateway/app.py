"""The ASGI entry: the control plane's few paths to Starlette, all else to the data plane."""

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.dates import Dates
from gateway.proxy import Proxy, Receive, Scope, Send

_HEALTH = frozenset({"/metrics", "/livez", "/readyz", "/healthz"})
_CONTROL = "/_tollway/"

ASGI = Callable[[Any, Any, Any], Awaitable[None]]


class App:
    """Sends each request to its plane, and opens and closes the gateway with the server."""

    def __init__(
        self,
        proxy: Proxy,
        control: ASGI,
        opened: Callable[[], Awaitable[None]],
        closed: Callable[[], Awaitable[None]],
    ) -> None:
        self._proxy = proxy
        self._control = control
        self._opened = opened
        self._closed = closed
        self._dates = Dates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "http":
            path: str = scope["path"]
            plane = self._control if path.startswith(_CONTROL) or path in _HEALTH else self._proxy
            await plane(scope, receive, self._dated(send))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1003, "reason": "no WebSocket here"})

    def _dated(self, send: Send) -> Send:
        """Return a `send` that adds a Date where the reply has none: a backend's own is kept."""

        def dated(message: dict[str, Any]) -> Any:
            if message["type"] == "http.response.start" and not any(
                name == b"date" for name, _ in message["headers"]
            ):
                message["headers"] = [*message["headers"], (b"date", self._dates.now())]
            return send(message)

        return dated

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        message: dict[str, Any] = await receive()
        assert message["type"] == "lifespan.startup", message
        try:
            await self._opened()
        except Exception as exc:  # the server must be told, whatever it was
            await send({"type": "lifespan.startup.failed", "message": f"tollway: {exc}"})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._closed()
        await send({"type": "lifespan.shutdown.complete"})
