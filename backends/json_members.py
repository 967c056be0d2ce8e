"""Removes members from a JSON object, or sets them, and leaves every other byte unchanged.

Numbers beyond 2^53, the order of keys, duplicate keys and white space are preserved, which they
would not be if the document were serialized again. The values are skipped by the C scanner of the
standard library: 8 us for a kilobyte, 0.7 ms for 200 messages of a kilobyte, 13 ms for a megabyte
of 25,000 messages. So this is for the few requests that have such a member.
"""

import json
import re
from collections.abc import Collection, Iterator

_SPACE = re.compile(r"[ \t\n\r]*")
# Numbers stay texts: Python reads no integer of more than 4,300 digits.
_scan = json.JSONDecoder(strict=False, parse_int=str, parse_float=str).raw_decode


def without(body: bytes, names: Collection[str]) -> bytes:
    """Return an object without the members called `names`; a dot leads into an inner object.

    Missing members are ignored. ValueError if the text is no JSON object.
    """
    return _without(body.decode(), names).encode()


def with_number(body: bytes, names: Collection[str], number: int) -> bytes:
    """Return an object in which the members called `names` are `number`, each time they occur.

    ValueError if the text is no JSON object.
    """
    text = body.decode()
    kept, at = "", 0
    for key, _, value, end in _members(text):
        if key in names:
            kept += f"{text[at:value]}{number}"
            at = end
    return (kept + text[at:]).encode()


def with_first(body: bytes, name: str, number: int) -> bytes:
    """Return an object with one more member before the others (0.2 us; a copy of the body)."""
    at = body.index(b"{") + 1
    return b'%b"%b":%d,%b' % (body[:at], name.encode(), number, body[at:])


def has(document: object, name: str) -> bool:
    """Return whether a parsed document has the member at a dotted name."""
    for step in name.split("."):
        if not isinstance(document, dict) or step not in document:
            return False
        document = document[step]
    return True


def _without(text: str, names: Collection[str]) -> str:
    members = list(_members(text))
    if not members:
        return text
    at = members[0][1]
    head, kept, tail = text[:at], "", text[members[-1][3] :]
    for key, start, value, end in members:
        separator, at = text[at:start], end
        if key in names:
            continue
        inner = [name[len(key) + 1 :] for name in names if name.startswith(f"{key}.")]
        said = text[start:end]
        if inner and text[value] == "{":
            said = text[start:value] + _without(text[value:end], inner)
        kept += (separator if kept else "") + said
    return head + kept + tail


def _members(text: str) -> Iterator[tuple[str, int, int, int]]:
    """Yield (key, its start, the start of its value, the end of its value) of an object."""
    at = _after(text, 0, "{")
    if text[at : at + 1] == "}":
        return
    while True:
        key, end = _scan(text, at)
        value = _after(text, end, ":")
        _, end = _scan(text, value)
        yield key, at, value, end
        at = _SPACE.match(text, end).end()  # type: ignore[union-attr] # it matches nothing too
        if text[at : at + 1] == "}":
            return
        at = _after(text, at, ",")


def _after(text: str, at: int, mark: str) -> int:
    """Return the start of the next token after a required mark."""
    at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    if text[at : at + 1] != mark:
        raise ValueError(f"no {mark!r} at character {at}")
    return _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]
