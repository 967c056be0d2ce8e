"""Server-sent events, split from a stream of bytes without changing any of them.

Source: WHATWG HTML, 9.2.6. Lines end with CR LF, LF or CR; a blank line ends an event; its `data`
lines are joined by LF. Surprises: a chunk may end between CR and LF, a server may write a byte
order mark first, and a body may end without the last blank line.

The reader must bound the size of an event, by `waiting`. Each byte is searched once, however many
chunks an event arrives in. A large chunk is split in pieces, and a large event's JSON is read in
slices (`in_slices`), because reading it at once would block all other requests: 1 MiB of empty
lists for 90 ms. The data of an event above LARGE_BYTES leaves out chunks that are nothing but
base64: they lie within one string, an image. The raw event has every byte.
"""

import re
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from tollway.backends.documents import DEPTH_MAX
from tollway.backends.sliced_json import LARGE_BYTES as LARGE_JSON_BYTES
from tollway.backends.sliced_json import slices
from tollway.backends.types import Document
from tollway.record import record

_BLANK = re.compile(rb"\r\n\r\n|\r\n\n|\n\r\n|\n\n|\r\r(?!\n)")
_BLANK_BYTES = 4  # of the longest of these
LARGE_BYTES = 1 << 20
PIECE_BYTES = 4 << 10  # of a chunk; full of the shortest events, it takes some 4 ms
SLICE_EVENTS = 256  # 1 ms
READ_BYTES_MAX = 4 << 20  # of an event's data, without what is only base64
WHOLE_BYTES_MAX = 256 << 10  # of a stream that nobody requested, and that is read at once
LINES_MAX = 1 << 12  # of an event whose data is read: 1 ms to split
_RUN_BYTES = 1 << 10  # no field's name, number or literal is as long
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_"
_LINE = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@record
class Event:
    """An event as it came, blank line included, and its data.

    The data is None if it has none, and empty if it has too many lines to be read.
    """

    raw: bytes
    data: bytes | None


Relay = Callable[[Event, Document | None], bytes]
"""Reads an event, of which a large document was read already; returns what goes to the client."""

InSlices = Generator[None, None, bytes]
"""Yields after each slice of some milliseconds at most; returns what goes to the client."""


class Splitter(Protocol):
    """Splits a stream into events, or into what it has in their place."""

    @property
    def waiting(self) -> int:
        """How many bytes of an unfinished event are buffered."""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes."""

    def close(self) -> Event | None:
        """Return what is left when the stream ends."""


class Events:
    """Splits a stream into events."""

    # The mutable state is the bytes since the last whole event, and which of them are left out of
    # its data: (from, to) of each run.
    def __init__(self) -> None:
        self._rest = bytearray()
        self._runs: list[tuple[int, int]] = []

    @property
    def waiting(self) -> int:
        """How many bytes of an unfinished event are buffered."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes."""
        rest = self._rest
        if not rest:
            if (data := _only(chunk)) is not None:
                return [Event(chunk, data)]
            events, at = _cut(chunk, 0)
            rest += chunk[at:]
            return events
        if b"\n" not in chunk and b"\r" not in chunk and rest[-1:] != b"\r":
            self._lengthen(chunk)
            return []
        searched = max(0, len(rest) - _BLANK_BYTES + 1)  # a blank line may span two chunks
        rest += chunk
        events, at = _cut(rest, searched, self._runs)
        if at:
            self._runs = []
            del rest[:at]
        return events

    def _lengthen(self, chunk: bytes) -> None:
        """Buffer a chunk that ends no line."""
        at, size = len(self._rest), len(chunk)
        self._rest += chunk
        if at < LARGE_BYTES or size < _RUN_BYTES or chunk.translate(None, _BASE64):
            return
        if self._runs and self._runs[-1][1] == at:
            at, _ = self._runs.pop()
        self._runs.append((at, len(self._rest)))

    def close(self) -> Event | None:
        """Return what is left when the stream ends: an event without its blank line."""
        rest, runs = bytes(self._rest), self._runs
        self._rest, self._runs = bytearray(), []
        return Event(rest, _data(_without(rest, runs))) if rest else None


def is_small(chunk: bytes, waiting: int) -> bool:
    """Return whether a chunk can be read at once, after `waiting` bytes of an unfinished event."""
    return len(chunk) <= PIECE_BYTES and waiting <= LARGE_JSON_BYTES


def in_slices(events: Splitter, chunk: bytes, relay: Relay) -> InSlices:
    """Split a chunk, and relay its events."""
    out = []
    for at in range(0, len(chunk), PIECE_BYTES):
        if at:
            yield
        for event in events.feed(chunk[at : at + PIECE_BYTES]):
            out.append((yield from _relayed(event, relay)))
            if not len(out) % SLICE_EVENTS:
                yield
    return b"".join(out)


def rest_in_slices(events: Splitter, relay: Relay) -> InSlices:
    """Relay what is left when the stream ends."""
    last = events.close()
    return b"" if last is None else (yield from _relayed(last, relay))


def _relayed(event: Event, relay: Relay) -> InSlices:
    data = event.data
    if data is None or not LARGE_JSON_BYTES < len(data) <= READ_BYTES_MAX:
        return relay(event, None)
    try:
        document = yield from slices(data, DEPTH_MAX)
    except ValueError as exc:
        document = Document(fault=str(exc))
    return relay(event, document)


def _cut(
    text: bytes | bytearray, searched: int, runs: Sequence[tuple[int, int]] = ()
) -> tuple[list[Event], int]:
    """Return the whole events of `text`, and where they end.

    No blank line ends before `searched`; `runs` are left out of the first event's data.
    """
    events: list[Event] = []
    at = 0
    if not (runs or searched) and b"\r" not in text:  # several events that came in one read
        while (end := text.find(b"\n\n", at)) >= 0:
            raw = bytes(text[at : end + 2])
            data = _only(raw)
            events.append(Event(raw, _data(raw) if data is None else data))
            at = end + 2
        return events, at
    with memoryview(text) as view:
        while (blank := _BLANK.search(text, max(at, searched))) is not None:
            raw = bytes(view[at : blank.end()])
            events.append(Event(raw, _data(raw if at else _without(raw, runs))))
            at = blank.end()
    return events, at


def _without(raw: bytes, runs: Sequence[tuple[int, int]]) -> bytes:
    """Return an event without some runs of its bytes."""
    if not runs:
        return raw
    ends = [0, *[end for _, end in runs]]
    begins = [*[begin for begin, _ in runs], len(raw)]
    return b"".join([raw[end:begin] for end, begin in zip(ends, begins, strict=True)])


def _only(chunk: bytes) -> bytes | None:
    """Return the data of a chunk that is one event of one line; None otherwise.

    Nearly every chunk is one, and this takes a fifth of the time of the general reader.
    """
    end = len(chunk) - 2
    if chunk[:6] != b"data: " or chunk.find(b"\n") != end or chunk[end:] != b"\n\n":
        return None
    return None if b"\r" in chunk else chunk[6:end]


def _data(raw: bytes) -> bytes | None:
    if len(raw) > LINES_MAX and raw.count(b"\n") + raw.count(b"\r") > LINES_MAX:
        return b""
    lines = []
    text = raw.removeprefix(_BYTE_ORDER_MARK)
    for line in text.split(b"\n") if b"\r" not in text else _LINE.split(text):
        if line[:6] == b"data: ":
            lines.append(line[6:])
        elif line[:5] == b"data:":
            lines.append(line[5:])
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None
