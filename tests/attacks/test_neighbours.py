"""What one tenant can do to the requests of another that are under way at the same time."""

import asyncio
import gc
import select
import socket
import time
from pathlib import Path

import orjson
import pytest

from tests.attacks.neighbours import Stand, closed, hold, percentile, standing, status_of
from tests.support.raw_client import Recorder
from tests.support.until import until
from tollway.backends.concurrency.shares import SHARE
from tollway.gateway.listener.server import serving

pytestmark = [pytest.mark.integration, pytest.mark.alone]

SMALL = b'{"data":[1,2],"text":"a few words"}'
MIB = 1 << 20


def whole_s(body: bytes) -> float:
    """Return the least time that reading a document in one piece takes."""
    took_s = []
    for _ in range(2):
        began_s = time.perf_counter()
        orjson.loads(body)
        took_s.append(time.perf_counter() - began_s)
    return min(took_s)


@pytest.mark.parametrize(
    "body",
    [
        b'{"text":"x","data":[' + b"[]," * (5 * MIB) + b"0]}",
        b'{"text":"x","data":[' + b"{}," * (5 * MIB) + b"0]}",
        b'{"text":"x",' + b",".join(b'"k%d":0' % n for n in range(MIB)) + b"}",
    ],
    ids=["lists", "objects", "members"],
)
def test_a_large_body_of_one_tenant_does_not_stop_the_loop(body: bytes, tmp_path: Path) -> None:
    async def main() -> None:
        async with standing(tmp_path) as stand:
            assert (await stand.ask("honest", SMALL))[0] == 200
            paused_s = []
            for _ in range(3):  # other processes pause it too; they do not do so each time
                await stand.pause_s()
                status, _ = await stand.ask("mallory", body)
                assert status == 200
                paused_s.append(await stand.pause_s())
            # Walking through the document again took several times as long as reading it.
            assert min(paused_s) < whole_s(body) / 3

    asyncio.run(main())


