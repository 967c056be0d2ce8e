"""The contract of `Transport`, run over every implementation against a scripted server."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.contracts import wire_server as wire
from tests.contracts.wire_server import OK, Script, Wire, WireServer
from tests.support.transports import (
    IMPLEMENTATIONS,
    STUCK_S,
    Implementation,
    ask,
    post,
    soon,
)
from tests.support.until import still, until
from tollway.backends.errors import (
    BackendError,
    BadReply,
    ConnectFailed,
    DeadlineExceeded,
    is_unsent,
)
from tollway.backends.ports import Transport
from tollway.backends.types import Call, HttpReply

pytestmark = pytest.mark.integration

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
EVENTS = HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda one: one.name)
def over(request: pytest.FixtureRequest) -> Implementation:
    return request.param


def against(
    over: Implementation,
    script: Script,
    test: Callable[[Transport, WireServer], Awaitable[None]],
    **options: float,
) -> None:
    """Run `test` with a transport to a server that follows `script`; nothing may stay open."""

    async def main() -> None:
        async with wire.wire_server(script) as server:
            transport = over.open(server.url, **options)
            try:
                await test(transport, server)
            finally:
                await transport.aclose()
            await server.all_closed()

    over.run(main)


# -- what a good reply is


def test_a_request_is_sent_as_given(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        call = Call(b"POST", b"/a%2Fb?x=%20", [(b"host", b"h:1"), (b"x-a", b"1"), (b"x-a", b"2")])
        call.body = b"\x00" * 300_000
        assert await ask(transport, call) == b"ok"
        head, body = server.requests[0]
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /a%2Fb?x=%20 HTTP/1.1"
        fields = [line.lower() for line in lines[1:] if line]
        assert sorted(fields) == sorted(
            [b"host: h:1", b"x-a: 1", b"x-a: 2", b"content-length: 300000"]
        )
        assert body == call.body

    against(over, wire.replies(OK), test)


def test_a_missing_host_is_added_and_an_empty_post_has_a_length(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        await ask(transport, post(b""))
        await ask(transport, post(b"", method=b"GET"))
        assert b"host: 127.0.0.1:%d\r\n" % server.port in server.requests[0][0].lower()
        assert b"content-length: 0\r\n" in server.requests[0][0].lower()
        assert b"content-length" not in server.requests[1][0].lower()

    against(over, wire.replies(OK), test)


def test_a_field_that_would_split_a_request_is_refused_and_nothing_is_sent(
    over: Implementation,
) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        for call in (
            Call(b"GET", b"/ HTTP/1.1\r\nx: y", []),
            Call(b"GET", b"/a b", []),
            Call(b"GET", b"/", [(b"x", b"a\r\nevil: 1")]),
            Call(b"GET", b"/", [(b"x", b"a\nevil: 1")]),
        ):
            with pytest.raises(ValueError):
                await ask(transport, call)
        assert server.requests == []

    against(over, wire.replies(OK), test, connections=1)


GOOD = {
    "content-length": ([OK], b"ok"),
    "chunked": ([CHUNKED + b"1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n"], b"ok"),
    "chunked in pieces": ([CHUNKED, b"2\r\n", b"ok\r", b"\n0\r\n", b"\r\n"], b"ok"),
    "trailers dropped": ([CHUNKED + b"2\r\nok\r\n0\r\nx-t: 1\r\n\r\n"], b"ok"),
    "head in pieces": ([HEAD, b"content-le", b"ngth: 2\r\n", b"\r\n", b"o", b"k"], b"ok"),
    "after 100 and 103": ([b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nlink: x\r\n\r\n", OK], b"ok"),
    "empty": ([HEAD + b"content-length: 0\r\n\r\n"], b""),
    "204": ([b"HTTP/1.1 204 No\r\n\r\n"], b""),
    "304 with a length": ([b"HTTP/1.1 304 Not\r\ncontent-length: 99\r\n\r\n"], b""),
    "gzip left alone": (
        [HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x8b\x00"],
        b"\x1f\x8b\x00",
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_good_reply_is_read_and_its_connection_used_again(
    over: Implementation, case: str
) -> None:
    parts, body = GOOD[case]

    async def test(transport: Transport, server: WireServer) -> None:
        for _ in range(3):
            assert await ask(transport) == body
        assert server.accepted == 1

    against(over, wire.replies(*parts), test)


def test_status_and_fields_arrive_in_order_and_in_lower_case(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        reply = await transport.send(post(), soon())
        await reply.read(10)
        assert reply.status == 503
        assert reply.headers == [
            (b"set-cookie", b"a"),
            (b"x-b", b"\xe9"),
            (b"set-cookie", b"c"),
            (b"content-length", b"2"),
        ]

    head = b"HTTP/1.1 503 Busy\r\nSet-Cookie: a\r\nX-B: \xe9\r\nset-cookie: c\r\n"
    against(over, wire.replies(head + b"Content-Length: 2\r\n\r\nno"), test)


def test_a_reply_to_head_has_no_body_whatever_its_length_says(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        for _ in range(3):
            reply = await transport.send(post(b"", method=b"HEAD"), soon())
            assert (b"content-length", b"7") in reply.headers
            assert await reply.read(10) == b""
        assert server.accepted == 1

    against(over, wire.replies(HEAD + b"content-length: 7\r\n\r\n"), test)


def test_a_body_may_end_with_the_connection(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        assert await ask(transport) == b"all of it"
        assert await ask(transport) == b"all of it"
        assert server.accepted == 2

    against(over, wire.replies(HEAD + b"\r\n", b"all ", b"of it", then_close=True), test)


@pytest.mark.parametrize("head", [HEAD + b"connection: close\r\n", b"HTTP/1.0 200 OK\r\n"])
def test_a_connection_that_the_backend_closes_is_not_used_again(
    over: Implementation, head: bytes
) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        for _ in range(3):
            assert await ask(transport) == b"ok"
        assert server.accepted == 3

    against(over, wire.replies(head + b"content-length: 2\r\n\r\nok"), test)


def test_bytes_after_a_reply_never_become_the_next_reply(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        for _ in range(3):
            assert await ask(transport) == b"ok"
        assert server.accepted == 3

    evil = OK.replace(b"ok", b"NO")
    against(over, wire.replies(OK + evil), test)


# -- streams


def test_parts_of_a_stream_arrive_before_its_end(over: Implementation) -> None:
    go_on = asyncio.Event()

    async def script(one: Wire) -> None:
        await one.request()
        await one.say(CHUNKED + b"5\r\nfirst\r\n")
        await go_on.wait()
        await one.say(b"4\r\nlast\r\n0\r\n\r\n")
        await one.gone()

    async def test(transport: Transport, server: WireServer) -> None:
        reply = await transport.send(post(), soon())
        seen = []
        async for chunk in reply.stream:
            seen.append(chunk)
            go_on.set()
        await reply.stream.aclose()
        assert seen == [b"first", b"last"]

    against(over, script, test)


def test_a_slow_reader_slows_the_backend_and_memory_stays_flat(over: Implementation) -> None:
    sent = 0

    async def script(one: Wire) -> None:
        nonlocal sent
        await one.request()
        await one.say(HEAD + b"content-length: %d\r\n\r\n" % (64 << 20))
        for _ in range(64):
            await one.say(bytes(1 << 20))
            sent += 1
        await one.gone()

    async def test(transport: Transport, server: WireServer) -> None:
        reply = await transport.send(post(), soon())
        # What the backend can get rid of is socket buffers and ours; not the 64 MiB.
        assert await still(lambda: sent) < 24
        size = 0
        async for chunk in reply.stream:
            size += len(chunk)
        assert size == 64 << 20

    against(over, script, test)


def test_closing_a_stream_early_cuts_it_and_frees_the_slot(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        for _ in range(3):
            reply = await transport.send(post(), soon())
            async for _chunk in reply.stream:
                break
            await reply.stream.aclose()
            await reply.stream.aclose()
        await server.all_closed()
        assert server.accepted == 3

    against(over, wire.floods(CHUNKED, b"2\r\nok\r\n"), test, connections=1)


def test_a_reply_above_the_readers_limit_is_cut(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        reply = await transport.send(post(), soon())
        with pytest.raises(BadReply):
            await reply.read(100_000)
        await server.all_closed()

    against(over, wire.floods(CHUNKED, b"400\r\n" + b"x" * 1024 + b"\r\n"), test)


def test_a_stream_that_falls_silent_is_cut(over: Implementation) -> None:
    async def script(one: Wire) -> None:
        await one.request()
        await one.say(EVENTS + b"2\r\nok\r\n")
        await one.gone()

    async def test(transport: Transport, server: WireServer) -> None:
        reply = await transport.send(post(), soon())
        with pytest.raises(BackendError):
            await reply.read(100)
        await server.all_closed()

    against(over, script, test, stream_idle_s=0.05)


@pytest.mark.parametrize("begun", [CHUNKED, CHUNKED + b"1\r\n \r\n"])
def test_a_whole_reply_may_be_silent_for_longer_than_a_stream(
    over: Implementation, begun: bytes
) -> None:
    async def script(one: Wire) -> None:
        await one.request()
        await one.say(begun)
        await asyncio.sleep(0.3)
        await one.say(b"2\r\n{}\r\n0\r\n\r\n")

    async def test(transport: Transport, server: WireServer) -> None:
        reply = await transport.send(post(), soon())
        assert (await reply.read(100)).strip() == b"{}"

    against(over, script, test, stream_idle_s=0.05)


def test_comments_end_the_silence_of_a_stream(over: Implementation) -> None:
    async def script(one: Wire) -> None:
        await one.request()
        await one.say(EVENTS)
        for _ in range(8):
            await asyncio.sleep(0.1)
            await one.say(b"3\r\n:\n\n\r\n")
        await one.say(b"0\r\n\r\n")

    async def test(transport: Transport, server: WireServer) -> None:
        reply = await transport.send(post(), soon())
        assert await reply.read(100) == 8 * b":\n\n"

    against(over, script, test, stream_idle_s=0.4)


# -- what breaks

BROKEN: dict[str, Script] = {
    "closes at once": wire.closes_at_once,
    "closes after the request": wire.closes_after_request,
    "resets": wire.resets,
    "garbage": wire.replies(b"\x16\x03\x01garbage\r\n\r\n"),
    "not http": wire.replies(b"SSH-2.0-x\r\n", then_close=True),
    "half a head": wire.replies(HEAD, then_close=True),
    "short body": wire.replies(HEAD + b"content-length: 9\r\n\r\nok", then_close=True),
    "cut chunk": wire.replies(CHUNKED + b"9\r\nok", then_close=True),
    "no last chunk": wire.replies(CHUNKED + b"2\r\nok\r\n", then_close=True),
    "bad chunk size": wire.replies(CHUNKED + b"zz\r\nok\r\n0\r\n\r\n"),
    "negative chunk": wire.replies(CHUNKED + b"-1\r\nok\r\n0\r\n\r\n"),
    "length and chunked": wire.replies(
        HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    ),
    "differing lengths": wire.replies(
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok", then_close=True
    ),
    "bad length": wire.replies(HEAD + b"content-length: 0x2\r\n\r\nok", then_close=True),
    "negative length": wire.replies(HEAD + b"content-length: -2\r\n\r\nok", then_close=True),
    "status 999": wire.replies(b"HTTP/1.1 999 ?\r\ncontent-length: 2\r\n\r\nok"),
    "status 099": wire.replies(b"HTTP/1.1 099 ?\r\ncontent-length: 2\r\n\r\nok"),
    "unasked 101": wire.replies(
        b"HTTP/1.1 101 Switch\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    ),
    "10,000 fields": wire.replies(HEAD + b"x: y\r\n" * 10_000 + b"content-length: 2\r\n\r\nok"),
    "a field of 200 KB": wire.replies(
        HEAD + b"x: " + b"y" * 200_000 + b"\r\ncontent-length: 2\r\n\r\nok"
    ),
    "an endless field": wire.floods(HEAD + b"x: ", b"y" * 4096),
    "nul in a field": wire.replies(HEAD + b"x: a\x00b\r\ncontent-length: 2\r\n\r\nok"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_reply_is_an_error_that_may_have_run_and_leaks_nothing(
    over: Implementation, case: str
) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        for _ in range(3):  # with one slot: a leak would hang the second
            with pytest.raises(BackendError) as caught:
                await ask(transport)
            assert not isinstance(caught.value, DeadlineExceeded)
            # Only where the close came before the request could be sent it is certainly not run.
            assert caught.value.ran or case == "closes at once"

    against(over, BROKEN[case], test, connections=1)


ENDLESS: dict[str, Script] = {
    "hang": wire.silent,
    "dripped 1xx": wire.drips(b"", b"HTTP/1.1 103 E\r\nlink: x\r\n\r\n", every_s=0.05),
    "dripped head": wire.drips(HEAD, b"x: y\r\n"),
    "dripped body": wire.drips(CHUNKED, b"1\r\nx\r\n"),
    "dripped length": wire.drips(HEAD + b"content-length: 999999\r\n\r\n", b"x"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_the_deadline_binds_the_whole_attempt(over: Implementation, case: str) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        for _ in range(2):
            with pytest.raises(DeadlineExceeded) as caught:
                await ask(transport, seconds=0.15)
            assert caught.value.ran
        await server.all_closed()

    against(over, ENDLESS[case], test, connections=1)


def test_a_refused_connection_has_not_run(over: Implementation) -> None:
    async def main() -> None:
        async with wire.wire_server(wire.silent) as server:
            url = server.url
        transport = over.open(url, connections=1)
        for _ in range(3):
            with pytest.raises(ConnectFailed) as caught:
                await ask(transport)
            assert not caught.value.ran
        await transport.aclose()

    over.run(main)


def test_a_name_that_does_not_resolve_is_a_failed_connection(over: Implementation) -> None:
    async def main() -> None:
        transport = over.open("http://nobody.invalid:1", connections=1)
        with pytest.raises(ConnectFailed):
            await ask(transport)
        await transport.aclose()

    over.run(main)


# -- slots


def test_no_more_connections_are_opened_than_allowed_and_all_calls_come_through(
    over: Implementation,
) -> None:
    most = 0

    async def script(one: Wire) -> None:
        nonlocal most
        while True:
            await one.request()
            most = max(most, one.server.open)
            await asyncio.sleep(0.001)
            await one.say(OK)

    async def test(transport: Transport, server: WireServer) -> None:
        bodies = await asyncio.gather(*(ask(transport) for _ in range(100)))
        assert bodies == [b"ok"] * 100
        assert most == 4
        assert server.accepted == 4

    against(over, script, test, connections=4)


def test_waiting_for_a_slot_ends_with_the_deadline_and_has_not_run(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        first = asyncio.create_task(ask(transport))
        await until(lambda: bool(server.requests))
        with pytest.raises(DeadlineExceeded) as caught:
            await ask(transport, seconds=0.05)
        assert not caught.value.ran
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert len(server.requests) == 1

    against(over, wire.silent, test, connections=1)


def test_a_cancelled_call_gives_its_slot_back_at_once(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        for count in range(1, 4):
            call = asyncio.create_task(ask(transport))
            await until(lambda count=count: len(server.requests) >= count)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await server.all_closed()

    against(over, wire.silent, test, connections=1)


def test_a_cancellation_tells_whether_anything_was_sent(over: Implementation) -> None:
    unsent: list[bool] = []

    async def noting(transport: Transport) -> None:
        try:
            await ask(transport)
        except asyncio.CancelledError as exc:
            unsent.append(is_unsent(exc))
            raise

    async def test(transport: Transport, server: WireServer) -> None:
        first = asyncio.create_task(noting(transport))
        await until(lambda: bool(server.requests))
        second = asyncio.create_task(noting(transport))  # waits for the slot of the first
        await asyncio.sleep(0.01)
        for call in (second, first):
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert unsent == [True, False]

    against(over, wire.silent, test, connections=1)


@pytest.mark.parametrize("seed", range(3))
def test_cancelling_at_any_moment_loses_no_slot(over: Implementation, seed: int) -> None:
    rng = random.Random(seed)

    async def script(one: Wire) -> None:
        while True:
            await one.request()
            await asyncio.sleep(rng.choice((0, 0, 0.001, 0.003)))
            await one.say(CHUNKED + b"2\r\nok\r\n")
            await asyncio.sleep(rng.choice((0, 0, 0.001)))
            await one.say(b"0\r\n\r\n")
            if rng.random() < 0.05:
                return

    async def hasty(transport: Transport) -> None:
        try:
            async with asyncio.timeout(rng.choice((0, 0.001, 0.002, 0.004, 1))):
                await ask(transport)
        except (TimeoutError, BackendError):
            pass

    async def test(transport: Transport, server: WireServer) -> None:
        for _ in range(12):
            await asyncio.gather(*(hasty(transport) for _ in range(50)))
        await until(lambda: server.open <= 5)  # the server may hear of a close a moment later
        done = await asyncio.gather(*(patient(transport) for _ in range(20)))
        assert done == [b"ok"] * 20

    async def patient(transport: Transport) -> bytes:
        async with asyncio.timeout(STUCK_S):
            while True:
                try:
                    return await ask(transport)
                except BadReply:  # the script closes now and then
                    pass

    against(over, script, test, connections=5)


def test_a_connection_closed_while_idle_is_not_an_error(over: Implementation) -> None:
    async def script(one: Wire) -> None:
        await one.request()
        await one.say(OK)

    async def test(transport: Transport, server: WireServer) -> None:
        for _ in range(20):
            assert await ask(transport) == b"ok"

    against(over, script, test, connections=2)


def test_closing_the_transport_fails_calls_in_progress(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        calls = [asyncio.create_task(ask(transport)) for _ in range(3)]
        await until(lambda: bool(server.requests))
        await transport.aclose()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, BackendError) for result in results)

    against(over, wire.silent, test, connections=1)


def test_a_head_is_seen_before_its_body(over: Implementation) -> None:
    async def test(transport: Transport, server: WireServer) -> None:
        reply: HttpReply = await transport.send(post(), soon())
        assert reply.status == 200
        await reply.stream.aclose()

    against(over, wire.drips(CHUNKED, b"1\r\nx\r\n"), test)
