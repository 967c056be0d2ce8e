"""Events are split from a stream in any pieces without changing a byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.backends.protocols import sse
from tollway.backends.protocols.sse import LARGE_BYTES, Event, Events

PIECES = st.sampled_from(
    [b"data: ", b"data:", b"data", b": ", b"a", b"\n", b"\r", b"\r\n", b"\n\n"]
)


def rest_of(events: Events) -> bytes:
    last = events.close()
    return b"" if last is None else last.raw


@given(st.lists(st.lists(PIECES, max_size=8).map(b"".join), max_size=6))
def test_an_event_is_the_same_however_the_stream_is_cut(chunks: list[bytes]) -> None:
    stream = b"".join(chunks)
    as_cut, at_once = Events(), Events()
    cut = [event for chunk in chunks for event in as_cut.feed(chunk)]
    whole = at_once.feed(stream)
    assert b"".join(event.raw for event in cut) + rest_of(as_cut) == stream
    assert b"".join(event.raw for event in whole) + rest_of(at_once) == stream
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
        (b"\xef\xbb\xbfdata: a\n\n", b"a"),
    ],
)
def test_the_data_of_an_event_is_read(raw: bytes, data: bytes | None) -> None:
    (event,) = Events().feed(raw)
    assert (event.raw, event.data) == (raw, data)


def test_a_last_event_without_its_blank_line_is_left_at_the_end() -> None:
    events = Events()
    assert events.feed(b"data: a\n\ndata: b\n") == [Event(b"data: a\n\n", b"a")]
    assert events.waiting == len(b"data: b\n")
    assert events.close() == Event(b"data: b\n", b"b")
    assert (events.waiting, events.close()) == (0, None)


def test_each_byte_of_a_large_event_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = 0
    find = sse._BLANK.search

    class Counting:
        def search(self, text: bytes, at: int) -> object:
            nonlocal searched
            searched += len(text) - at
            return find(text, at)

    monkeypatch.setattr(sse, "_BLANK", Counting())
    events, chunk = Events(), b"x" * 1000
    events.feed(b"data: ")
    for _ in range(1000):
        assert events.feed(chunk) == []
    (event,) = events.feed(b"\n\n")
    assert event.data == chunk * 1000
    assert searched < 1_010_000


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\n\n", b"\n\r\n"])
def test_a_blank_line_is_found_however_it_is_cut(blank: bytes) -> None:
    for cut in range(1, len(blank)):
        events = Events()
        events.feed(b"data: a" + blank[:cut])
        (event, *_) = events.feed(blank[cut:] + b"data: b")
        assert event == Event(b"data: a" + blank, b"a")


def test_what_is_only_base64_is_left_out_of_a_large_events_data_and_not_of_the_event() -> None:
    events, chunk = Events(), b"QUJD" * 1000
    parts = [b'data: {"image": "', *[chunk] * 1000, b'", "usage": 1}\n', b"\n"]
    (event,) = [event for part in parts for event in events.feed(part)]
    assert event.raw == b"".join(parts)
    assert event.data is not None
    assert len(event.data) < LARGE_BYTES + 2 * len(chunk)
    assert event.data.startswith(b'{"image": "QUJD')
    assert event.data.endswith(b'QUJD", "usage": 1}')
    assert events.feed(b"data: next\n\n") == [Event(b"data: next\n\n", b"next")]


def test_text_in_a_large_event_is_all_read() -> None:
    events, chunk = Events(), b"a word, " * 1000
    parts = [b"data: ", *[chunk] * 200]
    for part in parts:
        assert events.feed(part) == []
    event = events.close()
    assert event is not None
    assert event.data == chunk * 200
