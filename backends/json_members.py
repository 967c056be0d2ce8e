"""Edits members of a JSON object in its text, and leaves every other byte unchanged.

Numbers beyond 2^53, the order of keys, duplicate keys, escapes and white space are preserved, which
they would not be if the document were serialized again.

Theory of operation. The text has been read before, so it is known to be valid, and its keys are
known. Three ways find a member, each of which proves that it is not one of an inner object:

    ends      between the beginning of the text, or its end, and the member stand only members with
              simple values. Read backwards this is a proof too: with an even number of quotes and
              no backslash before the end, the member begins outside of a text (1 us, for a member
              that is known to be there once)
    search    the key in quotes stands in the text once (1 us for a kilobyte)
    scan      the C scanner of the standard library skips the values: 8 us for a kilobyte. A large
              document was read in slices, which noted where its members lie (`Pieces`): only the
              pieces of at most 16 KiB in which the key may stand are scanned.
"""

import json
import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

Edits = Mapping[str, Any]
"""New values of members by their names; None removes a member.

A dot leads into an inner object, and `*` into each element of a list.
"""

Pieces = Sequence[tuple[int, int, str | None, int]]
"""Parts of an object's text, each of whole members: (start, end, key, start of the value).

The key is None for a part that has several members, and its last offset is 0.
"""

NO_EDITS: Edits = {}

_Member = tuple[str, int, int, int]  # key, its start, the start of its value, the end of its value

_SPACE = re.compile(r"[ \t\n\r]*")
_BLANK = b" \t\n\r"
_TO_VALUE = re.compile(rb"[ \t\n\r]*:[ \t\n\r]*")
_COMMA = re.compile(rb"[ \t\n\r]*,[ \t\n\r]*")
_S, _SIMPLE_TEXT = rb"[ \t\n\r]*+", rb'"[^"\\]*+"'
_FLAT = rb'(?:[^"{}\[\]\\]|' + _SIMPLE_TEXT + rb")*+"
_SIMPLE = rb"(?:" + _SIMPLE_TEXT + rb"|[-+.0-9A-Za-z]++|\{" + _FLAT + rb"\}|\[" + _FLAT + rb"\])"
"""A text without escapes, a number, a word, or an object or a list of these."""
_SHORT = re.compile(_SIMPLE)
_END_BYTES = 1024
_EMPTY = re.compile(rb"[ \t\n\r]*}")
_ESCAPED_LETTER = re.compile(rb"\\u00(?:5[fF]|[67])")  # _, a to z
_ESCAPED = re.compile(rb"\\u00[2-7]")  # all of ASCII
_LOWER = re.compile(r"[a-z_]+")
# Numbers stay texts: Python reads no integer of more than 4,300 digits.
_scan = json.JSONDecoder(strict=False, parse_int=str, parse_float=str).raw_decode


def edited(
    body: bytes,
    edits: Edits,
    document: object = None,
    pieces: Pieces = (),
    once: Container[str] = (),
) -> bytes:
    """Return an object with other values of some members, each time they occur.

    Missing members are added before the others, unless they are in a list. `document`: the object
    as it was read, if it was; `pieces`: where its members lie, if it is large; `once`: names that
    it does not have twice. ValueError if the text is no JSON object.
    """
    if isinstance(document, dict):
        quick = _edited_at_its_ends(body, edits, document, once)
        if quick is not None:
            return quick
    inner: dict[str, dict[str, Any]] = {}
    for name in edits:
        head, dot, rest = name.partition(".")
        if dot:
            inner.setdefault(head, {})[rest] = edits[name]
    names = {*edits, *inner}
    if isinstance(document, dict):
        names = {name for name in names if name in document}
        pieces = pieces or _unique(body, names)
    out, at, seen = bytearray(), 0, set()
    for key, start, value, end in _spans(body, names, pieces):
        seen.add(key)
        if key not in edits:
            new = _inside(body[value:end], inner[key])
        elif edits[key] is None:
            out += body[at:start]
            at = _after(body, out, end)
            continue
        else:
            new = orjson.dumps(edits[key])
        out += body[at:value]
        out += new
        at = end
    out += body[at:]
    missing = {name: edits[name] for name in edits if "." not in name and name not in seen}
    missing |= {
        head: made
        for head, rest in inner.items()
        if head not in seen and head not in edits and (made := _made(rest))
    }
    missing = {name: value for name, value in missing.items() if value is not None}
    return _with_first(bytes(out), missing) if missing else bytes(out)


