"""Validates the head of a request before any other part of the gateway sees it (RFC 9112).

The parser (llhttp, in its strict mode) refuses malformed lines, fields and lengths; this module
checks what the parser accepts. It is pure: bytes in, an outcome out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

Field = tuple[bytes, bytes]

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
"""The methods served. CONNECT and TRACE do not apply to a gateway; the rest are WebDAV's."""

_JUDGED = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


class RequestRejected(Exception):  # noqa: N818 - reads as what happened
    """A request refused with `status`; `detail` never quotes the client."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Limits on a client's use of the server, about the same as in nginx and HAProxy.

    A head must be complete `head_s` after its first byte (or after the connection). The body must
    then arrive at `body_bytes_per_s` or faster, after a grace period of `body_grace_s`.
    """

    fields: int = 100
    head_bytes: int = 32 * 1024
    target_bytes: int = 8 * 1024
    body_bytes: int = 64 * 1024 * 1024
    head_s: float = 10.0
    body_grace_s: float = 10.0
    body_bytes_per_s: float = 1024.0
    pipelined: int = 64
    connections: int = 10_000


def check_head(headers: Sequence[Field], version: str, limits: HeadLimits) -> bool:
    """Check the fields (names in lower case) of a head in HTTP/`version`.

    Return whether the client waits for a 100 (Continue). Raises RequestRejected.
    """
    host: bytes | None = None
    framed = expects = False
    for name, value in headers:
        if name not in _JUDGED:
            continue
        if name == b"host":
            if host is not None:
                raise RequestRejected(400, "the request has more than one Host field")
            host = value
            _check_host(value)
        elif name == b"content-length":
            framed = True
            if int(value) > limits.body_bytes:  # digits only: the parser has checked that
                raise RequestRejected(413, f"the body exceeds {limits.body_bytes} bytes")
        elif name == b"transfer-encoding":
            _check_coding(value, version, framed)
            framed = True
        else:
            expects = _expects(value, version)
    if host is None and version != "1.0":
        raise RequestRejected(400, "the request has no Host field")
    return expects


def no_websocket(headers: Sequence[Field]) -> None:
    """Refuse the offer of a WebSocket. Any other upgrade may be declined by ignoring it (7.8).

    A client that offers a WebSocket wants nothing else. If its request were treated as the plain
    request that it looks like, it would be sent to a model and charged.
    """
    for name, value in headers:
        if name == b"upgrade" and b"websocket" in value.lower():
            raise RequestRejected(
                501, "WebSocket is not supported; streams are sent as server-sent events"
            )


def framing(headers: Sequence[Field]) -> bytes:
    """Return the header lines of a checked head that determine where its body ends."""
    names = (b"content-length", b"transfer-encoding")
    return b"".join([b"%b: %b\r\n" % pair for pair in headers if pair[0] in names])


def origin_form(target: bytes, method: bytes) -> tuple[bytes, bytes | None]:
    """Return the target in origin form, and the host of an absolute form (else None).

    Raises RequestRejected for a fragment, a user, another scheme, or `*` except with OPTIONS.
    """
    if b"#" in target:
        raise RequestRejected(400, "the request target has a fragment")
    if target.startswith(b"/"):
        return target, None
    if target == b"*":
        if method != b"OPTIONS":
            raise RequestRejected(400, "the target * is valid only with OPTIONS")
        return target, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise RequestRejected(400, "the request target is neither a path nor an http URL")
    host, rest = match.groups()
    _check_host(host)
    return (rest if rest.startswith(b"/") else b"/" + rest), host


@lru_cache(maxsize=1000)  # clients repeat the same few hosts
def _check_host(host: bytes) -> None:
    if _HOST.fullmatch(host.strip()) is None:
        raise RequestRejected(400, "the Host field is invalid")


def _check_coding(value: bytes, version: str, framed: bool) -> None:
    if version == "1.0":
        raise RequestRejected(400, "an HTTP/1.0 request cannot have a transfer coding")
    if framed or value.strip().lower() != b"chunked":
        raise RequestRejected(501, "the only supported transfer coding is chunked, applied once")


def _expects(value: bytes, version: str) -> bool:
    if value.strip().lower() != b"100-continue":
        raise RequestRejected(417, "the only supported expectation is 100-continue")
    return version == "1.1"  # RFC 9110 10.1.1: ignored from a 1.0 client
