"""Failures of calls: which status of gRPC an HTTP status becomes, and with which details."""

from typing import Any

import orjson

from tollway.backends.types import Headers

# The codes of gRPC (https://grpc.io/docs/guides/status-codes/), by number.
CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 3, 4, 5
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED = 7, 8, 9, 10
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16

_CODES = {
    400: INVALID_ARGUMENT,
    401: UNAUTHENTICATED,
    402: RESOURCE_EXHAUSTED,
    403: PERMISSION_DENIED,
    404: NOT_FOUND,
    405: UNIMPLEMENTED,
    408: DEADLINE_EXCEEDED,
    409: ABORTED,
    413: RESOURCE_EXHAUSTED,
    415: INVALID_ARGUMENT,
    422: INVALID_ARGUMENT,
    429: RESOURCE_EXHAUSTED,
    431: RESOURCE_EXHAUSTED,
    499: CANCELLED,
    501: UNIMPLEMENTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
_DETAIL_CHARS = 1000  # metadata has 8 KiB in most clients, and the details are a part of it
_PASSED = frozenset(
    (
        *(b"retry-after", b"x-should-retry", b"ratelimit", b"ratelimit-policy"),
        *(b"server-timing", b"idempotency-replayed", b"x-request-id", b"www-authenticate"),
    )
)


class Failed(Exception):  # noqa: N818 - reads as what happened
    """A call that ends with a status other than OK; `trailers` go with it."""

    def __init__(self, code: int, details: str, trailers: Headers | None = None) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailers = trailers or []


def code_of(status: int) -> int:
    """Return the code of gRPC for an HTTP status that is an error."""
    return _CODES.get(status, INTERNAL if status >= 500 else FAILED_PRECONDITION)


def failed(status: int, headers: Headers, body: bytes) -> Failed:
    """Return the failure that a reply with an error stands for."""
    return Failed(code_of(status), _details(body) or f"HTTP {status}", trailers(headers))


def trailers(headers: Headers) -> Headers:
    """Return the fields of a reply that its client gets as metadata: those of the gateway."""
    return [pair for pair in headers if pair[0] in _PASSED or pair[0].startswith(b"x-tollway-")]


def _details(body: bytes) -> str:
    """Return the reason that an error's body gives."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body[:_DETAIL_CHARS].decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else text  # a page of a proxy
    if isinstance(document, dict):
        for member in ("error", "detail", "message"):
            found = document.get(member)
            if isinstance(found, dict):
                found = found.get("message")
            if isinstance(found, str) and found:
                return found[:_DETAIL_CHARS]
    return body[:_DETAIL_CHARS].decode("utf-8", "replace")