def _edited_at_its_ends(
    body: bytes, edits: Edits, document: Mapping[str, Any], once: Container[str]
) -> bytes | None:
    """Return an object with other members, if they stand near its ends; else None."""
    missing: dict[str, Any] = {}
    places: list[tuple[int, int, bytes]] = []
    for name, value in edits.items():
        if value is None or "." in name:
            return None
        if name not in document:
            missing[name] = value
        elif name in once and (place := _place(body, name)) is not None:
            places.append((*place, orjson.dumps(value)))
        else:
            return None
    if missing:
        at = body.index(b"{") + 1
        places.append((at, at, _written(missing, body, at)))
    places.sort()
    parts: list[bytes] = []
    at = 0
    for start, end, new in places:
        parts += (body[at:start], new)
        at = end
    parts.append(body[at:])
    return b"".join(parts)


def _place(body: bytes, name: str) -> tuple[int, int] | None:
    """Return where the value of a member near one of the ends starts and ends; None if unclear."""
    key, front, back = _patterns(name)
    found = front.match(body, 0, _END_BYTES)
    if found is None:
        at = body.rfind(key, max(0, len(body) - _END_BYTES))
        if at < 0 or body[max(0, at - 32) : at].rstrip(_BLANK)[-1:] not in (b",", b"{"):
            return None
        found = back.match(body, at)
    return None if found is None else found.span(1)


@lru_cache(maxsize=64)  # some ten names are edited
def _patterns(name: str) -> tuple[bytes, re.Pattern[bytes], re.Pattern[bytes]]:
    """Return the key in quotes, and patterns of a member after, or before, simple ones."""
    key = re.escape(b'"%b"' % name.encode())
    member = _SIMPLE_TEXT + _S + b":" + _S + _SIMPLE + _S
    edited = key + _S + b":" + _S + b"(" + _SIMPLE + b")"
    front = _S + rb"\{" + _S + b"(?:(?!" + key + b")" + member + b"," + _S + b")*+" + edited
    back = edited + _S + b"(?:," + _S + member + b")*+" + rb"\}" + _S + rb"\Z"
    return b'"%b"' % name.encode(), re.compile(front), re.compile(back)


def quoted(names: Iterable[str]) -> dict[str, bytes]:
    """Return the names with their texts in quotes, for `repeated`."""
    return {name: b'"%b"' % name.encode() for name in names}


def repeated(body: bytes, document: Iterable[str], names: Mapping[str, bytes]) -> str:
    """Return one of `names` that an object has more than once; empty if it has none.

    orjson reads the last of them, and other parsers the first. `document` has the object's keys,
    `names` their texts in quotes. A name that is also found in inner objects, and letters of names
    that are written as escapes, are rare: only then is the text scanned. Otherwise each name takes
    0.5 us for a kilobyte.
    """
    suspects = [
        name
        for name in document
        if name in names and body.find(names[name]) != body.rfind(names[name])
    ]  # `count` takes twice as long
    if body.rfind(b"\\u00") >= 0 and _ESCAPED_LETTER.search(body):
        suspects = list(names)
    if not suspects:
        return ""
    seen = set()
    for key, *_ in _spans(body, suspects):
        if key in seen:
            return key
        seen.add(key)
    return ""


def member_texts(body: bytes, name: str) -> list[bytes]:
    """Return the texts of the values of a member, each time it occurs in an object."""
    return [body[value:end] for _, _, value, end in _spans(body, (name,))]


def texts(body: bytes, names: Collection[str]) -> dict[str, bytes]:
    """Return the texts of the values of some members, in their order; the last counts."""
    return {name: body[value:end] for name, _, value, end in _spans(body, names)}


def with_texts(body: bytes, members: Mapping[str, bytes]) -> bytes:
    """Return an object with the texts of some members; those that it lacks come last, in order."""
    present = texts(body, members.keys())
    body = edited(body, {name: orjson.Fragment(members[name]) for name in present})
    new = [
        orjson.dumps(name) + b":" + text for name, text in members.items() if name not in present
    ]
    if not new:
        return body
    end = body.rindex(b"}")
    before = body[:end].rstrip(_BLANK)
    comma = b"" if before.endswith(b"{") else b","
    return b"".join((before, comma, b",".join(new), body[end:]))


def has(document: object, name: str) -> bool:
    """Return whether a parsed document has the member at a dotted name."""
    for step in name.split("."):
        if not isinstance(document, dict) or step not in document:
            return False
        document = document[step]
    return True


def _made(edits: Edits) -> dict[str, Any]:
    """Return the object that the edits of a missing one make; empty if they add nothing."""
    made: dict[str, Any] = {}
    for name, value in edits.items():
        head, dot, rest = name.partition(".")
        if head == "*" or value is None:
            continue
        if not dot:
            made[head] = value
        elif inner := _made({rest: value}):
            made.setdefault(head, {}).update(inner)
    return made


def _inside(text: bytes, edits: Edits) -> bytes:
    """Return a member's value with edits inside of it."""
    if text[:1] == b"{":
        return edited(text, {name: edits[name] for name in edits if name[:1] != "*"})
    if text[:1] == b"[":
        return _elements(text, {name[2:]: edits[name] for name in edits if name[:2] == "*."})
    made = _made(edits)
    return orjson.dumps(made) if made else text


