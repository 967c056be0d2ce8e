"""Outgoing proxies: which is used for which URL, and calls through a real one."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from tests.contracts import wire_server as wire
from tests.contracts.wire_server import OK
from tests.support.transports import ask, post
from tollway.backends.errors import ConnectFailed
from tollway.backends.http.factory import open_transport
from tollway.backends.http.proxies import Proxy, parse_proxy, proxy_url

PASSWORD = "canary-9b2"


@pytest.mark.parametrize(
    ("url", "proxy", "authorization"),
    [
        ("http://p:3128", Proxy("p", 3128), None),
        ("p:3128", Proxy("p", 3128), None),
        ("http://p/", Proxy("p", 80), None),
        ("http://[::1]:3128", Proxy("::1", 3128), None),
        ("http://u:p%40ss@p:1", Proxy("p", 1, "u", "p@ss"), b"Basic dTpwQHNz"),
        ("http://u@p:1", Proxy("p", 1, "u"), b"Basic dTo="),
    ],
)
def test_a_proxy_is_read(url: str, proxy: Proxy, authorization: bytes | None) -> None:
    assert parse_proxy(url) == proxy
    assert parse_proxy(url).authorization == authorization


@pytest.mark.parametrize(
    "url",
    ["", "http://", "socks5://{}@p:1", "https://u:{}@p:1", "http://u:{}@p:99999",
     "http://u:{}@p:1/path", "http://u:{}@p p:1", "http://u%3a:{}@p", "http://[::1:{}"],
)  # fmt: skip
def test_what_is_no_proxy_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_proxy(url.format(PASSWORD))
    assert PASSWORD not in str(refused.value)
    assert PASSWORD not in repr(Proxy("p", 1, "u", PASSWORD))


ENVIRON = {"HTTPS_PROXY": "http://secure:1", "http_proxy": "http://plain:1"}


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://api.openai.com/v1", ENVIRON, "http://secure:1"),
        ("http://gpu:8000", ENVIRON, "http://plain:1"),
        ("https://h", {"https_proxy": "http://lower:1", **ENVIRON}, "http://lower:1"),
        ("https://h", {"ALL_PROXY": "http://all:1"}, "http://all:1"),
        ("https://h", {"HTTP_PROXY": "http://plain:1"}, ""),
        ("https://h", {"HTTPS_PROXY": ""}, ""),
        ("https://h", {}, ""),
        ("https://localhost", ENVIRON, ""),
        ("https://LOCALHOST.:1", ENVIRON, ""),
        ("https://a.localhost", ENVIRON, ""),
        ("https://127.8.0.1", ENVIRON, ""),
        ("http://[::1]:1", ENVIRON, ""),
        ("unix:/s", ENVIRON, ""),
        ("https://h", {**ENVIRON, "NO_PROXY": "*"}, ""),
        ("https://a.example.com", {**ENVIRON, "NO_PROXY": "x, example.com"}, ""),
        ("https://example.com", {**ENVIRON, "no_proxy": ".Example.com"}, ""),
        ("https://a.example.com", {**ENVIRON, "no_proxy": "*.example.com"}, ""),
        ("https://badexample.com", {**ENVIRON, "NO_PROXY": "example.com"}, "http://secure:1"),
        ("https://example.com.evil", {**ENVIRON, "NO_PROXY": "example.com"}, "http://secure:1"),
        ("https://h:8443", {**ENVIRON, "NO_PROXY": "h:443"}, "http://secure:1"),
        ("https://h", {**ENVIRON, "NO_PROXY": "h:443"}, ""),
        ("http://10.1.2.3:8000", {**ENVIRON, "NO_PROXY": "10.0.0.0/8"}, ""),
        ("http://11.1.2.3:8000", {**ENVIRON, "NO_PROXY": "10.0.0.0/8"}, "http://plain:1"),
        ("http://[fd00::7]:1", {**ENVIRON, "NO_PROXY": "fd00::/8"}, ""),
        ("http://[fd00::7]:1", {**ENVIRON, "NO_PROXY": "[fd00::7]:1"}, ""),
        ("http://10.1.2.3", {**ENVIRON, "NO_PROXY": "2.3,10.1.2.0/x,,."}, "http://plain:1"),
    ],
)
def test_the_environment_says_which_proxy_leads_where(
    url: str, environ: dict[str, str], proxy: str
) -> None:
    assert proxy_url(url, None, environ)[0] == proxy
    assert proxy_url(url, "none", environ)[0] == ""
    assert proxy_url(url, "http://own:1", environ)[0] == "http://own:1"


class ConnectProxy:
    """A proxy that tunnels every name to one server."""

    def __init__(self, port: int, answer: bytes = b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n") -> None:
        self.port = port
        self.answer = answer
        self.heads: list[bytes] = []
        self.passed = b""
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer[:5])
        await asyncio.sleep(0.01)
        writer.write(self.answer[5:])
        if not self.answer.startswith(b"HTTP/1.1 200"):
            writer.close()
            await writer.wait_closed()
            return
        onward, back = await asyncio.open_connection("127.0.0.1", self.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                self.passed += data
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, back), pump(onward, writer), return_exceptions=True)


def through(
    files: tuple[Path, Path],
    test: Callable[[str, ConnectProxy, wire.WireServer], Awaitable[None]],
    answer: bytes = b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n",
) -> None:
    async def main() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*files)
        async with asyncio.timeout(20), wire.wire_server(wire.replies(OK), context) as server:
            proxy = ConnectProxy(int(server.url.rpartition(":")[2]), answer)
            listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
            port = listener.sockets[0].getsockname()[1]
            try:
                await test(f"http://user:{PASSWORD}@127.0.0.1:{port}", proxy, server)
                await asyncio.gather(*proxy.tasks)  # each connection was closed by our side
            finally:
                listener.close()

    uvloop.run(main())


def test_https_goes_through_a_tunnel_that_the_proxy_cannot_read(
    certificate: tuple[Path, Path],
) -> None:
    async def test(url: str, proxy: ConnectProxy, server: wire.WireServer) -> None:
        trust = ssl.create_default_context(cafile=certificate[0])
        target = f"https://127.0.0.1:{proxy.port}"
        transport = open_transport(target, proxy=url, tls=trust)
        body = b"secret" * 100_000
        for _ in range(3):
            assert await ask(transport, post(body)) == b"ok"
        assert server.requests[0][1] == body
        assert b"proxy-authorization" not in server.requests[0][0].lower()
        (head,) = proxy.heads  # one tunnel, kept alive
        lines = head.split(b"\r\n")
        assert lines[0] == b"CONNECT 127.0.0.1:%d HTTP/1.1" % proxy.port
        assert b"proxy-authorization: Basic dXNlcjpjYW5hcnktOWIy" in lines
        assert b"secret" not in proxy.passed
        await transport.aclose()
        await server.all_closed()

    through(certificate, test)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 No\r\n\r\n", "answered 407: it wants a user and password"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", "answered 502 to CONNECT"),
        (b"HTTP/1.1 301 Moved\r\n\r\n", "answered 301 to CONNECT"),
        (b"SSH-2.0-x\r\n\r\n", "answered in no HTTP"),
        (b"HTTP/1.1 ", "closed the connection before it answered"),
        (b"x" * 40_000, "answered with a head that does not end"),
    ],
)
def test_a_proxy_that_does_not_tunnel_is_a_failed_connection_and_tells_no_password(
    certificate: tuple[Path, Path],
    answer: bytes,
    why: str,
) -> None:
    async def test(url: str, proxy: ConnectProxy, server: wire.WireServer) -> None:
        transport = open_transport("https://api.invalid", proxy=url, connections=1)
        for _ in range(2):
            with pytest.raises(ConnectFailed) as failed:
                await ask(transport)
            assert why in str(failed.value)
            assert PASSWORD not in str(failed.value)
        assert server.requests == []
        await transport.aclose()

    through(certificate, test, answer)


def test_the_backend_s_certificate_counts_not_the_proxy_s_word(
    certificate: tuple[Path, Path],
) -> None:
    async def test(url: str, proxy: ConnectProxy, server: wire.WireServer) -> None:
        trust = ssl.create_default_context(cafile=certificate[0])
        transport = open_transport("https://api.invalid", proxy=url, tls=trust, connections=1)
        for _ in range(2):  # the certificate is of 127.0.0.1
            with pytest.raises(ConnectFailed):
                await ask(transport)
        assert server.requests == []
        await transport.aclose()

    through(certificate, test)


def test_a_silent_proxy_is_a_failed_connection_in_time(
    certificate: tuple[Path, Path],
) -> None:
    async def main() -> None:
        left = asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()  # CONNECT, and then until the client leaves
            writer.close()
            left.set()

        silent = await asyncio.start_server(listen, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        transport = open_transport(
            "https://api.invalid", proxy=f"http://127.0.0.1:{port}", connect_timeout_s=0.1
        )
        with pytest.raises(ConnectFailed, match=r"no connection within 0.1 s"):
            await ask(transport)
        assert transport.busy == 0  # type: ignore[attr-defined]
        await transport.aclose()
        async with asyncio.timeout(20):
            await left.wait()
        silent.close()
        await asyncio.sleep(0.01)

    uvloop.run(main())


def test_plain_http_is_asked_of_the_proxy_in_the_absolute_form_with_its_credentials() -> None:
    async def main() -> None:
        async with wire.wire_server(wire.replies(OK)) as proxy:
            url = proxy.url.replace("http://", f"http://user:{PASSWORD}@")
            transport = open_transport("http://backend.invalid:8000", proxy=url)
            for _ in range(2):
                assert await ask(transport) == b"ok"
            head = proxy.requests[0][0]
            assert head.startswith(b"POST http://backend.invalid:8000/v2?q=1 HTTP/1.1\r\n")
            assert b"\r\nproxy-authorization: Basic dXNlcjpjYW5hcnktOWIy\r\n" in head
            assert proxy.accepted == 1
            await transport.aclose()

    uvloop.run(main())
