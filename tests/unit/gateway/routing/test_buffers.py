"""The memory for unfinished events is bounded per worker and per tenant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.gateway.routing.bodies.buffers import FREE_BYTES, BufferFull, Buffers, RequestMemory

EVENT = 1 << 20
ALL = 4 << 20


def buffers() -> Buffers:
    return Buffers(event_bytes_max=EVENT, bytes_max=ALL)


def test_a_small_unfinished_event_is_not_counted() -> None:
    one = buffers()
    one.open("a").hold(FREE_BYTES)
    assert one.held == 0


def test_an_event_above_its_limit_is_refused_by_name_of_the_setting() -> None:
    with pytest.raises(ValueError, match=r"more than 1048576 bytes.*max_event_bytes"):
        buffers().open("a").hold(EVENT + 1)


def test_one_tenant_gets_half_and_the_others_streams_go_on() -> None:
    one = buffers()
    one.open("a").hold(EVENT)
    one.open("a").hold(EVENT)
    with pytest.raises(ValueError, match="tenant 'a'"):
        one.open("a").hold(FREE_BYTES + 1)
    one.open("b").hold(EVENT)
    one.open("b").hold(EVENT)
    assert one.held == ALL
    with pytest.raises(ValueError, match="all requests"):
        one.open("c").hold(EVENT)


def test_a_tenant_always_has_room_for_one_whole_event() -> None:
    one = Buffers(event_bytes_max=EVENT, bytes_max=EVENT)
    one.open("a").hold(EVENT)
    assert one.held_by("a") == EVENT


def test_a_refused_stream_keeps_what_it_held_until_it_is_closed_and_gives_it_back_once() -> None:
    one = buffers()
    stream = one.open("a")
    stream.hold(EVENT // 2)
    with pytest.raises(ValueError, match="more than"):
        stream.hold(2 * EVENT)
    assert one.held == EVENT // 2
    stream.close()
    stream.close()
    assert (one.held, one.held_by("a")) == (0, 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.integers(0, 4), st.integers(0, EVENT + 9), st.booleans()
        )
    )
)
def test_what_is_held_is_the_sum_of_the_streams_and_within_its_bounds(
    steps: list[tuple[str, int, int, bool]],
) -> None:
    one = buffers()
    streams = {(tenant, n): one.open(tenant) for tenant in "ab" for n in range(5)}
    held = dict.fromkeys(streams, 0)
    for tenant, n, waiting, closes in steps:
        try:
            if closes:
                streams[tenant, n].close()
                held[tenant, n] = 0
            else:
                streams[tenant, n].hold(waiting)
                held[tenant, n] = waiting if waiting > FREE_BYTES else 0
        except ValueError:
            pass  # refused: nothing is counted
        assert one.held == sum(held.values()) <= ALL
        for name in "ab":
            of_tenant = sum(size for (owner, _), size in held.items() if owner == name)
            assert one.held_by(name) == of_tenant <= one.tenant_bytes_max


def test_a_request_holds_its_body_and_its_replies_until_it_ends() -> None:
    one = buffers()
    request = RequestMemory(one, "a")
    request.add(EVENT)
    request.add(EVENT)
    assert one.held_by("a") == 2 * EVENT
    other = RequestMemory(one, "a")
    with pytest.raises(BufferFull, match="tenant 'a'"):
        other.add(EVENT)
    other.close()
    assert one.held_by("a") == 2 * EVENT
    RequestMemory(one, "b").add(2 * EVENT)
    request.close()
    request.close()
    assert (one.held, one.held_by("a")) == (2 * EVENT, 0)