def _elements(text: bytes, edits: Edits) -> bytes:
    """Return a list with edits inside of its objects."""
    out, at = "", 0
    whole = text.decode()
    for start, end in _elements_of(whole) if edits else ():
        out += whole[at:start]
        out += _replacing(whole[start:end], edits)
        at = end
    return (out + whole[at:]).encode()


def _replacing(text: str, edits: Edits) -> str:
    """Return an element of a list with edits of the members that it has."""
    if text[:1] != "{":
        return text
    document = orjson.loads(text)
    present = {name: edits[name] for name in edits if has(document, name) or "*" in name}
    return edited(text.encode(), present).decode() if present else text


def _elements_of(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the elements of a list."""
    at = _mark(text, 0, "[")
    while text[at : at + 1] != "]":
        _, end = _scan(text, at)
        yield at, end
        at = _skipped(text, end)
        if text[at : at + 1] != "]":
            at = _mark(text, at, ",")


def _after(body: bytes, out: bytearray, end: int) -> int:
    """Return where the text goes on after a removed member that ended at `end`.

    The comma after it goes too; after the last member, the one before it.
    """
    comma = _COMMA.match(body, end)
    if comma is not None:
        return comma.end()
    kept = out.rstrip(_BLANK)
    if kept[-1:] == b",":
        del out[len(kept) - 1 :]
    return end


def _with_first(body: bytes, members: Mapping[str, Any]) -> bytes:
    """Return an object with more members before the others."""
    at = body.index(b"{") + 1
    return b"".join((body[:at], _written(members, body, at), body[at:]))


def _written(members: Mapping[str, Any], body: bytes, at: int) -> bytes:
    """Return the text of members that come first in an object, which goes on at `at`."""
    return orjson.dumps(members)[1:-1] + (b"" if _EMPTY.match(body, at) else b",")


def _unique(body: bytes, names: Collection[str]) -> Pieces:
    """Return where the members called `names` of a known object are; nothing if that is unclear.

    The object has these keys, so a text in quotes that is there once is the key, unless letters of
    names are written as escapes.
    """
    found: list[tuple[int, int, str | None, int]] = []
    for name in names:
        if not (name.isascii() and name.isidentifier()):
            return ()
        key = b'"%b"' % name.encode()
        at = body.find(key)
        if at < 0 or body.rfind(key) != at:
            return ()
        colon = _TO_VALUE.match(body, at + len(key))
        value = None if colon is None else _SHORT.match(body, colon.end())
        if colon is None or value is None:
            return ()
        found.append((at, value.end(), name, colon.end()))
    if body.rfind(b"\\u00") >= 0:
        escaped = _ESCAPED_LETTER if all(map(_LOWER.fullmatch, names)) else _ESCAPED
        if escaped.search(body):
            return ()
    return sorted(found)


def _spans(body: bytes, names: Collection[str], pieces: Pieces = ()) -> Iterator[_Member]:
    """Yield the members called `names`, in their order; ValueError if the text is no object."""
    if not names:
        return
    if not pieces:
        yield from _scanned(body, body.index(b"{") + 1, body.rindex(b"}"), names)
        return
    sought = [b'"%b"' % name.encode() for name in names]
    for start, end, key, value in pieces:
        if key is not None:
            if key in names:
                yield key, start, value, end
        elif any(body.find(name, start, end) >= 0 for name in sought) or (
            body.find(b"\\", start, end) >= 0
        ):
            yield from _scanned(body, start, end, names)


def _scanned(body: bytes, start: int, end: int, names: Collection[str]) -> Iterator[_Member]:
    """Yield the members called `names` in a part of an object that has whole members."""
    text = body[start:end].decode()
    is_ascii = len(text) == end - start
    for member in _members(text):
        if member[0] not in names:
            continue
        if is_ascii:
            yield member[0], start + member[1], start + member[2], start + member[3]
        else:
            at = [start + len(text[:offset].encode()) for offset in member[1:]]
            yield member[0], at[0], at[1], at[2]


def _members(text: str) -> Iterator[_Member]:
    """Yield the members in a text that has nothing else."""
    at = _skipped(text, 0)
    while at < len(text):
        key, end = _scan(text, at)
        value = _mark(text, end, ":")
        _, end = _scan(text, value)
        yield key, at, value, end
        at = _skipped(text, end)
        if at == len(text):
            return
        at = _mark(text, at, ",")
        if at == len(text):
            raise ValueError(f"no member at character {at}")


def _mark(text: str, at: int, mark: str) -> int:
    """Return the start of the next token after a required mark."""
    at = _skipped(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"no {mark!r} at character {at}")
    return _skipped(text, at + 1)


def _skipped(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr] # it matches nothing too
