"""Reading replies without a socket: in any pieces, and with any bytes."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http1_replies import REPLIES, Owner, Wire, cut, outcome
from tollway.backends.errors import BackendError
from tollway.backends.http.connection import Connection, StaleConnection
from tollway.backends.http.request_head import request_head
from tollway.backends.types import Call


@pytest.mark.parametrize("method", [b"POST", b"HEAD"])
@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_means_the_same_byte_by_byte(reply: bytes, method: bytes) -> None:
    whole = asyncio.run(outcome([reply], method))
    drops = asyncio.run(outcome([reply[i : i + 1] for i in range(len(reply))], method))
    # Only whether bytes after a whole reply are noticed at once, or when they come, may differ.
    assert drops[:-1] == whole[:-1]


@settings(max_examples=300)
@given(st.sampled_from(REPLIES), st.lists(st.integers(0, 500), max_size=6))
def test_a_reply_means_the_same_however_it_is_cut(reply: bytes, places: list[int]) -> None:
    async def both() -> None:
        assert (await outcome(cut(reply, places)))[:-1] == (await outcome([reply]))[:-1]

    asyncio.run(both())


@settings(max_examples=500)
@given(
    st.sampled_from(REPLIES),
    st.lists(st.tuples(st.integers(0, 500), st.binary(max_size=4)), max_size=4),
    st.lists(st.integers(0, 500), max_size=3),
)
def test_no_bytes_break_more_than_their_own_call(
    reply: bytes, edits: list[tuple[int, bytes]], places: list[int]
) -> None:
    for place, new in edits:
        at = place % (len(reply) + 1)
        reply = reply[:at] + new + reply[at + len(new) :]
    asyncio.run(outcome(cut(reply, places)))


async def two_in_a_turn() -> tuple[Connection, Wire, Connection, Wire]:
    """Return two connections that have carried a call each, in one iteration of the loop."""
    found = []
    for _ in range(2):
        wire = Wire()
        connection = Connection(Owner(), asyncio.get_running_loop(), 60)
        connection.connection_made(wire)
        found += [connection, wire]
    one, _, other, _ = found
    for connection in (one, other):
        connection.send(HEAD, CALL, 1e12)
    await asyncio.sleep(0)
    for connection in (one, other):
        connection.data_received(REPLIES[0])
    return tuple(found)


CALL = Call(b"POST", b"/", [], b"{}")
HEAD = request_head(CALL, b"h")


@pytest.mark.parametrize("came", [b"HTTP/1.1 408 Late\r\ncontent-length: 0\r\n\r\n", b""])
def test_a_call_that_was_not_written_yet_is_known_not_to_have_arrived(came: bytes) -> None:
    async def test() -> BackendError | None:
        first, _, connection, wire = await two_in_a_turn()
        first.send(HEAD, CALL, 1e12)
        exchange = connection.send(HEAD, CALL, 1e12)
        if came:
            connection.data_received(came)
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert wire.written == HEAD + b"{}"  # the call before
        return exchange.error

    error = asyncio.run(test())
    assert isinstance(error, StaleConnection) and error.unheard == len(HEAD) + 2


def test_a_call_that_is_abandoned_in_its_own_turn_is_never_written() -> None:
    async def test() -> None:
        first, _, connection, wire = await two_in_a_turn()
        first.send(HEAD, CALL, 1e12)
        connection.send(HEAD, CALL, 1e12)
        connection.abandon()
        await asyncio.sleep(0)
        assert wire.written == HEAD + b"{}" and wire.closed

    asyncio.run(test())
