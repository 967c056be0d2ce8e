"""Clients that flood the gateway: the others are answered, and memory stays bounded."""

import asyncio
import contextlib
import gzip
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from tests.faults.leaks import Held, comes_back
from tests.faults.stand import CHEAP_NANO, Stand, standing
from tests.support.harness import Upstream, inference, run, serving
from tests.support.until import until
from tollway.gateway.listener.request_head import HeadLimits

pytestmark = pytest.mark.integration

HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\n"
MIB = 1 << 20
ASK = orjson.dumps(inference())
ROUNDS, LEAVERS = 6, 50
POOLED = LEAVERS + 24  # kept connections to the backend, and those of good clients
SLOW = 10_000


@pytest.fixture
def files() -> Iterator[int]:
    """Raise the limit of open files to its maximum; yield it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def connect(stand: Stand) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = stand.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def heard(peer: socket.socket) -> bytes:
    """Return what is received until the end, or a reset (after more was sent than was read)."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := await asyncio.get_running_loop().sock_recv(peer, 1 << 16):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.alone
def test_ten_thousand_slow_clients_are_cut_and_the_others_do_not_notice(
    tmp_path: Path, files: int
) -> None:
    """Half of them stop in the middle of a head, half send nothing."""
    count = min(SLOW - 64, files - 512)  # below the gateway's limit on connections, as they come

    async def main() -> None:
        async with serving(Upstream()) as a, standing(tmp_path / "g", a, a) as stand:
            await stand.ask(8)
            before_mib = stand.held().memory_mib
            slow = []
            async with stand.load(4, pause_s=0.01):
                # Those who came first must not be cut before the last is there: a machine that is
                # too busy to connect them all in that time has fewer of them.
                enough_s = asyncio.get_running_loop().time() + HeadLimits().head_s / 2
                for n in range(0, count, 200):
                    if asyncio.get_running_loop().time() > enough_s:
                        break
                    size = min(200, count - n)
                    opened = await asyncio.gather(*(connect(stand) for _ in range(size)))
                    for at, (_, writer) in enumerate(opened):
                        writer.write(HEAD[: 20 * (at % 2)])
                    slow += opened
                assert stand.process.descriptors > 0.85 * len(slow)  # one address gets 8/9 of them
                assert stand.held().memory_mib - before_mib < 16 + 0.03 * len(slow)  # 30 KiB each
                begun = len(stand.statuses)
                cut = [reader.read() for reader, _ in slow]
                replies = await asyncio.wait_for(asyncio.gather(*cut, return_exceptions=True), 60)
                served = len(stand.statuses) - begun
            assert {*stand.statuses} == {200}
            assert served > 20
            told = [reply for reply in replies if isinstance(reply, bytes)]
            assert {reply[:12] for reply in told} <= {b"", b"HTTP/1.1 408", b"HTTP/1.1 503"}
            for _, writer in slow:
                writer.close()
            # Kept for the next ones; the test below shows that it does not grow with each.
            await stand.leaves_open(8, memory_mib=16 + 0.01 * count)
            await stand.stop()

    run(main)


RUDE = {
    "nothing": b"",
    "half a head": HEAD,
    "half a body": HEAD + b"content-length: 100\r\n\r\n{",
    "half a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n64\r\n{",
    "a request": HEAD + b"content-length: %d\r\n\r\n" % len(ASK) + ASK,
    "no HTTP": b"\x16\x03\x01" * 10,
}


