"""Checks that a request comes from a program on this machine, not from a web page or a proxy.

A call without a key is trusted because of its origin, and the peer's address alone does not prove
that. A web page can make a browser on this machine send requests: cross-site requests (marked by
Origin or Sec-Fetch-Site), or requests to its own name that resolves to 127.0.0.1 (DNS rebinding;
Host then has that name). A reverse proxy on this machine forwards requests from other machines
(marked by the Forwarded fields). A proxy that removes all of these marks cannot be distinguished
from a local program: if there is one in front of the gateway, give its users keys.
"""

from collections.abc import Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from tollway.gateway.security.addresses import is_loopback

_FORWARDED = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"true-client-ip",
        b"cf-connecting-ip",
    }
)


def trouble(scope: MutableMapping[str, Any]) -> str:
    """Return why a request is not accepted as local; empty if it is (8 us)."""
    client = scope.get("client")
    if client is None:
        server = scope.get("server")
        if server is None or server[1] is not None:
            return "its peer is unknown"  # a Unix socket has a path and no port
    elif not is_loopback(client[0]):
        return "it comes from another machine"
    return _told(scope["headers"])


def _told(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the evidence in the header fields that a request is not local."""
    for name, value in headers:
        if name in _FORWARDED:
            return f"a proxy passed it on ({name.decode()})"
        if name == b"host" and not _is_local(f"//{value.decode('latin-1')}"):
            return "its Host is no name of this machine"
        if name == b"origin" and not _is_local(value.decode("latin-1")):
            return "its Origin is a page of another site"
        if name == b"sec-fetch-site" and value == b"cross-site":
            return "a page of another site asked for it"
    return ""


def _is_local(url: str) -> bool:
    """Return whether an address, `//HOST` or `SCHEME://HOST`, names only this machine."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761: it never leaves the machine
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
