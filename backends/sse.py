"""Server-sent events, cut out of a stream of bytes without changing one of them.

Source: WHATWG HTML, 9.2.6. Lines end with CR LF, LF or CR; a blank line ends an event; its `data`
lines are joined by LF. What was surprising: a chunk may end between CR and LF, a server may write a
byte order mark first, and a body may end without the last blank line.

How large an event may become is for the reader to bound, by `waiting`. Each byte is searched once,
however many chunks an event arrives in.
"""

import re

from backends.types import record

_BLANK = re.compile(rb"\r\n\r\n|\r\n\n|\n\r\n|\n\n|\r\r(?!\n)")
_BLANK_BYTES = 4  # of the longest of these
_LINE = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@record
class Event:
    """An event as it came, blank line included, and its data (None where it has none)."""

    raw: bytes
    data: bytes | None


class Events:
    """Cuts a stream into events."""

    # The mutable state is the bytes since the last whole event.
    def __init__(self) -> None:
        self._rest = bytearray()

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
        searched = max(0, len(rest) - _BLANK_BYTES + 1)  # a blank line may span two chunks
        rest += chunk
        events, at = _cut(rest, searched)
        del rest[:at]
        return events

    def close(self) -> Event | None:
        """Return what is left when the stream ends: an event without its blank line."""
        rest, self._rest = bytes(self._rest), bytearray()
        return Event(rest, _data(rest)) if rest else None


def _cut(text: bytes | bytearray, searched: int) -> tuple[list[Event], int]:
    """Return the whole events of `text`, and where they end.

    No blank line ends before `searched`.
    """
    events: list[Event] = []
    at = 0
    with memoryview(text) as view:
        while (blank := _BLANK.search(text, max(at, searched))) is not None:
            raw = bytes(view[at : blank.end()])
            events.append(Event(raw, _data(raw)))
            at = blank.end()
    return events, at


def _only(chunk: bytes) -> bytes | None:
    """Return the data of a chunk that is one event of one line; None where it is another thing.

    Nearly every chunk is one, and this takes a fifth of the time of reading it in general.
    """
    end = len(chunk) - 2
    if chunk[:6] != b"data: " or chunk.find(b"\n") != end or chunk[end:] != b"\n\n":
        return None
    return None if b"\r" in chunk else chunk[6:end]


def _data(raw: bytes) -> bytes | None:
    lines = []
    for line in _LINE.split(raw.removeprefix(_BYTE_ORDER_MARK)):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None
