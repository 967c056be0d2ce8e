"""What our HTTP/1.1 pool guarantees beyond the contract of a transport."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from tests.contracts import wire_server as wire
from tests.contracts.wire_server import OK, Script, Wire, WireServer
from tests.support.until import until
from tollway.backends.errors import BadReply, ConnectFailed
from tollway.backends.http.connection import MAX_INTERIM, Connection
from tollway.backends.http.factory import open_transport
from tollway.backends.http.pool import Http1Transport
from tollway.backends.types import Call

pytestmark = pytest.mark.integration

Test = Callable[[Http1Transport, WireServer], Awaitable[None]]


def against(script: Script, test: Test, **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), wire.wire_server(script) as server:
            transport = open_transport(server.url, **options)
            assert isinstance(transport, Http1Transport)
            await test(transport, server)
            await transport.aclose()
            assert (transport.busy, transport.opened) == (0, 0)

    uvloop.run(main())


async def ask(transport: Http1Transport, method: bytes = b"POST", body: bytes = b"{}") -> bytes:
    deadline_s = asyncio.get_running_loop().time() + 20
    reply = await transport.send(Call(method, b"/", [], body), deadline_s)
    return await reply.read(1 << 20)


def test_a_whole_reply_frees_its_slot_before_it_is_read() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        deadline_s = asyncio.get_running_loop().time() + 20
        reply = await transport.send(Call(b"GET", b"/", []), deadline_s)
        assert (transport.busy, transport.opened) == (0, 1)
        assert await reply.read(10) == b"ok"

    against(wire.replies(OK), test)


def test_the_connection_used_last_is_used_next() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        await asyncio.gather(*(ask(transport) for _ in range(3)))
        first, *_, last = transport._idle
        await ask(transport)
        assert transport._idle[0] is first and transport._idle[-1] is last

    against(wire.replies(OK), test)


def test_idle_connections_are_closed_before_their_server_would() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        await asyncio.gather(*(ask(transport) for _ in range(3)))
        await server.all_closed()
        assert transport.opened == 0
        assert await ask(transport) == b"ok"

    against(wire.replies(OK), test, idle_expiry_s=0.05)


def test_a_flood_of_interim_replies_is_cut_early() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        with pytest.raises(BadReply, match="103"):
            await ask(transport)

    flood = wire.replies(*[b"HTTP/1.1 103 E\r\n\r\n"] * (MAX_INTERIM + 1), OK)
    against(flood, test)


def closes_second(wait_s: float) -> Script:
    """Answer the first request of a connection; close instead of answering the second."""

    async def script(one: Wire) -> None:
        await one.request()
        await one.say(OK)
        await one.request()
        await asyncio.sleep(wait_s)

    return script


STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


async def closes_after_streams(one: Wire) -> None:
    """Stream to a POST and close, without saying so; keep the connection after a GET."""
    while True:
        head, _ = await one.request()
        if head.startswith(b"POST"):
            await one.say(STREAM)
            return
        await one.say(OK)


def test_a_server_that_closes_after_streams_loses_no_call_once_that_is_known() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        assert await ask(transport) == b"ok"
        await server.all_closed()
        await until(lambda: not transport.opened)  # closed at once, which costs nothing to learn
        for _ in range(5):
            assert await ask(transport) == b"ok"
            assert not transport._idle  # the next call cannot be put on it
        assert (server.accepted, len(server.requests)) == (6, 6)
        for _ in range(5):
            await ask(transport, b"GET")
        assert server.accepted == 7  # after replies of known length it is used again

    against(closes_after_streams, test)


def test_the_first_call_that_a_close_lost_teaches_too() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        await ask(transport)
        with pytest.raises(BadReply):
            await ask(transport)
        for _ in range(3):
            await ask(transport)
        assert (server.accepted, len(server.requests)) == (4, 5)

    against(closes_second(0.1), test)


@pytest.mark.parametrize(("keep_alive", "accepted"), [(True, 1), (None, 1), (False, 3)])
def test_connections_are_kept_as_configured(keep_alive: bool | None, accepted: int) -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        for _ in range(3):
            await ask(transport)
        assert server.accepted == accepted

    against(wire.replies(OK), test, keep_alive=keep_alive)


async def resets_second(one: Wire) -> None:
    await one.request()
    await one.say(OK)
    await wire.resets(one)


@pytest.mark.parametrize("method", [b"POST", b"GET"])
def test_a_call_that_met_a_closing_connection_is_repeated_once(method: bytes) -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        await ask(transport, method)
        (connection,) = transport._idle
        assert connection._transport is not None
        connection._transport.pause_reading()  # the close is on its way to us
        await server.all_closed()
        asking = asyncio.create_task(ask(transport, method))
        await asyncio.sleep(0)
        connection._transport.resume_reading()
        assert await asking == b"ok"
        assert (server.accepted, len(server.requests)) == (2, 2)

    async def closes_first(one: Wire) -> None:
        await one.request()
        await one.say(OK)

    against(closes_first, test)


@pytest.mark.parametrize("end", [closes_second(0), closes_second(0.1), resets_second])
def test_a_post_that_a_backend_received_is_not_repeated(end: Script) -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        await ask(transport)
        with pytest.raises(BadReply) as caught:
            await ask(transport)
        assert caught.value.ran
        assert (server.accepted, len(server.requests)) == (1, 2)

    against(end, test)


def test_a_get_is_repeated_even_if_it_was_received() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        await ask(transport, b"GET")
        assert await ask(transport, b"GET") == b"ok"

    against(closes_second(0.2), test)


def test_a_fresh_connection_that_is_closed_is_not_tried_again() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        with pytest.raises(BadReply):
            await ask(transport, b"GET")
        assert server.accepted == 1

    against(wire.closes_after_request, test)


def test_a_reply_that_overtakes_a_long_body_ends_its_connection() -> None:
    async def script(one: Wire) -> None:
        await one.reader.readuntil(b"\r\n\r\n")
        await one.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await one.gone()

    async def test(transport: Http1Transport, server: WireServer) -> None:
        for _ in range(2):
            assert await ask(transport, body=bytes(32 << 20)) == b"no"
        assert server.accepted == 2

    against(script, test)


def test_a_full_queue_refuses() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        transport.slots._queue_most = 2
        calls = [asyncio.create_task(ask(transport)) for _ in range(3)]
        await until(lambda: transport.slots.waiting == 2)
        with pytest.raises(ConnectFailed):
            await ask(transport)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert transport.busy == 0 and not transport.slots.waiting

    against(wire.silent, test, connections=1)


def test_the_queue_is_in_order_of_arrival() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        bodies = [b"%d" % n for n in range(50)]
        await asyncio.gather(*(ask(transport, body=body) for body in bodies))
        assert [body for _, body in server.requests] == bodies

    against(wire.replies(OK), test, connections=1)


def test_a_reply_that_nobody_closes_is_cut_at_its_deadline() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        deadline_s = asyncio.get_running_loop().time() + 0.1
        await transport.send(Call(b"GET", b"/", []), deadline_s)
        await until(lambda: transport.busy == 0)

    against(wire.drips(b"HTTP/1.1 200 OK\r\n\r\n", b"x"), test, connections=1)


def test_closed_connections_leave_no_cycles_behind() -> None:
    async def test(transport: Http1Transport, server: WireServer) -> None:
        await ask(transport)
        await until(lambda: not transport.opened)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await ask(transport)
                await until(lambda: not transport.opened)
            left = [one for one in gc.get_objects() if isinstance(one, Connection)]
            assert left == []
        finally:
            gc.enable()

    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    against(wire.replies(closing), test)
