"""The head of a request to a backend, as bytes."""

from tollway.backends.types import Call

OWN_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
"""Fields of a request that the transport sets itself."""

_BODY_EXPECTED = frozenset((b"POST", b"PUT", b"PATCH"))


def request_head(call: Call, host: bytes) -> bytes:
    """Return the head of `call` as it is sent; the transport sets the framing itself.

    Raises ValueError for a method, target or field that would end its line early.
    """
    lines = [b"%b %b HTTP/1.1\r\n" % (call.method, call.target)]
    has_host = False
    for name, value in call.headers:
        if name == b"host":
            has_host = True
        elif name in OWN_FRAMING:
            continue
        lines.append(b"%b: %b\r\n" % (name, value))
    if not has_host:
        lines.insert(1, b"host: %b\r\n" % host)
    if needs_length(call):
        lines.append(b"content-length: %d\r\n" % len(call.body))
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b" " in call.target:
        raise ValueError("a line break or a space where a request may have none")
    return head + b"\r\n"


def needs_length(call: Call) -> bool:
    """Return whether a request must state the length of its body, even if 0 (RFC 9110 8.6)."""
    return bool(call.body) or call.method in _BODY_EXPECTED
