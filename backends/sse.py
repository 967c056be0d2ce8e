"""Server-sent events, cut out of a stream of bytes without changing one of them.

Source: WHATWG HTML, 9.2.6. Lines end with CR LF, LF or CR; a blank line ends an event; its `data`
lines are joined by LF. What was surprising: a chunk may end between CR and LF.
"""

import re

from backends.types import record

EVENT_BYTES_MAX = 1 << 20
"""Of one event: a chunk of tokens is some hundred bytes; an image in one is not streamed here."""

_BLANK = re.compile(rb"\r\n\r\n|\r\n\n|\n\r\n|\n\n|\r\r(?!\n)")
_LINE = re.compile(rb"\r\n|\n|\r")


@record
class Event:
    """An event as it came, blank line included, and its data (None where it has none)."""

    raw: bytes
    data: bytes | None


class Events:
    """Cuts a stream into events."""

    # The mutable state is the bytes since the last whole event.
    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes; ValueError for one without an end."""
        if not self._rest and (data := _only(chunk)) is not None:
            return [Event(chunk, data)]
        rest = self._rest + chunk
        events: list[Event] = []
        at = 0
        while (blank := _BLANK.search(rest, at)) is not None:
            raw = rest[at : blank.end()]
            events.append(Event(raw, _data(raw)))
            at = blank.end()
        self._rest = rest[at:]
        if len(self._rest) > EVENT_BYTES_MAX:
            raise ValueError(f"an event of more than {EVENT_BYTES_MAX} bytes")
        return events

    def close(self) -> bytes:
        """Return what is left when the stream ends: an event that was cut, to be passed on too."""
        rest, self._rest = self._rest, b""
        return rest


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
    for line in _LINE.split(raw):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None
