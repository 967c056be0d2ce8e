"""Puts the model's name that a client asked for in the place of the backend's.

Only the bytes of the name change: the top-level member `model_name`, which servers write first, and
the length of the JSON before raw tensors.
"""

import json
import re

from tollway.backends.json_members import edited, member_texts
from tollway.backends.protocols.oip.body import HEAD_LENGTH, split
from tollway.backends.types import Headers

MEMBER = "model_name"
SCANNED_BYTES_MAX = 64 << 10  # of a document whose first member is another: 0.5 ms
_FIRST = re.compile(rb'\s*\{\s*"model_name"\s*:\s*"((?:[^"\\]|\\.)*)"')
_ANY = re.compile(rb'(?<!\\)"model_name"\s*:\s*"((?:[^"\\]|\\.)*)"')


def renamed(headers: Headers, body: bytes, model: str) -> tuple[Headers, bytes]:
    """Return a reply with another name of the model (3 us); as it is if it names none."""
    try:
        head, rest = split(headers, body)
    except ValueError:
        return headers, body
    new = in_document(head, model)
    if new is head:
        return headers, body
    if rest is None:
        return headers, new
    length = (HEAD_LENGTH, b"%d" % len(new))
    return [length if name == HEAD_LENGTH else (name, was) for name, was in headers], new + rest


def with_name(text: bytes, member: str, model: str) -> bytes:
    """Return a document in which a top-level member, if it has it, names the model `model`."""
    try:
        return edited(text, {member: model}) if member_texts(text, member) else text
    except ValueError:
        return text


def in_document(text: bytes, model: str) -> bytes:
    """Return a JSON document with another name of the model; the same object if nothing changes."""
    found = _FIRST.match(text)
    if found is None and b'"model_name"' in text:
        if len(text) <= SCANNED_BYTES_MAX:
            return with_name(text, MEMBER, model)
        found = _ANY.search(text)
    if found is None:
        return text
    name = json.dumps(model, ensure_ascii=False)[1:-1].encode()
    if found[1] == name:
        return text
    return text[: found.start(1)] + name + text[found.end(1) :]
