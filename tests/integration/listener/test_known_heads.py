"""A head that came before is read by one look-up: each request must reach the application alike."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from tests.support.corpus import HOST, REFUSED, SERVED
from tests.support.raw_client import LIMITS, Recorder
from tollway.gateway.listener import server as front
from tollway.gateway.listener.http_protocol import LimitedHttpProtocol, limited_protocol

pytestmark = pytest.mark.integration

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Scene = Callable[
    [Recorder, Callable[[], Awaitable[Streams]], type[LimitedHttpProtocol]], Awaitable[None]
]


def play(scene: Scene) -> None:
    async def main() -> None:
        app, protocol = Recorder(), limited_protocol(LIMITS)
        async with asyncio.timeout(60), front.serving(app, protocol=protocol, drain_s=0.5) as at:
            await scene(app, lambda: asyncio.open_connection(*at), protocol)

    uvloop.run(main())


def request(body: bytes, target: bytes = b"/a?b") -> bytes:
    return b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (target, HOST, len(body), body)


async def reply(reader: asyncio.StreamReader) -> bytes:
    """Return a status line; the reply is read to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    if b"content-length" in fields:
        await reader.readexactly(int(fields[b"content-length"]))
    else:
        await reader.readuntil(b"0\r\n\r\n")
    return head.split(b"\r\n")[0]


def test_bodies_and_their_parts_are_those_that_were_sent() -> None:
    bodies = [b"%03d" % n for n in range(8)] + [b"longer" * n for n in (1, 2, 1, 2, 1, 2)]

    async def scene(app: Recorder, connect: Callable[[], Awaitable[Streams]], _: object) -> None:
        reader, writer = await connect()
        for body in bodies:
            writer.write(request(body))
            assert b"200" in await reply(reader)
        # Two at once, of known heads, and one in three parts.
        writer.write(request(b"one") + request(b"two"))
        assert b"200" in await reply(reader)
        assert b"200" in await reply(reader)
        whole = request(b"end")
        for part in (whole[:20], whole[20:-2], whole[-2:]):
            writer.write(part)
            await asyncio.sleep(0.02)
        assert b"200" in await reply(reader)
        writer.close()
        assert [body for _, body, _ in app.whole] == [*bodies, b"one", b"two", b"end"]
        assert len({tuple(fields.items()) for path, _, fields in app.whole[:8]}) == 1
        assert {path for path, _, _ in app.whole} == {b"/a"}

    play(scene)


def test_a_lower_limit_of_bodies_holds_for_heads_that_are_known() -> None:
    async def scene(
        app: Recorder,
        connect: Callable[[], Awaitable[Streams]],
        protocol: type[LimitedHttpProtocol],
    ) -> None:
        reader, writer = await connect()
        for _ in range(4):
            writer.write(request(b"x" * 2000))
            assert b"200" in await reply(reader)
        protocol.limit_bodies(1000)
        writer.write(request(b"x" * 2000))
        assert b"413" in (await reader.readuntil(b"\r\n"))
        writer.close()
        assert len(app.whole) == 4

    play(scene)


def test_what_is_sent_again_means_the_same() -> None:
    corpus = {name: sent for name, (sent, *_) in [*SERVED.items(), *REFUSED.items()]}

    async def scene(app: Recorder, connect: Callable[[], Awaitable[Streams]], _: object) -> None:
        for name, sent in corpus.items():
            seen = []
            for _turn in range(4):
                app.whole.clear()
                reader, writer = await connect()  # its own, because many close it
                writer.write(sent)
                writer.write_eof()
                replied = await reader.read()
                seen.append((replied[:12], replied.count(b"HTTP/1.1 "), list(app.whole)))
                writer.close()
            assert seen == [seen[0]] * 4, name

    play(scene)
