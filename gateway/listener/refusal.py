"""Refusals of requests that are not served: as bytes, or as an ASGI application.

A refusal closes its connection.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from tollway.gateway.listener.request_head import RequestRejected

Shape = Callable[[bytes, int, dict[str, Any]], tuple[bytes, bytes]]
"""Returns the content type and body of a problem, for a raw path and a status."""

_TITLES = {413: "Content Too Large", 414: "URI Too Long"}
"""Titles of RFC 9110: Python's own differ between its versions, and clients compare them."""


def plain(path: bytes, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return a problem in the format of RFC 9457, for any path."""
    return b"application/problem+json", json.dumps(problem).encode()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The response to a request that is not served. It is an ASGI application that sends it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def encoded(self) -> bytes:
        """Return the response as it is sent on an HTTP/1.1 connection."""
        headers = b"".join(b"%b: %b\r\n" % pair for pair in self.headers)
        status = b"%d %b" % (self.status, _title(self.status).encode())
        return b"HTTP/1.1 %b\r\n%b\r\n%b" % (status, headers, self.body)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the response."""
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send({**start, "trailers": False})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def refusal(why: RequestRejected, path: bytes, shape: Shape) -> Refusal:
    """Return a refusal in the format that `shape` gives it for a path."""
    title = _title(why.status)
    problem = {"type": "about:blank", "title": title, "status": why.status, "detail": why.detail}
    content_type, body = shape(path, why.status, problem)
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        (b"date", formatdate(usegmt=True).encode()),
    ]
    return Refusal(why.status, headers, body)


def _title(status: int) -> str:
    return _TITLES.get(status) or HTTPStatus(status).phrase
