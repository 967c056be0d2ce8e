"""Reads a large JSON document in slices, so that the event loop serves others in between.

Theory of operation. orjson reads 16 MiB in 30 ms (one text) to 900 ms (empty lists), holds the
interpreter's lock meanwhile, and what it builds takes up to twenty times as much memory. So a
document is read by a generator that yields after each slice of some milliseconds at most:

    window    up to WINDOW bytes from the current position; a scan (0.2 ms of numpy, whatever the
              bytes are) finds the last comma in it between two elements of the current list or
              object, and orjson reads up to there
    descent   if the first element is longer than a window, the generator descends into it
    text      is read window by window, cut between characters and escapes

What is built is limited to VALUES_MAX. A list or object that does not fit is checked, but not
kept: `UNREAD` takes its place. So does a list with such an element, because later elements would
be found at wrong places. What is read is what orjson would read.
"""

import re
from collections.abc import Generator
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from tollway.backends.types import Document

LARGE_BYTES = 32 << 10
"""Larger documents are read in slices; orjson reads smaller ones in 2 ms at most."""

WINDOW = 16 << 10
TEXT_WINDOW = 64 << 10
CONTAINER = 32  # values: a list or an object takes as much memory as so many small numbers
NAMES_DEPTH = 2  # of a document: it is noted if an object down to there has a name twice
VALUES_MAX = 1 << 19
"""Values that are kept: numbers, texts and members; a list or an object counts as 32 more. That is
some 15,000 messages, or half a million numbers, in at most 30 MB beside the texts.
"""

_SPACE = re.compile(rb"[ \t\n\r]*+")
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]++")
_TEXT = re.compile(
    rb'(?:[^"\\]++|\\["\\/bfnrt]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}'
    rb"|\\u(?![dD][89abAB])[0-9a-fA-F]{4})*+"
)
_QUOTE, _COMMA, _COLON, _BACKSLASH = b'",:\\'
_CLOSING = {b"[": b"]", b"{": b"}"}
_STEP = np.zeros(256, np.int8)
_STEP[list(b"[{")], _STEP[list(b"]}")] = 1, -1

_CONTAINERS = frozenset((dict, list))

Bytes = NDArray[np.uint8]


class Unread:
    """A list or an object of a request or a reply that is too large to be kept."""

    def __repr__(self) -> str:
        return f"more than {VALUES_MAX} values"


UNREAD: Final = Unread()

Part = Generator[None, None, Any]
Slices = Generator[None, None, Document]


def slices(body: bytes, depth_max: int) -> Slices:
    """Yield after each slice; return the document. ValueError if it is not valid JSON.

    It has `depth_max` levels at most.
    """
    return _Reader(body, depth_max).document()


