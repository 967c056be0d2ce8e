"""Opens the transport that a backend's URL asks for: the registry of transports."""

import asyncio
from collections.abc import Callable
from urllib.parse import SplitResult, unquote, urlsplit

from backends.http1 import Connect, Http1Transport
from backends.http1_connection import Connection
from backends.types import Transport


def open_transport(
    url: str,
    *,
    connections: int = 100,
    connect_timeout_s: float = 2.0,
    idle_expiry_s: float = 4.0,
    stream_idle_s: float = 60.0,
) -> Transport:
    """Return a transport to the origin of `url`; nothing is connected until the first call.

    `http://host:port` and `unix:/path/to/socket` speak HTTP/1.1. The URL's path is not the
    transport's concern. At most `connections` are open at once; times are in seconds. Raises
    ValueError for a URL that no transport serves.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"{url!r}: the scheme must be one of {', '.join(_SCHEMES)}")
    connect, host = _SCHEMES[parts.scheme](parts)
    return Http1Transport(
        connect,
        host,
        connections=connections,
        connect_timeout_s=connect_timeout_s,
        idle_expiry_s=idle_expiry_s,
        stream_idle_s=stream_idle_s,
    )


def _tcp(parts: SplitResult) -> tuple[Connect, bytes]:
    host, port = parts.hostname, parts.port or 80
    if not host or not parts.netloc.isascii() or parts.username is not None:
        raise ValueError("a backend's URL names a host, in its ASCII form, and no user")

    async def connect(loop: asyncio.AbstractEventLoop, factory: Callable[[], Connection]) -> None:
        await loop.create_connection(factory, host, port)

    return connect, parts.netloc.encode("ascii")


def _unix(parts: SplitResult) -> tuple[Connect, bytes]:
    if not parts.path or parts.netloc:
        raise ValueError("a socket's URL is unix:/path/to/socket")
    path = unquote(parts.path)

    async def connect(loop: asyncio.AbstractEventLoop, factory: Callable[[], Connection]) -> None:
        await loop.create_unix_connection(factory, path)

    return connect, b"localhost"


_SCHEMES = {"http": _tcp, "unix": _unix}
