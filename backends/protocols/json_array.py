"""The elements of a JSON array, split from a stream of bytes without changing any of them.

Gemini streams an array whose elements are what others send as events. An element's raw bytes begin
where the element before it ended, so that they are passed on in one piece. Only the marks that may
end an element are looked at, and each byte is searched once, however many chunks it arrives in.
"""

import re

from tollway.backends.protocols.sse import Event

_MARKS = re.compile(rb'["{}]')
_IN_TEXT = re.compile(rb'["\\]')
_SEPARATORS = b" \t\r\n,["


class Elements:
    """Splits a streamed array into its elements, which are objects."""

    # The mutable state is the bytes since the last whole element, how many of them were searched,
    # how many objects are open there, and whether a text is.
    def __init__(self) -> None:
        self._rest = bytearray()
        self._at = 0
        self._depth = 0
        self._in_text = False

    @property
    def waiting(self) -> int:
        """How many bytes of an unfinished element are buffered."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the elements that `chunk` completes."""
        rest = self._rest
        rest += chunk
        found: list[Event] = []
        begun, at = 0, self._at
        while (mark := (_IN_TEXT if self._in_text else _MARKS).search(rest, at)) is not None:
            at = mark.end()
            sign = mark.group()
            if sign == b"\\":
                at += 1  # whatever follows, even in the next chunk
            elif sign == b'"':
                self._in_text = not self._in_text
            elif sign == b"{":
                self._depth += 1
            elif self._depth == 1:
                self._depth = 0
                raw = bytes(rest[begun:at])
                found.append(Event(raw, raw.lstrip(_SEPARATORS)))
                begun = at
            else:
                self._depth -= 1
        self._at = max(at, len(rest)) - begun
        if begun:
            del rest[:begun]
        return found

    def close(self) -> Event | None:
        """Return what is left when the stream ends: the end of the array."""
        rest, self._rest = bytes(self._rest), bytearray()
        data = None if not rest.strip(b" \t\r\n,[]") else rest.lstrip(_SEPARATORS)
        return Event(rest, data) if rest else None
