"""Which transport is opened for a URL, with TLS, Unix sockets and proxies."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from tests.contracts import wire_server as wire
from tests.contracts.wire_server import OK, Script, Wire, WireServer
from tests.support.transports import ask, post
from tollway.backends.errors import BadReply, ConnectFailed
from tollway.backends.http.factory import open_transport
from tollway.backends.http.httpx_transport import HttpxTransport
from tollway.backends.http.pool import Http1Transport


@pytest.mark.parametrize(
    "url",
    ["ftp://h/", "h:80", "http://", "http:///p", "http://u:p@h/", "http://h\u00f6st/", "unix://h/s",
     "unix:", "http://h:99999/"],
)  # fmt: skip
def test_a_url_that_no_transport_serves_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        open_transport(url)


def test_httpx_carries_only_what_http1_cannot() -> None:
    assert isinstance(open_transport("http://h"), Http1Transport)
    assert isinstance(open_transport("https://h"), Http1Transport)
    assert isinstance(open_transport("https://h", http2=True), HttpxTransport)
    assert isinstance(open_transport("http://h", proxy="http://p:1"), Http1Transport)
    assert isinstance(open_transport("https://h", proxy="http://p:1"), Http1Transport)
    assert isinstance(open_transport("https://h", proxy="p:1", http2=True), HttpxTransport)


def test_a_unix_socket_is_reached(tmp_path: Path) -> None:
    async def main() -> None:
        server = wire.WireServer(wire.replies(OK))
        path = tmp_path / "s"
        listener = await asyncio.start_unix_server(server.serve_connection, path)
        transport = open_transport(f"unix:{path}")
        assert await ask(transport) == b"ok"
        assert await ask(transport) == b"ok"
        assert server.accepted == 1
        await transport.aclose()
        await server.all_closed()
        listener.close()

    uvloop.run(main())


def over_tls(
    certificate: tuple[Path, Path],
    script: Script,
    test: Callable[[str, WireServer], Awaitable[None]],
) -> None:
    async def main() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        async with asyncio.timeout(20), wire.wire_server(script, context) as server:
            await test(server.url.replace("http:", "https:"), server)

    uvloop.run(main())


def test_https_is_http1_over_tls(certificate: tuple[Path, Path]) -> None:
    async def test(url: str, server: WireServer) -> None:
        transport = open_transport(url, tls=ssl.create_default_context(cafile=certificate[0]))
        body = bytes(1 << 20)
        for _ in range(3):
            assert await ask(transport, post(body)) == b"ok"
        assert server.accepted == 1
        assert server.requests[0][1] == body
        await transport.aclose()
        await server.all_closed()

    over_tls(certificate, wire.replies(OK), test)


def test_a_body_cut_under_tls_is_a_bad_reply(certificate: tuple[Path, Path]) -> None:
    async def test(url: str, server: WireServer) -> None:
        transport = open_transport(url, tls=ssl.create_default_context(cafile=certificate[0]))
        with pytest.raises(BadReply):
            await ask(transport)
        await transport.aclose()

    cut = wire.replies(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", then_close=True)
    over_tls(certificate, cut, test)


def test_an_untrusted_certificate_is_refused(certificate: tuple[Path, Path]) -> None:
    async def test(url: str, server: WireServer) -> None:
        transport = open_transport(url, connections=1)
        for _ in range(2):
            with pytest.raises(ConnectFailed):
                await ask(transport)
        assert server.requests == []
        await transport.aclose()

    over_tls(certificate, wire.replies(OK), test)


def test_a_server_without_tls_is_a_failed_connection_to_https() -> None:
    async def script(one: Wire) -> None:
        await one.say(b"no tls here\r\n")

    async def main() -> None:
        async with wire.wire_server(script) as server:
            transport = open_transport(server.url.replace("http:", "https:"), connections=1)
            for _ in range(2):
                with pytest.raises(ConnectFailed):
                    await ask(transport)
            await transport.aclose()

    uvloop.run(main())


def test_a_proxy_is_asked_for_the_absolute_form() -> None:
    async def main() -> None:
        async with wire.wire_server(wire.replies(OK)) as proxy:
            transport = open_transport("http://backend.invalid:8000", proxy=proxy.url)
            assert await ask(transport) == b"ok"
            assert proxy.requests[0][0].startswith(
                b"POST http://backend.invalid:8000/v2?q=1 HTTP/1.1"
            )
            await transport.aclose()

    uvloop.run(main())


def test_a_context_for_tls_is_taken() -> None:
    context = ssl.create_default_context()
    transport = open_transport("https://h", tls=context)
    assert isinstance(transport, Http1Transport)
