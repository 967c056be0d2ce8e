"""What the head of a request must be before anything of the gateway sees it (RFC 9112).

The parser (llhttp, in its strict mode) refuses malformed lines, fields and lengths; here is what it
lets pass. Pure: bytes in, a verdict out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
"""Methods that are served. CONNECT and TRACE are not a gateway's, the rest are WebDAV's."""

_JUDGED = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


class Refused(Exception):  # noqa: N818 - reads as what happened
    """A request that is answered here, with `status`; `detail` is ours, never the client's text."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Limits:
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


class Head(NamedTuple):
    """What a head says of its body: the fields that frame it, and whether it waits for a 100."""

    framing: bytes
    expects: bool


def read_head(headers: Sequence[tuple[bytes, bytes]], version: str, limits: Limits) -> Head:
    """Judge the fields (names in lower case) of a head in HTTP/`version`. Raises Refused."""
    host: bytes | None = None
    framing = b""
    expects = False
    for name, value in headers:
        if name not in _JUDGED:
            continue
        if name == b"host":
            if host is not None:
                raise Refused(400, "more than one Host field")
            host = value
            _check_host(value)
        elif name == b"content-length":
            framing = _by_length(value, limits)
        elif name == b"transfer-encoding":
            framing = _chunked(value, version, framing)
        else:
            expects = _expects(value, version)
    if host is None and version != "1.0":
        raise Refused(400, "no Host field")
    return Head(framing, expects)


def origin_form(target: bytes, method: bytes) -> tuple[bytes, bytes | None]:
    """Return the target in origin form, and the host that an absolute form named (else None).

    Raises Refused for a fragment, a user, another scheme, or `*` for anything but OPTIONS.
    """
    if b"#" in target:
        raise Refused(400, "a fragment in the request's target")
    if target.startswith(b"/"):
        return target, None
    if target == b"*":
        if method != b"OPTIONS":
            raise Refused(400, "the target * is for OPTIONS")
        return target, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise Refused(400, "a target that is neither a path nor an http URL")
    host, rest = match.groups()
    _check_host(host)
    return (rest if rest.startswith(b"/") else b"/" + rest), host


@lru_cache(maxsize=1000)  # clients say the same few hosts again and again
def _check_host(host: bytes) -> None:
    if _HOST.fullmatch(host.strip()) is None:
        raise Refused(400, "an invalid Host")


def _by_length(value: bytes, limits: Limits) -> bytes:
    if int(value) > limits.body_bytes:  # digits: the parser has seen to that
        raise Refused(413, f"a body of more than {limits.body_bytes} bytes")
    return b"content-length: %b\r\n" % value


def _chunked(value: bytes, version: str, framing: bytes) -> bytes:
    if version == "1.0":
        raise Refused(400, "a transfer coding in HTTP/1.0")
    if framing or value.strip().lower() != b"chunked":
        raise Refused(501, "a transfer coding other than chunked, once")
    return b"transfer-encoding: chunked\r\n"


def _expects(value: bytes, version: str) -> bool:
    if value.strip().lower() != b"100-continue":
        raise Refused(417, "an expectation other than 100-continue")
    return version == "1.1"  # RFC 9110 10.1.1: of a 1.0 client it is ignored
