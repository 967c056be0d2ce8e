"""Addresses in a configuration: backend URLs, webhook URLs and listen addresses."""

import ipaddress
import socket
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Cloud metadata services give credentials to every client, and a gateway relays replies.
# Link-local ones are recognized by their network; these are the others.
_METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.goog"})
_METADATA_ADDRESSES = frozenset(
    map(
        ipaddress.ip_address,
        (
            *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),  # AWS: instances, pods; Google
            *("100.100.100.200", "168.63.129.16", "192.0.0.192"),  # Alibaba, Azure, Oracle
        ),
    )
)
# IPv6 networks whose addresses embed an IPv4 address in their last 32 bits: mapped,
# compatible (RFC 4291 2.5.5) and translated (NAT64, RFC 6052).
_HOLD_IPV4 = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96")))


def address_of(host: str) -> Address | None:
    """Return the IP address that a host literal names; None if it is a name to resolve.

    The older spellings that resolvers accept as an address (2852039166, 0xa9fe.0xa9fe) count too.
    """
    try:
        address: Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):  # ValueError: it is not ASCII or contains a NUL
            return None
    return _inner(address) if isinstance(address, ipaddress.IPv6Address) else address


def _inner(address: ipaddress.IPv6Address) -> Address:
    """Return the IPv4 address embedded in an IPv6 address, or else the address itself."""
    if address.sixtofour is not None:
        return address.sixtofour
    if address.is_loopback or address.is_unspecified:
        return address
    if any(address in network for network in _HOLD_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_link_local(host: str) -> bool:
    """Return whether a host is link-local (169.254.0.0/16, fe80::/10) or a metadata service."""
    if host.lower().rstrip(".") in _METADATA_HOSTS:
        return True
    address = address_of(host)
    return address is not None and (address.is_link_local or address in _METADATA_ADDRESSES)


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address, which other machines cannot reach."""
    address = address_of(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def split_listen(listen: str) -> tuple[str, int]:
    """Return (host, port) of `127.0.0.1:8080` or `[::1]:8080`; ValueError says how to write it."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be HOST:PORT; write it like 127.0.0.1:8080 or [::1]:8080")
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        raise ValueError("an IPv6 address needs brackets; write it like [::1]:8080")
    return host.strip("[]"), int(port)


def check_listen(listen: str) -> None:
    """Raise ValueError, with the correct form, unless a server can listen on the address."""
    if not listen.startswith("unix:"):
        split_listen(listen)
    elif not listen.startswith("unix:/"):
        raise ValueError("a socket's path must be absolute; write it like unix:/run/tollway.sock")


def is_local(listen: str) -> bool:
    """Return whether only this machine can reach a listener."""
    return listen.startswith("unix:") or is_loopback(split_listen(listen)[0])


def check_backend_url(url: str) -> None:
    """Raise ValueError, with the correct form, unless `url` is a valid base URL of a backend."""
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http:// or https:// address; write http://127.0.0.1:9001")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user or password; remove the part before the @")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or fragment; write http://HOST:PORT/base/path")
    if not url.isascii() or any(c <= " " or c in '"<>\\^`{|}' or c == "\x7f" for c in url):
        raise ValueError("contains invalid characters; percent-encode them")
    _check_labels(parts.hostname)


def check_web_url(url: str) -> None:
    """Raise ValueError, with the correct form, unless requests can be sent to `url`."""
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http:// or https:// address; write https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user or password; remove the part before the @")
    if not parts.netloc.isascii():
        raise ValueError("has a host that is not ASCII; write it like xn--h-zfa.example")
    # Of what is sent: spaces around a URL, and the fragment, are not. Other characters in a path
    # are sent as UTF-8, which many servers accept.
    sent = f"{parts.netloc}{parts.path}{parts.query}"
    if any(char <= " " or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in sent):
        raise ValueError("contains spaces or control characters; percent-encode them")
    _check_labels(parts.hostname)
    if is_link_local(parts.hostname):
        raise ValueError("is a link-local or metadata address; write the address of the receiver")


def _check_labels(host: str) -> None:
    """Raise ValueError for a name that cannot be looked up, which then raises at every request."""
    if not all(0 < len(label) < 64 for label in host.removesuffix(".").split(".")):
        raise ValueError("has a host with an empty part, or one of over 63 characters")


def host_of(url: str) -> str:
    """Return the host of a validated address."""
    return urlsplit(url).hostname or ""


def server_of(url: str) -> tuple[str, int]:
    """Return the host and port of a validated address."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for a port above 65535
    except ValueError as exc:
        raise ValueError(f"cannot be read ({exc}); write it like http://127.0.0.1:9001") from None
    return parts
