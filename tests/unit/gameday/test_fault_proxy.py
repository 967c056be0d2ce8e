"""Each fault does to a connection what it says, and stops when it ends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.support.until import until
from tollway.gameday.faults import NOTHING, parse
from tollway.gameday.proxy import FaultProxy

SAID = bytes(range(256)) * 40


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[tuple[str, int]]:
    """Run an echo server that closes when its client does."""
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        await asyncio.gather(*tasks)


def proxied(main: Callable[[FaultProxy], Awaitable[None]], seed: int = 0) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), echo() as to, FaultProxy(to, seed=seed) as proxy:
            await main(proxy)

    asyncio.run(run())


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes = SAID) -> bytes:
        """Return the echo, until it is complete or the connection ends."""
        self.writer.write(data)
        said = b""
        while len(said) < len(data) and (more := await self.reader.read(65536)):
            said += more
        return said


@contextlib.asynccontextmanager
async def client(proxy: FaultProxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*proxy.address)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def refused(proxy: FaultProxy) -> bool:
    try:
        async with client(proxy):
            return False
    except ConnectionRefusedError:
        return True


async def times_out(awaitable: Awaitable[object], wait_s: float = 0.1) -> bool:
    try:
        async with asyncio.timeout(wait_s):
            await awaitable
    except TimeoutError:
        return True
    return False


def test_without_faults_it_passes_all_on_and_ends_when_either_side_does() -> None:
    async def main(proxy: FaultProxy) -> None:
        async with client(proxy) as one:
            assert await one.ask(SAID * 100) == SAID * 100
            assert proxy.open == 1
            one.writer.write_eof()
            assert await one.reader.read() == b""
        await until(lambda: not proxy.open)

    proxied(main)


def test_latency_comes_and_goes_on_a_connection_that_is_open() -> None:
    async def main(proxy: FaultProxy) -> None:
        async with client(proxy) as one:
            began_s = time.monotonic()
            async with proxy.struck(parse("latency=50ms,jitter=10ms")):
                assert await one.ask() == SAID
            assert time.monotonic() - began_s >= 0.05
            async with proxy.struck(parse("latency=1h")):
                asking = asyncio.create_task(one.ask())
                assert await times_out(asyncio.shield(asking))
            assert await asking == SAID  # what waited waits no longer

    proxied(main)


def test_what_hangs_goes_on_afterwards() -> None:
    async def main(proxy: FaultProxy) -> None:
        async with client(proxy) as one:
            async with proxy.struck(parse("hang")):
                asking = asyncio.create_task(one.ask())
                async with client(proxy) as other:  # it is accepted, and hears nothing
                    assert await times_out(other.ask(b"x"))
            assert await asking == SAID

    proxied(main)


def test_a_partition_holds_both_sides_and_lets_nobody_new_in() -> None:
    async def main(proxy: FaultProxy) -> None:
        async with client(proxy) as one:
            await proxy.strike(parse("drop"))
            asking = asyncio.create_task(one.ask())
            assert await times_out(asyncio.open_connection(*proxy.address))
            await proxy.strike()
            assert await asking == SAID
            async with client(proxy) as other:
                assert await other.ask() == SAID

    proxied(main)


def test_what_refuses_resets_those_there_were_and_listens_again_on_its_port() -> None:
    async def main(proxy: FaultProxy) -> None:
        async with client(proxy) as one:
            await one.ask()
            async with proxy.struck(parse("refuse")):
                with pytest.raises(ConnectionResetError):
                    await one.reader.read()
                assert await refused(proxy)
                await proxy.strike(parse("drop"))  # from one to the other, too
                assert await times_out(asyncio.open_connection(*proxy.address))
                await proxy.strike(parse("refuse"))
        async with client(proxy) as other:
            assert await other.ask() == SAID

    proxied(main)


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_a_connection_ends_after_so_many_bytes_of_a_reply(fault: str) -> None:
    async def main(proxy: FaultProxy) -> None:
        async with client(proxy) as one:
            await one.ask()
            await proxy.strike(parse(f"{fault}=100"))
            assert await one.ask(b"x" * 100) == b"x" * 100  # of a reply, not of the connection
            if fault == "cut":
                assert await one.ask() == SAID[:100]
            else:
                with pytest.raises(ConnectionResetError):
                    assert len(await one.ask()) == 100
                    await one.reader.read()
        assert proxy.counts[fault] == 1

    proxied(main)


def test_replies_are_swallowed_as_many_as_were_asked_for() -> None:
    async def main(proxy: FaultProxy) -> None:
        await proxy.strike(parse("swallow=2"))
        for expected in (b"", b"", SAID):
            async with client(proxy) as one:
                assert await one.ask() == expected
        assert proxy.counts["swallowed"] == 2

    proxied(main)


def test_a_slow_connection_takes_its_time_and_small_pieces_are_small() -> None:
    async def main(proxy: FaultProxy) -> None:
        async with client(proxy) as one:
            began_s = time.monotonic()
            async with proxy.struck(parse("rate=100kB,side=both")):
                assert await one.ask() == SAID
            assert time.monotonic() - began_s >= len(SAID) / 100e3 / 2  # the last pulse is free
            async with proxy.struck(parse("slice=7,rate=1kB")):
                one.writer.write(SAID[:21])
                assert [await one.reader.read(100) for _ in range(3)] == [
                    SAID[at : at + 7] for at in (0, 7, 14)
                ]

    proxied(main)


def test_what_is_corrupted_has_single_bits_turned_the_same_for_the_same_seed() -> None:
    async def heard(seed: int) -> bytes:
        async with echo() as to, FaultProxy(to, seed=seed) as proxy, client(proxy) as one:
            await proxy.strike(parse("corrupt=0.01"))
            said = await one.ask()
            wrong = [a ^ b for a, b in zip(said, SAID, strict=True) if a != b]
            assert proxy.counts["corrupted"] == len(wrong)
            assert 0.005 < len(wrong) / len(SAID) < 0.02
            assert all(bits.bit_count() == 1 for bits in wrong)
            return said

    assert asyncio.run(heard(1)) == asyncio.run(heard(1)) != asyncio.run(heard(2))


def test_a_share_of_connections_is_struck_and_requests_can_be() -> None:
    async def main(proxy: FaultProxy) -> None:
        await proxy.strike(parse("cut,side=requests,share=0.5"))
        answers = []
        for _ in range(40):
            async with client(proxy) as one:
                answers.append(await one.ask(b"x"))
        assert 10 < answers.count(b"x") < 30

    proxied(main)


def test_no_connection_is_lost_while_partitions_begin_and_end() -> None:
    async def main(proxy: FaultProxy) -> None:
        async def ask() -> bytes:
            async with client(proxy) as one:
                return await one.ask(b"x")

        asking = []
        for _ in range(30):
            asking += [asyncio.create_task(ask()) for _ in range(3)]
            await asyncio.sleep(0)
            await proxy.strike(parse("drop"))
            await asyncio.sleep(0)
            await proxy.strike()
        assert set(await asyncio.gather(*asking)) == {b"x"}

    proxied(main)


def test_a_server_that_is_not_there_resets_its_clients() -> None:
    async def main() -> None:
        async with echo() as to:
            pass
        async with FaultProxy(to) as proxy:
            with pytest.raises(ConnectionResetError):
                async with client(proxy) as one:
                    await one.ask()
            assert proxy.counts["refused"] == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "words",
    [
        "none",
        "latency=200ms,jitter=50ms",
        "rate=1000,slice=10",
        "corrupt=0.01,side=both,share=0.25",
        "swallow=1",
        "cut=0",
        "reset=20000,side=requests",
        "hang",
        "drop",
        "refuse",
        "latency=1.5s",
    ],
)
def test_faults_print_as_text_that_can_be_parsed_again(words: str) -> None:
    assert str(parse(words)) == words
    assert parse(str(parse(words))) == parse(words)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("lag=1s", "unknown fault 'lag'; the faults are: latency, jitter"),
        ("latency=1", "latency=1: write a time with its unit"),
        ("latency", "latency: write a time with its unit"),
        ("latency=1s,latency=2s", "latency is given twice"),
        ("rate=0", "rate=0: write a number above 0"),
        ("slice=x", "slice=x: write a number of bytes"),
        ("corrupt=2", "corrupt=2: write a share above 0 and up to 1"),
        ("swallow=0", "swallow=0: write a whole number above 0"),
        ("hang=1s", "hang=1s: it takes no value"),
        ("cut,side=left", "side=left: write one of replies, requests, both"),
        ("drop,share=0.5", "drop and refuse affect all"),
        ("swallow,side=requests", "swallow applies to replies"),
    ],
)
def test_unknown_faults_are_refused_with_the_reason(words: str, why: str) -> None:
    with pytest.raises(ValueError, match="^" + why.replace("(", r"\(")):
        parse(words)


def test_spaces_and_nothing_are_understood() -> None:
    assert parse(" latency = 1s , cut ") == parse("latency=1s,cut=0")
    assert parse("") == NOTHING
