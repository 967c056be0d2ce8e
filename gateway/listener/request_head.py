"""What the head of a request must be before anything of the gateway sees it (RFC 9112).

The parser (llhttp, in its strict mode) refuses malformed lines, fields and lengths; here is what it
lets pass. Pure: bytes in, a verdict out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

Field = tuple[bytes, bytes]

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
"""Methods that are served. CONNECT and TRACE are not a gateway's, the rest are WebDAV's."""

_JUDGED = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


class RequestRejected(Exception):  # noqa: N818 - reads as what happened
    """A request that is answered here, with `status`; `detail` is ours, never the client's text."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """What a client may take of us. nginx and HAProxy allow about as much.

    A head must be whole `head_s` after its first byte (or after the connection); a body must then
    come at `body_bytes_per_s` or faster, after a grace of `body_grace_s`.
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
    """Judge the fields (names in lower case) of a head in HTTP/`version`.

    Return whether the client waits for a 100 (Continue). Raises Refused.
    """
    host: bytes | None = None
    framed = expects = False
    for name, value in headers:
        if name not in _JUDGED:
            continue
        if name == b"host":
            if host is not None:
                raise RequestRejected(400, "more than one Host field")
            host = value
            _check_host(value)
        elif name == b"content-length":
            framed = True
            if int(value) > limits.body_bytes:  # digits: the parser has seen to that
                raise RequestRejected(413, f"a body of more than {limits.body_bytes} bytes")
        elif name == b"transfer-encoding":
            _check_coding(value, version, framed)
            framed = True
        else:
            expects = _expects(value, version)
    if host is None and version != "1.0":
        raise RequestRejected(400, "no Host field")
    return expects


def no_websocket(headers: Sequence[Field]) -> None:
    """Refuse the offer of a WebSocket. Any other upgrade may be declined by ignoring it (7.8).

    A client that asked for a WebSocket has nothing else to say: answered as the plain request that
    it looks like, it would be sent to a model, and paid for.
    """
    for name, value in headers:
        if name == b"upgrade" and b"websocket" in value.lower():
            raise RequestRejected(
                501, "WebSocket is not served here; streams come as server-sent events"
            )


def framing(headers: Sequence[Field]) -> bytes:
    """Return the lines of a judged head that say where its body ends."""
    names = (b"content-length", b"transfer-encoding")
    return b"".join([b"%b: %b\r\n" % pair for pair in headers if pair[0] in names])


def origin_form(target: bytes, method: bytes) -> tuple[bytes, bytes | None]:
    """Return the target in origin form, and the host that an absolute form named (else None).

    Raises Refused for a fragment, a user, another scheme, or `*` for anything but OPTIONS.
    """
    if b"#" in target:
        raise RequestRejected(400, "a fragment in the request's target")
    if target.startswith(b"/"):
        return target, None
    if target == b"*":
        if method != b"OPTIONS":
            raise RequestRejected(400, "the target * is for OPTIONS")
        return target, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise RequestRejected(400, "a target that is neither a path nor an http URL")
    host, rest = match.groups()
    _check_host(host)
    return (rest if rest.startswith(b"/") else b"/" + rest), host


@lru_cache(maxsize=1000)  # clients say the same few hosts again and again
def _check_host(host: bytes) -> None:
    if _HOST.fullmatch(host.strip()) is None:
        raise RequestRejected(400, "an invalid Host")


def _check_coding(value: bytes, version: str, framed: bool) -> None:
    if version == "1.0":
        raise RequestRejected(400, "a transfer coding in HTTP/1.0")
    if framed or value.strip().lower() != b"chunked":
        raise RequestRejected(501, "a transfer coding other than chunked, once")


def _expects(value: bytes, version: str) -> bool:
    if value.strip().lower() != b"100-continue":
        raise RequestRejected(417, "an expectation other than 100-continue")
    return version == "1.1"  # RFC 9110 10.1.1: of a 1.0 client it is ignored