class _Reader:
    """One document as it is read."""

    # The mutable state is the position, how many more values may be kept, whether all were,
    # whether a name was repeated, and where the members of the outermost object lie.
    __slots__ = ("_at", "_body", "_depth_max", "_is_whole", "_left", "_pieces", "_repeats")

    def __init__(self, body: bytes, depth_max: int) -> None:
        self._body = body
        self._depth_max = depth_max
        self._at = 0
        self._left = VALUES_MAX
        self._is_whole = True
        self._repeats = False
        self._pieces: list[tuple[int, int, str | None, int]] = []

    def document(self) -> Slices:
        """Read the document."""
        yield from self._space()
        value = yield from self._value(1)
        yield from self._space()
        if self._at != len(self._body):
            raise self._wrong("the end of the document")
        return Document(value, is_whole=self._is_whole, repeats=self._repeats, pieces=self._pieces)

    def _value(self, depth: int) -> Part:
        first = self._next
        if first in _CLOSING:
            return (yield from self._container(depth))
        if first == b'"':
            return (yield from self._text())
        scalar = _SCALAR.match(self._body, self._at, self._at + WINDOW)
        if scalar is None:
            raise self._wrong("a value")
        self._at = scalar.end()
        return orjson.loads(scalar[0])

    def _container(self, depth: int) -> Part:
        """Read a list or an object; return UNREAD if it does not fit."""
        body, before = self._body, self._left
        opening = self._next
        closing, is_list = _CLOSING[opening], opening == b"["
        kept: Any = [] if is_list else {}
        pieces = self._pieces if depth == 1 and not is_list else []
        if depth > self._depth_max:
            raise ValueError(f"nested more than {self._depth_max} levels deep")
        fits = self._take(CONTAINER)
        self._at += 1
        yield from self._space()
        if self._next == closing:
            self._at += 1
            return kept if fits else self._unread(before)
        while True:
            cut, weight, is_end, names = self._boundary(depth)
            if cut is not None:
                part = orjson.loads(b"%b%b%b" % (opening, body[self._at : cut], closing))
                if not part:
                    raise self._wrong("a value")
                fits = fits and self._take(weight)
                self._repeats |= names > 0 and names != _names(part, depth)
                pieces.append((self._at, cut, None, 0))
                self._at = cut + 1
                if is_end and body[cut : cut + 1] != closing:
                    raise self._wrong(f"{closing.decode()!r}")
                yield
            else:
                part, fits = yield from self._long(depth, fits, is_list=is_list)
                yield from self._space()
                mark = self._next
                if mark not in (b",", closing):
                    raise self._wrong(f"',' or {closing.decode()!r}")
                is_end = mark == closing
                self._at += 1
            kept = self._joined(kept, part, depth) if fits else None
            if is_end:
                break
        return self._unread(before) if kept is None else kept

    def _joined(self, kept: Any, part: Any, depth: int) -> Any:
        """Return what is kept of a list or an object with one more part."""
        if type(part) is list:
            kept += part
        else:
            if depth <= NAMES_DEPTH:
                # Of two views the shorter one is iterated; of a view and a dict, the dict.
                self._repeats |= not part.keys().isdisjoint(kept.keys())
            kept.update(part)
        return kept

    def _long(self, depth: int, fits: bool, *, is_list: bool) -> Part:
        """Read one element or member that is longer than a window, as (part, whether it fits)."""
        yield from self._space()
        if is_list:
            value = yield from self._value(depth + 1)
            return [value], fits and value is not UNREAD and self._take(1)
        if self._next != b'"':
            raise self._wrong("a name")
        start = self._at
        name = yield from self._text()
        yield from self._space()
        if self._next != b":":
            raise self._wrong("':'")
        self._at += 1
        yield from self._space()
        at = self._at
        value = yield from self._value(depth + 1)
        if depth == 1:
            self._pieces.append((start, self._at, name, at))
        return {name: value}, fits and self._take(1)

    def _boundary(self, depth: int) -> tuple[int | None, int, bool, int]:
        """Return (the last boundary in the window, the values before it, whether all end there).

        None if the first element is longer than the window. The last item is the number of names
        before the boundary, down to NAMES_DEPTH.
        """
        window = np.frombuffer(self._body[self._at : self._at + WINDOW], np.uint8)
        is_outside = _outside(window)
        step = _STEP[window] * is_outside
        level = np.cumsum(step, dtype=np.int32)
        is_end = bool(len(level)) and int(level.min()) < 0
        if is_end:
            cut = int(np.argmax(level < 0))
            commas = (window[:cut] == _COMMA) & is_outside[:cut]
        else:
            commas = (window == _COMMA) & is_outside
            ends = np.flatnonzero(commas & (level == 0))
            if not len(ends):
                return None, 0, False, 0
            cut = int(ends[-1])
        if cut and depth + int(level[:cut].max()) > self._depth_max:
            raise ValueError(f"nested more than {self._depth_max} levels deep")
        opened = int(np.count_nonzero(step[:cut] > 0))
        weight = int(np.count_nonzero(commas[:cut])) + CONTAINER * opened + 1
        names = 0
        if depth <= NAMES_DEPTH:
            colons = (window[:cut] == _COLON) & is_outside[:cut]
            names = int(np.count_nonzero(colons & (level[:cut] <= NAMES_DEPTH - depth)))
        return self._at + cut, weight, is_end, names

    def _text(self) -> Part:
        """Read a text."""
        body, start = self._body, self._at + 1
        parts: list[str] = []
        while True:
            match = _TEXT.match(body, start, start + TEXT_WINDOW)
            assert match is not None, "it matches nothing too"
            end = match.end()
            if end < len(body) and body[end] != _QUOTE:
                while end > start and body[end] & 0xC0 == 0x80:  # within a character
                    end -= 1
                if end == start:
                    raise self._wrong("a text", start)
            parts.append(orjson.loads(b'"%b"' % body[start:end]))
            start = end
            if body[end : end + 1] == b'"':
                self._at = end + 1
                return parts[0] if len(parts) == 1 else "".join(parts)
            if end == len(body):
                raise self._wrong("the end of a text", end)
            yield

    def _space(self) -> Generator[None, None, None]:
        while True:
            match = _SPACE.match(self._body, self._at, self._at + TEXT_WINDOW)
            assert match is not None, "it matches nothing too"
            is_more = match.end() == self._at + TEXT_WINDOW
            self._at = match.end()
            if not is_more:
                return
            yield

    def _unread(self, left: int) -> Unread:
        """Give back what a container took that does not fit."""
        self._left, self._is_whole = left, False
        return UNREAD

    def _take(self, values: int) -> bool:
        """Count values that are kept; return whether they fit."""
        if values > self._left:
            return False
        self._left -= values
        return True

    @property
    def _next(self) -> bytes:
        return self._body[self._at : self._at + 1]

    def _wrong(self, wanted: str, at: int | None = None) -> ValueError:
        return ValueError(f"{wanted} is missing at byte {self._at if at is None else at}")


def _names(part: Any, depth: int) -> int:
    """Return how many names a part of an object or a list has, down to NAMES_DEPTH."""
    if depth > NAMES_DEPTH:
        return 0
    inner = part.values() if type(part) is dict else part
    count = len(part) if type(part) is dict else 0
    return count + sum([_names(one, depth + 1) for one in inner if type(one) in _CONTAINERS])


def _outside(window: Bytes) -> NDArray[np.bool_]:
    """Return which bytes are outside of texts; the first one is."""
    quotes = window == _QUOTE
    at = np.flatnonzero(window == _BACKSLASH)
    if len(at):  # in a run of backslashes, every other one escapes what follows
        starts = np.maximum.accumulate(np.where(np.diff(at, prepend=-2) != 1, at, 0))
        escaped = at[(at - starts) % 2 == 0] + 1
        quotes[escaped[escaped < len(window)]] = False
    is_outside: NDArray[np.bool_] = np.cumsum(quotes, dtype=np.uint8) % 2 == 0  # may overflow
    return is_outside
