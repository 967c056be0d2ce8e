"""HTTP/2 with `HttpxTransport` against a real server; a scripted one cannot speak it."""

import asyncio
import ssl
import subprocess
from collections.abc import Iterator

import pytest
import uvloop

from tests.contracts import wire_server as wire
from tests.support.nginx import nginx as run_nginx
from tests.support.process import free_port
from tollway.backends.errors import BackendError, DeadlineExceeded
from tollway.backends.http.factory import open_transport
from tollway.backends.http.httpx_transport import HttpxTransport
from tollway.backends.types import Call

pytestmark = pytest.mark.integration

NGINX = """
daemon off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {folder}/cert; ssl_certificate_key {folder}/key;
    location /said {{ return 200 "$server_protocol $request_method $http_x_a"; }}
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_buffering off; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, ssl.SSLContext]]:
    """An nginx that speaks HTTP/2: (its URL, the port of the upstream it expects, its trust)."""
    folder = tmp_path_factory.mktemp("nginx")
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x -days 2"
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", folder / "key", "-out", folder / "cert"]
    subprocess.run(["openssl", *make.split(), *name, *files], check=True, capture_output=True)
    port, upstream = free_port(), free_port()
    with run_nginx(NGINX.format(folder=folder, port=port, upstream=upstream), folder, port):
        trust = ssl.create_default_context(cafile=folder / "cert")
        yield f"https://127.0.0.1:{port}", upstream, trust


async def ask(transport: HttpxTransport, target: bytes, seconds: float = 20) -> bytes:
    deadline_s = asyncio.get_running_loop().time() + seconds
    reply = await transport.send(Call(b"POST", target, [(b"x-a", b"1")], b"{}"), deadline_s)
    return await reply.read(1000)


def test_many_calls_share_a_connection(nginx: tuple[str, int, ssl.SSLContext]) -> None:
    url, _, trust = nginx

    async def main() -> None:
        transport = open_transport(url, http2=True, tls=trust)
        assert isinstance(transport, HttpxTransport)
        said = await asyncio.gather(*(ask(transport, b"/said") for _ in range(50)))
        assert set(said) == {b"HTTP/2.0 POST 1"}
        await transport.aclose()

    uvloop.run(main())


def test_cancelled_and_late_calls_lose_no_slot(nginx: tuple[str, int, ssl.SSLContext]) -> None:
    url, upstream, trust = nginx

    async def main() -> None:
        listener = await asyncio.start_server(
            wire.WireServer(wire.silent).serve_connection, "127.0.0.1", upstream
        )
        transport = open_transport(url, http2=True, tls=trust, connections=3)
        assert isinstance(transport, HttpxTransport)
        # uvloop cannot close its loop, for ever, after a TLS handshake that was cancelled.
        assert await ask(transport, b"/said") == b"HTTP/2.0 POST 1"
        calls = [asyncio.create_task(ask(transport, b"/hang")) for _ in range(9)]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        for _ in range(4):
            with pytest.raises(DeadlineExceeded):
                await ask(transport, b"/hang", seconds=0.1)
        done = await asyncio.gather(*(ask(transport, b"/said") for _ in range(9)))
        assert len(done) == 9
        await transport.aclose()
        listener.close()

    uvloop.run(main())


def test_an_unreachable_backend_is_reported_by_the_proxy(
    nginx: tuple[str, int, ssl.SSLContext],
) -> None:
    url, _, trust = nginx

    async def main() -> None:
        transport = open_transport(url, http2=True, tls=trust)
        deadline_s = asyncio.get_running_loop().time() + 20
        reply = await transport.send(Call(b"GET", b"/away", []), deadline_s)
        await reply.read(10_000)
        assert reply.status == 502
        await transport.aclose()
        with pytest.raises(BackendError):
            await transport.send(Call(b"GET", b"/away", []), deadline_s)

    uvloop.run(main())
