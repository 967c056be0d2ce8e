"""Opens the transport for a backend's URL: the registry of transports."""

import asyncio
import ssl
from collections.abc import Callable
from urllib.parse import SplitResult, unquote, urlsplit

from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.http.connection import Connection
from tollway.backends.http.pool import Connect, Http1Transport, Rewrite
from tollway.backends.http.proxies import Proxy, parse_proxy
from tollway.backends.http.tunnel import connect_through
from tollway.backends.ports import Transport
from tollway.backends.types import Call

Barred = Callable[[str], bool]
"""Returns whether nothing may be sent to an address."""


def open_transport(
    url: str,
    *,
    connections: int = 100,
    slots: ConcurrencyQueue | None = None,
    connect_timeout_s: float = 2.0,
    idle_expiry_s: float = 4.0,
    stream_idle_s: float = 60.0,
    keep_alive: bool | None = None,
    http2: bool = False,
    proxy: str | None = None,
    tls: ssl.SSLContext | None = None,
    barred: Barred | None = None,
) -> Transport:
    """Return a transport to the origin of `url`; nothing is connected until the first call.

    `http://host:port`, `https://host:port` and `unix:/path/to/socket` use HTTP/1.1; `http2` uses
    the slower httpx. `proxy` is the URL of a proxy: https goes through a tunnel, http is requested
    from it in the absolute form. The URL's path is not used by the transport. At most `connections`
    are open at once, or as `slots` allow; times are in seconds; `tls` is the context for https, by
    default the system's trust store.

    `barred` decides from the address a connection has reached, whatever name led there, whether
    nothing may be sent. It is not called for connections through a proxy, which looks names up
    itself. `keep_alive` sets whether connections are reused; None: learned (over httpx: yes).
    Raises ValueError for a URL that no transport serves.
    """
    parts = urlsplit(url)
    if parts.scheme not in _CONNECT:
        raise ValueError(f"{url!r}: the scheme must be one of {', '.join(_CONNECT)}")
    owns_slots = slots is None
    slots = slots or ConcurrencyQueue(connections)
    led = parse_proxy(proxy) if proxy else None
    connect, host = _CONNECT[parts.scheme](parts, tls, barred)
    rewrite: Rewrite | None = None
    if led is not None and not http2:
        connect, rewrite = _through(parts, led, tls)
    if http2:
        # Imported where it is used: it takes a quarter of a second, and few need it.
        from tollway.backends.http.httpcore2_pool import Httpcore2Pool  # noqa: PLC0415
        from tollway.backends.http.httpx_transport import HttpxTransport  # noqa: PLC0415

        pool = Httpcore2Pool(
            connections=connections,
            idle_expiry_s=0.0 if keep_alive is False else idle_expiry_s,
            http2=http2,
            proxy=led,
            tls=tls,
            barred=barred,
        )
        return HttpxTransport(
            pool,
            url,
            slots=slots,
            owns_slots=owns_slots,
            connect_timeout_s=connect_timeout_s,
            stream_idle_s=stream_idle_s,
        )
    return Http1Transport(
        connect,
        host,
        slots=slots,
        owns_slots=owns_slots,
        connect_timeout_s=connect_timeout_s,
        idle_expiry_s=idle_expiry_s,
        stream_idle_s=stream_idle_s,
        rewrite=rewrite,
        keep_alive=keep_alive,
        url=url,
    )


def _through(
    parts: SplitResult, proxy: Proxy, tls: ssl.SSLContext | None
) -> tuple[Connect, Rewrite | None]:
    """Return the way through a proxy; the proxy looks up the host's name."""
    host = parts.hostname or ""
    if parts.scheme == "https":
        context, port = _context(tls), parts.port or 443

        async def tunnel(
            loop: asyncio.AbstractEventLoop, factory: Callable[[], Connection]
        ) -> None:
            await connect_through(loop, proxy, (host, port), context, factory)

        return tunnel, None

    async def connect(loop: asyncio.AbstractEventLoop, factory: Callable[[], Connection]) -> None:
        await loop.create_connection(factory, proxy.host, proxy.port)

    origin = b"http://" + parts.netloc.encode("ascii")
    authorization = proxy.authorization

    def absolute(call: Call) -> Call:
        headers = list(call.headers)
        if authorization is not None:
            headers.append((b"proxy-authorization", authorization))
        return Call(call.method, origin + call.target, headers, call.body, call.payload)

    return connect, absolute


def _tcp(
    parts: SplitResult, tls: ssl.SSLContext | None, barred: Barred | None
) -> tuple[Connect, bytes]:
    host, secure = parts.hostname, parts.scheme == "https"
    if not host or not parts.netloc.isascii() or parts.username is not None:
        raise ValueError("a backend's URL names a host, in its ASCII form, and no user")
    port = parts.port or (443 if secure else 80)
    context = _context(tls) if secure else None

    async def connect(loop: asyncio.AbstractEventLoop, factory: Callable[[], Connection]) -> None:
        transport, _ = await loop.create_connection(factory, host, port, ssl=context)
        peer = transport.get_extra_info("peername")  # once a connection: 1 us of some hundred
        if barred is not None and peer and barred(peer[0]):
            transport.abort()
            raise OSError(f"{host} leads to {peer[0]}, which is not an allowed address")

    return connect, parts.netloc.encode("ascii")


def _context(tls: ssl.SSLContext | None) -> ssl.SSLContext:
    context = tls or ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _unix(
    parts: SplitResult, tls: ssl.SSLContext | None, barred: Barred | None
) -> tuple[Connect, bytes]:
    if not parts.path or parts.netloc:
        raise ValueError("a socket's URL is unix:/path/to/socket")
    path = unquote(parts.path)

    async def connect(loop: asyncio.AbstractEventLoop, factory: Callable[[], Connection]) -> None:
        await loop.create_unix_connection(factory, path)

    return connect, b"localhost"


_CONNECT = {"http": _tcp, "https": _tcp, "unix": _unix}
