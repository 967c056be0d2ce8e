"""Whether a request comes from this machine, and not from a web page or a stranger behind a proxy.

A call without a key is trusted for where it comes from, and the address of the peer alone does not
say that. A page of the web can have a browser on this machine ask (cross-site requests, which say
so in Origin or Sec-Fetch-Site), also under a name of its own that leads to 127.0.0.1 (DNS
rebinding: Host then has that name). A reverse proxy on this machine passes strangers on (it says so
in the Forwarded fields). A proxy that hides both cannot be told from a local program: where one
stands before the gateway, give its users keys.
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
    """Return why a request is not taken for this machine's own; empty where it is (8 us)."""
    client = scope.get("client")
    if client is None:
        server = scope.get("server")
        if server is None or server[1] is not None:
            return "its peer is unknown"  # of a Unix socket there is a path, and no port
    elif not is_loopback(client[0]):
        return "it comes from another machine"
    return _told(scope["headers"])


def _told(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return what the header fields tell against it."""
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
    """Say whether an address, `//HOST` or `SCHEME://HOST`, names this machine and no other."""
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