def test_a_large_text_of_one_tenant_stops_the_loop_no_longer_than_copying_it_a_few_times(
    tmp_path: Path,
) -> None:
    body = b'{"text":"%b"}' % (b"\\n\\u00e9" * (15 * MIB // 8))

    def copied_s() -> float:
        began_s = time.perf_counter()
        assert bytes(bytearray(body)) == body
        return time.perf_counter() - began_s

    async def main() -> None:
        async with standing(tmp_path) as stand:
            assert (await stand.ask("honest", SMALL))[0] == 200
            paused_s = []
            for _ in range(4):  # other processes pause it too; they do not do so each time
                await stand.pause_s()
                assert (await stand.ask("mallory", body))[0] == 200
                paused_s.append(await stand.pause_s())
            # Each step copies, joins or searches it once.
            assert min(paused_s) < 15 * min(copied_s() for _ in range(5))

    asyncio.run(main())


def test_large_feedback_of_one_tenant_does_not_stop_the_loop(tmp_path: Path) -> None:
    body = b"[" + b"[]," * 170_000 + b"0]"

    async def main() -> None:
        async with standing(tmp_path) as stand:
            paused_s = []
            for _ in range(4):
                reader, writer = await stand.connect()
                await stand.pause_s()
                writer.write(stand.request("mallory", body, "/_tollway/feedback"))
                assert await status_of(reader) == 400
                paused_s.append(await stand.pause_s())
                await closed(writer)
            assert min(paused_s) < whole_s(body)

    asyncio.run(main())


LISTS = b'{"choices":[],"x":[' + b"[]," * (5 * MIB // 4) + b"0]}"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'


def test_a_large_event_of_one_tenants_stream_does_not_stop_the_loop(tmp_path: Path) -> None:
    async def main() -> None:
        async with standing(tmp_path) as stand:
            stand.model.events = b"data: %b\n\n" % LISTS + USAGE + b"data: [DONE]\n\n"
            assert (await stand.ask("honest", SMALL))[0] == 200
            paused_s = []
            for _ in range(4):  # other processes pause it too; they do not do so each time
                await stand.pause_s()
                reply = await stand.read_stream("mallory")
                assert reply.startswith(b"HTTP/1.1 200") and len(reply) > len(LISTS)
                paused_s.append(await stand.pause_s())
            gc.disable()
            try:
                assert min(paused_s) < whole_s(LISTS) / 3
            finally:
                gc.enable()

    asyncio.run(main())


def test_a_tenant_at_ten_times_its_share_leaves_anothers_latency(tmp_path: Path) -> None:
    places, takes_s = 4, 0.05

    async def paced(stand: Stand, count: int) -> list[float]:
        """Return latencies at a tenth of the capacity."""
        asked = []
        for _ in range(count):
            asked.append(asyncio.create_task(stand.ask("honest", SMALL)))
            await asyncio.sleep(takes_s / places * 10)
        results = await asyncio.gather(*asked)
        assert {status for status, _ in results} == {200}
        return [took_s for _, took_s in results]

    async def greedy(stand: Stand) -> None:
        """Ask again and again on a connection of its own."""
        reader, writer = await stand.connect()
        try:
            while True:
                writer.write(stand.request("mallory", SMALL))
                if await status_of(reader) == 503:
                    await asyncio.sleep(takes_s)
        finally:
            await closed(writer)

    async def main() -> None:
        backend = f"concurrency = {places}"
        async with standing(tmp_path, backend=backend, takes_s=takes_s) as stand:
            await paced(stand, 5)
            idle_s = percentile(await paced(stand, 30), 0.99)
            flood = [asyncio.create_task(greedy(stand)) for _ in range(10 * places)]
            before = stand.model.answered
            windows: list[list[float]] = []
            for _ in range(4):  # other processes delay it too; they do not do so each time
                windows.append(await paced(stand, 30))
            answered = stand.model.answered - before
            for task in flood:
                task.cancel()
            await asyncio.gather(*flood, return_exceptions=True)
            assert answered > 4 * sum(map(len, windows)), "it was no flood"
            assert min(percentile(one, 0.99) for one in windows) <= 3 * idle_s

    asyncio.run(main())


def test_requests_that_come_at_once_do_not_go_before_anothers(tmp_path: Path) -> None:
    count = 400

    def connected(stand: Stand) -> socket.socket:
        return socket.create_connection(("127.0.0.1", stand.port), timeout=20)

    def round_of(stand: Stand, flood: list[socket.socket], other: socket.socket) -> int:
        """Return how many requests of a flood were answered before another tenant's, sent last."""

        def wrong(tenant: str) -> bytes:
            return stand.request(tenant, b"{}").replace(b"\r\n", b"\r\nx-tollway-tags: odd\r\n", 1)

        for connection in flood:
            connection.sendall(wrong("mallory"))
        other.sendall(wrong("honest"))
        assert other.recv(4096)[9:12] == b"400"
        before = len(select.select(flood, [], [], 0)[0])
        for connection in flood:
            assert connection.recv(4096)[9:12] == b"400"
        return before

    async def main() -> None:
        async with standing(tmp_path) as stand:
            flood, other = [connected(stand) for _ in range(count)], connected(stand)
            rounds = [
                await asyncio.to_thread(round_of, stand, flood, other) for _ in range(6)
            ]  # this process may see the reply late, but not each time
            for connection in (*flood, other):
                connection.close()
            assert min(rounds) < count / 2

    asyncio.run(main())


def test_a_flood_that_finds_no_slot_is_refused_unread(tmp_path: Path) -> None:
    async def main() -> None:
        backend = "concurrency = 1\nadaptive = false\nqueue_s = 0.01"
        async with standing(tmp_path, backend=backend, takes_s=0.2) as stand:
            assert (await stand.ask("mallory", SMALL))[0] == 200
            stand.model.takes_s = 20.0
            held = await hold(stand, "honest", SMALL, 1)
            flood = [await stand.connect() for _ in range(200)]

            async def are_unread() -> bool:
                """Whether some of many malformed requests are refused for want of a slot."""
                for _, writer in flood:
                    writer.write(stand.request("mallory", b"{"))
                statuses = [await status_of(reader) for reader, _ in flood]
                assert set(statuses) <= {400, 503}
                return 503 in statuses

            await until(are_unread, within_s=30)
            for writer in (*held, *[writer for _, writer in flood]):
                await closed(writer)

    asyncio.run(main())


def test_a_tenant_that_fills_the_places_of_a_worker_leaves_some_for_others(tmp_path: Path) -> None:
    async def main() -> None:
        options = "max_in_flight = 40"
        async with standing(tmp_path, server=options, backend="queue_s = 60") as stand:
            stand.model.takes_s = 3600.0
            writers = await hold(stand, "mallory", SMALL, 60)
            await asyncio.sleep(0)

            async def is_refused() -> bool:
                reader, writer = await stand.connect()
                writer.write(stand.request("mallory", SMALL))
                try:
                    async with asyncio.timeout(0.2):
                        return await status_of(reader) == 503
                except TimeoutError:
                    return False
                finally:
                    await closed(writer)

            await until(is_refused, within_s=20)
            stand.model.takes_s = 0.0
            assert (await stand.ask("honest", SMALL))[0] == 200
            for writer in writers:
                await closed(writer)

    asyncio.run(main())


def test_a_tenant_that_fills_the_memory_leaves_half_for_others(tmp_path: Path) -> None:
    large = b'{"text":"%b"}' % (b"x" * MIB)
    limits = """
        max_body_bytes = 2097152
        max_reply_bytes = 1048576
        max_event_bytes = 65536
        buffer_bytes = 12582912
    """

    async def main() -> None:
        async with standing(tmp_path, server=limits, backend="queue_s = 60") as stand:
            stand.model.takes_s = 3600.0
            writers = await hold(stand, "mallory", large, 5)

            async def is_refused() -> bool:
                reader, writer = await stand.connect()
                writer.write(stand.request("mallory", large))
                try:
                    async with asyncio.timeout(1):
                        return await status_of(reader) == 503
                except TimeoutError:
                    return False
                finally:
                    await closed(writer)

            await until(is_refused, within_s=20)
            stand.model.takes_s = 0.0
            assert (await stand.ask("honest", large))[0] == 200
            for writer in writers:
                await closed(writer)

            async def is_free() -> bool:
                return (await stand.ask("mallory", large))[0] == 200

            await until(is_free, within_s=20)

    asyncio.run(main())


def test_one_address_cannot_take_all_connections() -> None:
    most = 45

    async def opened(address: tuple[str, int], source: str) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        connection.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(connection, address)
        return connection

    async def answer(connection: socket.socket) -> bytes:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(20):
            return (await loop.sock_recv(connection, 4096))[9:12]

    async def main() -> None:
        async with serving(Recorder(), connections=most) as address:
            flood = [await opened(address, "127.0.0.1") for _ in range(3 * most)]
            answers = [await answer(one) for one in flood if one.fileno() >= 0]
            served = answers.count(b"200")
            assert 0 < served <= most * SHARE // (SHARE + 1) + 1
            other = await opened(address, "127.0.0.2")
            assert await answer(other) == b"200"
            for one in (*flood, other):
                one.close()
            again = await opened(address, "127.0.0.1")
            assert await answer(again) == b"200"
            again.close()

    asyncio.run(main())
