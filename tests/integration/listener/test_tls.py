"""TLS of the listener and to backends, with client certificates, through whole processes."""

import asyncio
import contextlib
import shutil
import signal
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from tests.support.configs import two_backends
from tests.support.harness import Upstream, inference, run, serving
from tests.support.process import Process, free_port
from tollway.gateway import settings
from tollway.gateway.listener import server as front
from tollway.gateway.settings.errors import ConfigError

pytestmark = pytest.mark.integration


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a self-signed certificate of 127.0.0.1, and its key."""
    openssl = shutil.which("openssl")
    assert openssl, "this test needs the program openssl: apt-get install openssl"
    made = folder / f"{name}.pem", folder / f"{name}.key"
    files = ["-out", made[0], "-keyout", made[1], "-subj", f"/CN={name}", "-days", "2"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    alt = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([openssl, "req", "-x509", *kind, *alt, *files], check=True, capture_output=True)
    return made


def client(ca: Path, *shown: Path) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=ca)
    if shown:
        context.load_cert_chain(*shown)
    return httpx.AsyncClient(verify=context, trust_env=False)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_mutual_tls_works_and_a_renewed_certificate_is_loaded(tmp_path: Path, workers: str) -> None:
    async def main() -> None:
        own, friend, model, ours = (
            certificate(tmp_path, name) for name in ("own", "friend", "model", "ours")
        )
        secured = {
            "ssl_certfile": model[0],
            "ssl_keyfile": model[1],
            "ssl_ca_certs": str(ours[0]),
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
        port = free_port()
        server = f"""allow_anonymous = true
listen = "127.0.0.1:{port}"
tls = {{ cert = "own.pem", key = "own.key", client_ca = "friend.pem" }}"""
        shown = 'tls = { ca = "model.pem", cert = "ours.pem", key = "ours.key" }'
        async with serving(Upstream(), **secured) as plain:
            backend = plain.replace("http:", "https:")
            file = tmp_path / "tollway.toml"
            text = two_backends(backend, backend, server=server, backend=shown)
            file.write_text(text.replace("memory://", "sqlite:///tollway.db"))
            gateway = Process(file, "--workers", workers)
            url = f"https://127.0.0.1:{port}"
            try:
                async with client(own[0], *friend) as http:
                    await gateway.ready(url, http)
                    reply = await http.post(url + "/v2/models/m/infer", json=inference())
                    assert reply.status_code == 200
                async with client(own[0]) as stranger:
                    with pytest.raises(httpx.TransportError):
                        await stranger.get(url + "/readyz")
                renewed = certificate(tmp_path, "renewed")
                for kind, path in zip(("pem", "key"), renewed, strict=True):
                    path.replace(tmp_path / f"own.{kind}")
                gateway.tell(signal.SIGHUP)
                async with client(tmp_path / "own.pem", *friend) as http:
                    await gateway.ready(url, http)
                assert gateway.end(signal.SIGTERM) == 0
            finally:
                gateway.stop()

    run(main)


def test_unusable_tls_files_are_reported(tmp_path: Path) -> None:
    certificate(tmp_path, "own")
    certificate(tmp_path, "other")
    file = tmp_path / "tollway.toml"
    for tls, why in (
        ('{ cert = "none.pem", key = "own.key" }', "none.pem cannot be read"),
        ('{ cert = "own.pem", key = "other.key" }', "write PEM files that match each other"),
        ('{ cert = "own.pem" }', "key"),
    ):
        server = f"allow_anonymous = true\ntls = {tls}"
        file.write_text(two_backends("http://127.0.0.1:1", "http://127.0.0.1:1", server=server))
        with pytest.raises(ConfigError, match=why):
            settings.load(file, {})


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_handshake_that_is_never_finished_is_cut(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    own = certificate(tmp_path, "own")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*own)

    async def hello(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        assert scope["scheme"] == "https"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    async def main() -> None:
        limits = front.HeadLimits(head_s=0.3)
        async with front.serving(hello, tls=context, limits=limits) as (host, port):
            silent, writer = await asyncio.open_connection(host, port)
            garbage, other = await asyncio.open_connection(host, port)
            assert await silent.read() == b""  # cut at its deadline
            other.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")  # no handshake at all
            with contextlib.suppress(ConnectionError):
                assert b"hello" not in await garbage.read()
            for one in (writer, other):
                one.close()
            async with client(own[0]) as http:
                for _ in range(3):
                    assert (await http.get(f"https://{host}:{port}/")).text == "hello"

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
