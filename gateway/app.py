"""The ASGI entry: the control plane's few paths to Starlette, all else to the data plane."""

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.proxy import Proxy, Receive, Scope, Send

_HEALTH = frozenset({"/metrics", "/livez", "/readyz", "/healthz"})
_CONTROL = "/_tollway/"

ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith(_CONTROL) or path in _HEALTH:
                await self._control(scope, receive, send)
            else:
                await self._proxy(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1003, "reason": "no WebSocket here"})

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
