"""Events are cut out of a stream without changing a byte, however it arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.sse import EVENT_BYTES_MAX, Events

PIECES = st.sampled_from(
    [b"data: ", b"data:", b"data", b": ", b"a", b"\n", b"\r", b"\r\n", b"\n\n"]
)


@given(st.lists(st.lists(PIECES, max_size=8).map(b"".join), max_size=6))
def test_an_event_is_the_same_however_the_stream_is_cut(chunks: list[bytes]) -> None:
    stream = b"".join(chunks)
    as_cut, at_once = Events(), Events()
    cut = [event for chunk in chunks for event in as_cut.feed(chunk)]
    whole = at_once.feed(stream)
    assert b"".join(event.raw for event in cut) + as_cut.close() == stream
    assert b"".join(event.raw for event in whole) + at_once.close() == stream
    # A CR at the end of a chunk may be half of a CR LF: then an event waits for what follows.
    if b"\r" not in stream:
        assert cut == whole


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data: \n\n", b""),
        (b"data: a\rb\n\n", b"a"),
        (b"data: a\r\n\r\n", b"a"),
        (b"event: x\ndata: a\ndata: b\n\n", b"a\nb"),
        (b": a comment\n\n", None),
        (b"database: a\n\n", None),
    ],
)
def test_the_data_of_an_event_is_read(raw: bytes, data: bytes | None) -> None:
    (event,) = Events().feed(raw)
    assert (event.raw, event.data) == (raw, data)


def test_an_event_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="more than"):
        Events().feed(b"data: " + b"x" * EVENT_BYTES_MAX)
