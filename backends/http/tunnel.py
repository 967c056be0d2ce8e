"""A connection through a proxy: CONNECT (RFC 9110 9.3.6), then TLS to the backend inside it.

The proxy sees the backend's host and port, and its own credentials; all else is encrypted to the
backend. Any error before the tunnel is established is a failed connection: nothing was sent.
"""

import asyncio
import ssl
from collections.abc import Callable

from tollway.backends.http.proxies import Proxy

_HEAD_BYTES_MAX = 16 << 10  # a proxy's reply has a few hundred


class _Answer(asyncio.Protocol):
    """Waits for the proxy's answer to CONNECT."""

    # The mutable state is the part of the head received, and whether the answer is complete.

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: str) -> None:
        self.is_open: asyncio.Future[None] = loop.create_future()
        self._proxy = proxy
        self._head = b""

    def data_received(self, data: bytes) -> None:
        """Read the head."""
        if self.is_open.done():
            return  # in TLS the client sends first; the connection will fail by itself
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > _HEAD_BYTES_MAX:
                self._fail("answered with a head that does not end")
            return
        version, _, status = head.partition(b"\r\n")[0].partition(b" ")
        code = status[:3]
        if not version.startswith(b"HTTP/1.") or not code.isdigit():
            self._fail("answered in no HTTP")
        elif code == b"407":
            self._fail("answered 407: it wants a user and password, or others than it got")
        elif not code.startswith(b"2"):
            self._fail(f"answered {code.decode()} to CONNECT")
        elif rest:
            self._fail("sent more than its answer")
        else:
            self.is_open.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail, if there is no answer yet."""
        if not self.is_open.done():
            self._fail("closed the connection before it answered")

    def _fail(self, why: str) -> None:
        self.is_open.set_exception(ConnectionError(f"the proxy {self._proxy} {why}"))


async def connect_through(
    loop: asyncio.AbstractEventLoop,
    proxy: Proxy,
    target: tuple[str, int],
    context: ssl.SSLContext,
    factory: Callable[[], asyncio.Protocol],
) -> None:
    """Open a tunnel to a host and port with TLS inside it, and connect the factory's protocol to
    it.

    Raises OSError if that fails.
    """
    host, port = target
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {where} HTTP/1.1\r\nhost: {where}\r\n".encode("ascii")
    if proxy.authorization is not None:
        head += b"proxy-authorization: " + proxy.authorization + b"\r\n"
    transport, answer = await loop.create_connection(
        lambda: _Answer(loop, proxy.authority), proxy.host, proxy.port
    )
    try:
        transport.write(head + b"\r\n")
        await answer.is_open
        protocol = factory()
        secured = await loop.start_tls(transport, protocol, context, server_hostname=host)
        if secured is None:
            raise ConnectionError(f"the proxy {proxy.authority} closed the tunnel")
        protocol.connection_made(secured)
    except BaseException:
        transport.abort()
        raise
