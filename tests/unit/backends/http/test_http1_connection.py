"""Reading replies without a socket: in any pieces, and with any bytes."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http1_replies import REPLIES, cut, outcome


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
