"""Checks that a request comes from a program on this machine, not from a web page or a proxy.

    trouble           for calls of routes that use the gateway's provider key
    control_trouble   for the control plane: only this gateway's own page, and only JSON
    is_cross_site     for feedback without a key, which machines elsewhere may send

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
        b"via",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-original-host",
        b"x-original-forwarded-for",
        b"x-envoy-external-address",
        b"x-azure-clientip",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"fly-client-ip",
    }
)
_FORWARDED_PREFIX = b"x-forwarded"  # -for, -host, -proto, -port, -server, -prefix, -user, ...
_OWN_PAGE = frozenset({b"same-origin", b"none"})  # none: the address was typed
_DEFAULT_PORTS = {"http": 80, "https": 443}


def trouble(scope: MutableMapping[str, Any]) -> str:
    """Return why a request is not accepted as local; empty if it is (8 us)."""
    client = scope.get("client")
    if client is None:
        server = scope.get("server")
        if server is None or server[1] is not None:
            return "its peer is unknown"  # a Unix socket has a path and no port
    elif not is_loopback(client[0]):
        return "it comes from another machine"
    return _forwarding_evidence(scope["headers"])


def control_trouble(scope: MutableMapping[str, Any]) -> str:
    """Return why a request without a key may not use the control plane; empty if it may.

    Other pages of this machine, such as a development server's, count as foreign here.
    """
    return trouble(scope) or _proxy_without_marks(scope) or _other_site(scope) or _no_json(scope)


def is_cross_site(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a page of another origin made a browser send a request."""
    fields = list(headers)
    own = {value.lower() for name, value in fields if name == b"host"}
    for name, value in fields:
        if name == b"origin" and value.lower().partition(b"://")[2] not in own:
            return True
        if name == b"sec-fetch-site" and value not in _OWN_PAGE:
            return True
    return False


def _forwarding_evidence(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the evidence in the header fields that a request is not local."""
    for name, value in headers:
        if name in _FORWARDED or name.startswith(_FORWARDED_PREFIX):
            return f"a proxy forwarded it (field {name.decode('latin-1')})"
        if name == b"host" and not _is_local(f"//{value.decode('latin-1')}"):
            return "its Host field does not name this machine"
        if name == b"origin" and not _is_local(value.decode("latin-1")):
            return "its Origin field names another site"
        if name == b"sec-fetch-site" and value == b"cross-site":
            return "it is a cross-site request (field sec-fetch-site)"
    return ""


def _proxy_without_marks(scope: MutableMapping[str, Any]) -> str:
    """Return the evidence that a proxy with default settings forwarded a request.

    Without further settings nginx sends HTTP/1.0, names itself as the host and nobody as the
    client, so that all that it forwards would look local.
    """
    return "it is HTTP/1.0, as some proxies send" if scope.get("http_version") == "1.0" else ""


def _other_site(scope: MutableMapping[str, Any]) -> str:
    """Return the evidence that a request is for another server, or from another page."""
    headers, server = scope["headers"], scope.get("server")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1:
        return "it has no Host field"
    if server is not None and server[1] is not None:
        port = _port(hosts[0].decode("latin-1"), scope.get("scheme", "http"))
        if port != server[1]:
            return f"its Host field does not name port {server[1]}"
    if is_cross_site(headers):
        return "a page of another origin sent it"
    return ""


def _no_json(scope: MutableMapping[str, Any]) -> str:
    """Return the evidence that a body is not JSON. Pages may send other types without asking."""
    headers = dict(scope["headers"])
    if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
        return ""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return "" if kind == b"application/json" else "its Content-Type is not application/json"


def _port(host: str, scheme: str) -> int | None:
    """Return the port that a Host field names; None if it is invalid."""
    try:
        return urlsplit(f"//{host}").port or _DEFAULT_PORTS.get(scheme)
    except ValueError:
        return None


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
