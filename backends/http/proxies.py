"""Outgoing proxies: selects the proxy for a URL from a setting or the environment.

The variables are those that curl and most clients read: `HTTPS_PROXY` for https, `HTTP_PROXY` for
http, `ALL_PROXY` for both. Each may be in lower case, which takes precedence. `NO_PROXY` names
hosts that are reached directly: names with all below them, addresses, networks (10.0.0.0/8), each
with an optional port, or `*`. This machine is always reached directly.
"""

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

DIRECT = "none"
"""The setting for no proxy, whatever the environment says."""

_HOW = "write it like http://USER:PASSWORD@HOST:PORT"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; its credentials are kept out of every text."""

    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def authority(self) -> str:
        """Its host and port, without credentials."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authorization(self) -> bytes | None:
        """The value of Proxy-Authorization (RFC 7617); None without credentials."""
        if not self.user and not self.password:
            return None
        return b"Basic " + base64.b64encode(f"{self.user}:{self.password}".encode())


def parse_proxy(url: str) -> Proxy:
    """Parse a proxy's URL; the ValueError says what is wrong, but never quotes it: it has a
    password.

    The scheme may be omitted, as in many environments.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"is not a proxy URL; {_HOW}") from None
    if parts.scheme != "http":
        raise ValueError(f"must be an HTTP proxy reached over http://; {_HOW}")
    if not host or not url.isascii() or any(c <= " " for c in url):
        raise ValueError(f"names no host; {_HOW}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"has more than a host and a port; {_HOW}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if ":" in user:
        raise ValueError("has a colon in its user, which Basic authentication cannot carry")
    return Proxy(host, port or 80, user, password)


def proxy_url(url: str, setting: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return (the URL of the proxy for `url`, the variable it came from); empty: none.

    A `setting` takes precedence over the environment: the URL of a proxy, or DIRECT.
    """
    if setting is not None:
        return ("", "") if setting == DIRECT else (setting, "")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or _is_direct(parts, environ):
        return "", ""
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if environ.get(variable):
                return environ[variable], variable
    return "", ""


def _is_direct(parts: SplitResult, environ: Mapping[str, str]) -> bool:
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _PORTS[parts.scheme]
    address = _address(host)
    if host == "localhost" or host.endswith(".localhost") or (address and address.is_loopback):
        return True
    listed = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return any(_names(entry, host, port, address) for entry in listed.replace(",", " ").split())


def _names(
    entry: str, host: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
) -> bool:
    """Return whether an entry of NO_PROXY matches a host."""
    if entry == "*":
        return True
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isdigit() and (":" not in name or name.endswith("]")):
        if int(digits) != port:
            return False
        entry = name
    name = entry.strip("[]").lower().removeprefix("*").strip(".")
    if address is not None:
        return _address(name) == address
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