def test_clients_that_send_part_of_a_request_and_leave_leak_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream(delay_s=0.05)  # so that those who ask are gone before their answer
        async with serving(upstream) as a, standing(tmp_path / "g", a, a) as stand:
            await stand.ask(8)
            kept: list[Held] = []
            for _ in range(ROUNDS):
                for words in RUDE.values():
                    opened = await asyncio.gather(*(connect(stand) for _ in range(LEAVERS)))
                    for _, writer in opened:
                        writer.write(words)
                        await writer.drain()
                        writer.close()
                assert {reply.status_code for reply in await stand.ask(8)} == {200}
                await comes_back(stand.held, stand.base, files=POOLED)
                kept.append(stand.held())
            # The first may take memory for good, to have it for the next; not all of them.
            first = max(kept[: ROUNDS // 2], key=lambda one: one.memory_mib)
            await comes_back(stand.held, first, files=POOLED, memory_mib=2.0)  # 2 KiB a leaver
            await stand.leaves_open(POOLED)
            calls = upstream.calls
            await stand.stop()
            assert stand.journal_nano == calls * CHEAP_NANO

    run(main)


def chunked(total: int) -> Iterator[bytes]:
    part = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    yield HEAD + b"transfer-encoding: chunked\r\n\r\n"
    for _ in range(total // 0x10000):
        yield part


def declared(total: int) -> Iterator[bytes]:
    yield HEAD + b"content-length: %d\r\n\r\n" % total
    for _ in range(total // 0x10000):
        yield b"x" * 0x10000


def fields(total: int) -> Iterator[bytes]:
    yield HEAD
    for n in range(total // 1000):
        yield b"x-%d: %b\r\n" % (n, b"y" * 990)


def names(total: int) -> Iterator[bytes]:
    yield HEAD
    for n in range(total // 1000):
        yield b"".join(b"a%d:\r\n" % (n * 100 + k) for k in range(100))


def target(total: int) -> Iterator[bytes]:
    yield b"POST /"
    for _ in range(total // 0x10000):
        yield b"x" * 0x10000


def bomb(total: int) -> Iterator[bytes]:
    """Return a body that is small until it is unpacked.

    It is made before its client connects: a busy machine takes seconds, and a gateway closes a
    connection on which no request begins.
    """
    body = gzip.compress(b"[" * total)
    packed = b"content-encoding: gzip\r\ncontent-length: %d\r\n" % len(body)
    return iter([HEAD + packed + b"connection: close\r\n\r\n" + body])


FLOODS: dict[str, tuple[Callable[[int], Iterator[bytes]], int, bytes]] = {
    "100 MB in chunks": (chunked, 100 * MIB, b"413"),
    "100 MB, declared": (declared, 100 * MIB, b"413"),
    "10 GiB, declared": (lambda total: iter([next(declared(total))]), 10 << 30, b"413"),
    "64 KB of fields": (fields, 64 * 1000, b"431"),
    "100 MB of fields": (fields, 100 * MIB, b"431"),
    "100,000 names": (names, MIB, b"431"),
    "a target of 100 MB": (target, 100 * MIB, b"414"),
    "a body that is 100 MB unpacked": (bomb, 100 * MIB, b"413"),
}


def test_what_is_too_large_is_refused_early_and_takes_no_memory(tmp_path: Path) -> None:
    async def flood(stand: Stand, parts: Iterator[bytes]) -> bytes:
        """Return the reply to a request that is sent until there is one.

        A stream of asyncio that fails to write drops what it was sent: this client must read it
        even if it was too busy to do so before the gateway closed the connection.
        """
        loop = asyncio.get_running_loop()
        host, _, port = stand.url.removeprefix("http://").partition(":")
        with socket.socket() as peer:
            peer.setblocking(False)
            await loop.sock_connect(peer, (host, int(port)))
            told = asyncio.ensure_future(heard(peer))
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    await loop.sock_sendall(peer, part)
                    await asyncio.sleep(0)  # sending gives nobody a turn: it is to hear a refusal
                    if told.done():
                        break
            return await asyncio.wait_for(told, 20)

    async def main() -> None:
        server = "max_body_bytes = 1048576"
        upstream = Upstream()
        async with serving(upstream) as a:
            async with standing(tmp_path / "g", a, a, server=server) as stand:
                await stand.ask(8)
                before_mib, calls = stand.held().memory_mib, upstream.calls
                for name, (parts, total, status) in FLOODS.items():
                    replies = await asyncio.gather(*(flood(stand, parts(total)) for _ in range(4)))
                    assert {reply[9:12] for reply in replies} == {status}, name
                    assert stand.held().memory_mib - before_mib < 32, name
                assert upstream.calls == calls
                assert {reply.status_code for reply in await stand.ask(8)} == {200}
                await stand.leaves_open(8)
                await stand.stop()

    run(main)


def test_decoding_of_a_compression_bomb_stops_early(tmp_path: Path) -> None:
    body = gzip.compress(b'{"outputs":[' + b" " * (200 * MIB) + b"]}")
    bomb_ = Upstream(body=body, headers=[(b"content-encoding", b"gzip")])

    async def main() -> None:
        async with serving(bomb_) as a, serving(Upstream()) as b:
            async with standing(tmp_path / "g", a, b) as stand:
                before_mib = stand.held().memory_mib
                for _ in range(4):
                    (reply,) = await stand.ask()
                    assert reply.headers["x-tollway-backend"] == "dear"
                assert bomb_.calls == 4
                assert stand.held().memory_mib - before_mib < 32
                await stand.stop()

    run(main)


def test_a_gateway_without_free_files_recovers_as_soon_as_there_are_some(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, standing(tmp_path / "g", a, a) as stand:
            await stand.ask(4)
            most = stand.process.descriptors + 16
            resource.prlimit(stand.process.pid, resource.RLIMIT_NOFILE, (most, most))
            flood = await asyncio.gather(*(connect(stand) for _ in range(200)))
            await until(lambda: stand.process.descriptors >= most)
            await asyncio.sleep(0.2)  # it goes on being full, and does not spin or die
            spent_s = cpu_s(stand)
            await asyncio.sleep(1.0)
            assert cpu_s(stand) - spent_s < 0.5
            for _, writer in flood:
                writer.close()
            (reply,) = await stand.ask()
            assert reply.status_code == 200
            assert {reply.status_code for reply in await stand.ask(4)} == {200}
            await stand.stop()

    run(main)


def cpu_s(stand: Stand) -> float:
    stat = Path(f"/proc/{stand.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / 100
