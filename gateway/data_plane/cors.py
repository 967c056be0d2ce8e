"""Cross-origin requests of web pages (CORS, in the Fetch standard), if the operator allows them.

A browser lets a page of another origin read a reply only if the reply allows it, and asks first (a
preflight) whether a request with a key or JSON may be sent. Only routes are opened in this way, and
never the control plane: its own page needs no permission.
"""

import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from tollway.backends.documents import header
from tollway.backends.types import Headers
from tollway.gateway.data_plane.asgi import Receive, Scope, Send
from tollway.gateway.data_plane.handler import DataPlane
from tollway.gateway.data_plane.idempotency import StoredResponse
from tollway.gateway.listener.client import Client
from tollway.gateway.observability.request_trace import RequestTrace

ANY = "*"
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_NAMES_BYTES_MAX = 4096
_VARY = (b"vary", b"origin")
_EXPOSED = b", ".join(
    (
        *(b"x-tollway-decision", b"x-tollway-backend", b"x-tollway-reason", b"x-tollway-cost-usd"),
        *(b"x-tollway-quote-usd", b"x-tollway-output-limit", b"x-request-id", b"request-id"),
        *(b"retry-after", b"x-should-retry", b"server-timing", b"openai-processing-ms"),
    )
)


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """What pages of other origins may do.

    origins: those allowed, in lower case, or ANY. headers: the request fields allowed, in lower
    case, or ANY. credentials: whether browsers send cookies and client certificates, and pages may
    read the replies. max_age_s: how long a browser may remember a preflight.
    """

    origins: Collection[str]
    headers: Collection[str] = (ANY,)
    credentials: bool = False
    max_age_s: int = 600

    def of_reply(self, origin: bytes) -> Headers:
        """Return the fields of a reply to a page of an origin."""
        fields = self._allowing(origin)
        if fields is None:
            return [_VARY]
        return [*fields, (b"access-control-expose-headers", _EXPOSED)]

    def of_preflight(self, origin: bytes, wanted: bytes) -> Headers:
        """Return the fields of the reply to a preflight; `wanted`: the request fields it names."""
        fields = self._allowing(origin)
        if fields is None:
            return [_VARY]
        if names := self._names(wanted):
            fields.append((b"access-control-allow-headers", names))
        return [
            *fields,
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", b"%d" % self.max_age_s),
        ]

    def _allowing(self, origin: bytes) -> Headers | None:
        """Return the fields that allow an origin to read a reply; None if it may not."""
        if ANY in self.origins:
            return [(b"access-control-allow-origin", b"*")]
        if origin.decode("latin-1").lower() not in self.origins:
            return None
        fields = [(b"access-control-allow-origin", origin), _VARY]
        if self.credentials:
            fields.append((b"access-control-allow-credentials", b"true"))
        return fields

    def _names(self, wanted: bytes) -> bytes:
        """Return the allowed ones of the request fields that a preflight names."""
        if len(wanted) > _NAMES_BYTES_MAX or not _NAMES.fullmatch(wanted.strip()):
            return b""
        names = [name.strip() for name in wanted.split(b",")]
        if ANY not in self.headers:  # `*` would not cover Authorization, so names are repeated
            names = [name for name in names if name.decode().lower() in self.headers]
        return b", ".join(names)


class CorsDataPlane(DataPlane):
    """A data plane that pages of other origins may use."""

    def __init__(self, *args: Any, cors: CorsPolicy, **kwargs: Any) -> None:
        """`cors` says which; the others are those of `DataPlane`."""
        super().__init__(*args, **{**kwargs, "callbacks": False})  # it adds fields to replies
        self._cors = cors

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, trace: RequestTrace | None = None
    ) -> None:
        """Answer one request, and say whether its page may read the reply."""
        origin = header(scope["headers"], b"origin")
        if origin is None or trace is not None:
            await super().__call__(scope, receive, send, trace)
            return
        asked = header(scope["headers"], b"access-control-request-method")
        if scope["method"] == "OPTIONS" and asked is not None:
            wanted = header(scope["headers"], b"access-control-request-headers") or b""
            fields = self._cors.of_preflight(origin, wanted)
            await self._send(StoredResponse(204, fields, b""), send)
            return
        await super().__call__(scope, receive, Allowing(send, self._cors.of_reply(origin)))

    async def _send(self, whole: StoredResponse, send: Send, client: Client | None = None) -> None:
        """Send a complete reply, at once where that is possible."""
        if type(send) is Allowing:
            whole = StoredResponse(whole.status, [*whole.headers, *send.fields], whole.body)
            send = send.send
        await super()._send(whole, send, client)


@dataclass(frozen=True, slots=True)
class Allowing:
    """A `send` that adds fields to the head of a reply."""

    send: Callable[[dict[str, Any]], Awaitable[None]]
    fields: Headers

    def __call__(self, message: dict[str, Any]) -> Awaitable[None]:
        """Send a message."""
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *self.fields]
        return self.send(message)
