"""httpx's transport over the connection pool of httpcore2.

httpx 0.28 is the last of its line, and its own pool (httpcore 1.0) loses a slot permanently when a
call is cancelled at the wrong moment. httpcore2 is the same pool with this fixed.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpcore2
import httpx

from tollway.backends.http.proxies import Proxy
from tollway.backends.http.tls_alerts import refuses_us


class Httpcore2Pool(httpx.AsyncBaseTransport):
    """A pool of at most `connections`, through a `proxy` if one is given."""

    def __init__(
        self,
        *,
        connections: int = 100,
        idle_expiry_s: float = 4.0,
        http2: bool = False,
        proxy: Proxy | None = None,
        tls: ssl.SSLContext | None = None,
        barred: Callable[[str], bool] | None = None,
    ) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            proxy=None if proxy is None else _proxy(proxy),
            max_connections=connections,
            keepalive_expiry=idle_expiry_s,
            http2=http2,
            network_backend=_Looking(barred),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; raises httpx's errors."""
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        asked = httpcore2.Request(
            method=request.method,
            url=url,
            headers=request.headers.raw,
            content=cast(httpx.AsyncByteStream, request.stream),
            extensions=request.extensions,
        )
        with _errors_of_httpx():
            reply = await self._pool.handle_async_request(asked)
        return httpx.Response(
            reply.status, headers=reply.headers, stream=_Stream(reply), extensions=reply.extensions
        )

    def leave_silent(self, since_s: float) -> None:
        """Stop new requests on HTTP/2 connections that have received nothing since `since_s`.

        A dead connection would otherwise not be detected: each new call keeps it from being idle.
        Calls that it carries may continue, as after a GOAWAY, for which this flag is meant.
        """
        for connection in self._pool.connections:
            carried = getattr(connection, "_connection", None)
            stream = getattr(carried, "_network_stream", None)
            if isinstance(stream, _Heard) and stream.heard_s < since_s:
                vars(carried)["_used_all_stream_ids"] = True

    async def aclose(self) -> None:
        """Close every connection."""
        with _errors_of_httpx():
            await self._pool.aclose()


def _proxy(proxy: Proxy) -> httpcore2.Proxy:
    shown = (proxy.user, proxy.password) if proxy.authorization is not None else None
    return httpcore2.Proxy(f"http://{proxy.authority}", auth=shown)


class _Looking(httpcore2.AnyIOBackend):
    """Checks a connection's peer address before anything is sent (see `open_transport`)."""

    def __init__(self, barred: Callable[[str], bool] | None) -> None:
        self._barred = barred

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        stream = await super().connect_tcp(host, port, timeout, local_address, socket_options)
        peer = stream.get_extra_info("server_addr")
        if self._barred is not None and peer and self._barred(peer[0]):
            await stream.aclose()
            raise httpcore2.ConnectError(
                f"{host} leads to {peer[0]}, which is not an allowed address"
            )
        return _Heard(stream)


class _Heard(httpcore2.AsyncNetworkStream):
    """A socket that records when it last received data."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self.heard_s = asyncio.get_running_loop().time()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        data = await self._stream.read(max_bytes, timeout)
        self.heard_s = asyncio.get_running_loop().time()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore2.AsyncNetworkStream:
        return _Heard(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Stream(httpx.AsyncByteStream):
    def __init__(self, reply: httpcore2.Response) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors_of_httpx():
            async for part in cast(AsyncIterator[bytes], self._reply.stream):
                yield part

    async def aclose(self) -> None:
        with _errors_of_httpx():
            if _trailing(self._reply):
                # httpcore2 would read these bytes as the reply to the connection's next request: a
                # backend could answer one client with the reply to another. A closed socket is not
                # reused.
                await self._reply.extensions["network_stream"].aclose()
            await self._reply.aclose()


def _trailing(reply: httpcore2.Response) -> bytes:
    """Return the bytes after the reply (HTTP/1.1), which httpcore2 does not expose publicly."""
    connection = getattr(getattr(reply.stream, "_stream", None), "_connection", None)
    state = getattr(connection, "_h11_state", None)
    return cast(bytes, state.trailing_data[0]) if state is not None else b""


_ERRORS = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
)


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """Raise an error of httpcore2 as httpx's error of the same name."""
    try:
        yield
    except _ERRORS as exc:
        raise cast(type[httpx.TransportError], getattr(httpx, type(exc).__name__))(
            str(exc)
        ) from exc
    except ssl.SSLError as exc:  # of reading and writing, which httpcore2 does not translate
        error = httpx.ConnectError if refuses_us(exc) else httpx.ReadError
        raise error(str(exc)) from exc
