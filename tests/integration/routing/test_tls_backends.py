"""Backends with untrusted TLS, or that do not trust ours: sent nothing, and free of charge."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support.certificates import Authority
from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving
from tests.support.until import until
from tollway.backends.errors import ConnectFailed
from tollway.backends.http.factory import open_transport
from tollway.backends.types import Call

pytestmark = pytest.mark.integration


@dataclass
class Server:
    """A TLS server, and what it received after the handshake."""

    port: int = 0
    open: int = 0
    told: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def listening(context: ssl.SSLContext | None) -> AsyncIterator[Server]:
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.open += 1
        with suppress(OSError):  # a failed handshake, too
            if context is None:
                server.told.append(await reader.read(1000))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            else:
                server.told.append(await read_after_handshake(context, reader, writer))
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()
        server.open -= 1

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server
        await until(lambda: not server.open)


async def read_after_handshake(
    context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    """Read what a client sends under TLS; unlike asyncio's servers it sends its alerts."""
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(came, goes, server_side=True)
    while True:
        try:
            tls.do_handshake()
            return tls.read(1000)
        except ssl.SSLWantReadError:
            writer.write(goes.read())
            data = await reader.read(10_000)
            came.write(data) if data else came.write_eof()
        finally:
            writer.write(goes.read())


def served(chain: tuple[Path, Path], clients: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*chain)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def at_most_1_2(context: ssl.SSLContext) -> ssl.SSLContext:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@dataclass
class Certificates:
    ours: Authority
    theirs: Authority


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    return Certificates(Authority(folder / "ours"), Authority(folder / "theirs"))


# name -> (the server's context, what the error says); clients trust `ours` alone.
CASES: dict[str, tuple[Callable[[Certificates], ssl.SSLContext | None], str]] = {
    "expired": (lambda made: served(made.ours.sign("old", year=2020)), "certificate has expired"),
    "another's name": (
        lambda made: served(made.ours.sign("named", san="DNS:b.test", year=2090)),
        "127.0.0.1",
    ),
    "another's signature": (
        lambda made: served(made.theirs.sign("other", year=2090)),
        "unable to get local issuer|self-signed",
    ),
    "signed by itself": (
        lambda made: served((made.theirs.cert, made.theirs.folder / "ca.key")),
        "self-signed|self signed",
    ),
    "asks for our certificate": (
        lambda made: served(made.ours.sign("strict", year=2090), made.ours.cert),
        "(?i)certificate required",
    ),
    "asks for a certificate in TLS 1.2": (
        lambda made: at_most_1_2(served(made.ours.sign("older", year=2090), made.ours.cert)),
        "(?i)alert|handshake",
    ),
    "no TLS": (lambda made: None, "(?i)wrong version|record layer|ssl"),
}


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_an_untrusted_backend_is_sent_nothing(
    made: Certificates, name: str, http2: bool, loop: Callable[[], Any]
) -> None:
    make, says = CASES[name]

    async def main() -> None:
        async with listening(make(made)) as server:
            trust = ssl.create_default_context(cafile=made.ours.cert)
            url = f"https://127.0.0.1:{server.port}"
            transport = open_transport(url, connections=1, http2=http2, tls=trust)
            for _ in range(2):  # with one slot: a leak would hang the second
                with pytest.raises(ConnectFailed, match=says) as caught:
                    soon_s = asyncio.get_running_loop().time() + 10
                    await transport.send(Call(b"POST", b"/", [], b"canary"), soon_s)
                assert not caught.value.ran
            await transport.aclose()
            if name == "no TLS":
                assert all(told[:2] == b"\x16\x03" for told in server.told)
            assert not [told for told in server.told if b"canary" in told or b"POST" in told]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_an_expired_certificate_costs_nothing_and_another_backend_answers(
    made: Certificates, tmp_path: Path
) -> None:
    async def main() -> None:
        old, sound = made.ours.sign("outdated", year=2021), made.ours.sign("sound", year=2090)
        expired, good = Upstream(), Upstream()
        tls = f'tls = {{ ca = "{made.ours.cert}" }}'
        async with serving(expired, ssl_certfile=old[0], ssl_keyfile=old[1]) as one:
            async with serving(good, ssl_certfile=sound[0], ssl_keyfile=sound[1]) as two:
                urls = [url.replace("http:", "https:") for url in (one, two)]
                more = budget("all", "1", more='window = "lifetime"')
                toml = two_backends(*urls, backend=tls, more=more)
                async with running(toml, tmp_path) as tollway:
                    reply = await tollway.infer()
                    assert reply.status_code == 200
                    assert reply.headers["x-tollway-reason"] == "fallback"
                    assert reply.headers["x-tollway-cost-usd"] == "0.001000000"
                    decision = reply.headers["x-tollway-decision"]
                    told = str(await tollway.get(f"/_tollway/decisions/{decision}"))
                    assert "certificate has expired" in told
        assert expired.calls == 0

    run(main)
