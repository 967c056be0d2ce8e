"""The objects that a server keeps: those that a request names, and the one that a reply creates."""

import re
from collections.abc import Iterator
from typing import Any

from tollway.backends.documents import load_reply
from tollway.backends.errors import InvalidAnswer
from tollway.backends.protocols.openai import endpoints, lists
from tollway.backends.types import Call, Created, Payload

REFERENCES_MAX = 32  # of a request: a message with as many files would be unusual
FILE = b'"file_id"'
FILE_MARK = b"file_id"  # found in half the time in text that is not ASCII: 19 ms for 15 MiB
_VALUE = re.compile(rb'\s*:\s*"([!#-\[\]-~]{1,256})"')
_MEMBERS = (
    *("previous_response_id", "conversation", "input_file_id", "training_file", "validation_file"),
    *("assistant_id", "file_id", "file_ids", "vector_store_id", "part_ids", "container"),
)
_PENDING = frozenset(("queued", "in_progress"))


def noted(call: Call, payload: Payload) -> Payload:
    """Return a payload with the objects that it names, and whether its reply creates one."""
    endpoint, document = payload.endpoint, payload.data
    names: list[str] = []
    if endpoint.is_list:
        names.append(lists.cursor(call.target))
    elif endpoint.is_free or endpoint.is_declared:
        names.append(endpoints.subject(call.method, call.target.partition(b"?")[0]))
    payload.creates = endpoint.creates
    if isinstance(document, dict):
        names += _members(document)
        stored = document.get("store")
        payload.defers = document.get("background") is True
        if stored is False or (stored is not True and endpoint.name == "chat"):
            payload.creates = payload.defers
    if payload.form is None and FILE_MARK in call.body:
        names += _files(call.body)
    payload.refers = tuple(dict.fromkeys(filter(None, names)))[:REFERENCES_MAX]
    return payload


def _members(document: dict[str, Any]) -> Iterator[str]:
    for name in _MEMBERS:
        value = document.get(name)
        if isinstance(value, dict):  # a conversation
            value = value.get("id")
        for one in value[:REFERENCES_MAX] if isinstance(value, list) else (value,):
            if isinstance(one, str) and one:
                yield one


def _files(body: bytes) -> Iterator[str]:
    """Yield the files that the parts of messages name, anywhere in a document."""
    at = body.find(FILE)
    for _ in range(REFERENCES_MAX):
        if at < 0:
            return
        if (value := _VALUE.match(body, at + len(FILE))) is not None:
            yield value[1].decode()
        at = body.find(FILE, at + 1)


def created(payload: Payload, body: bytes) -> Created | None:
    """Return the object that a reply names; None if it names none.

    A response in the background is pending: its usage is known only when it has ended.
    """
    try:
        reply = load_reply(body)
    except InvalidAnswer:
        return None
    name = reply.get("id") if isinstance(reply, dict) else None
    if not isinstance(name, str) or not name:
        return None
    return Created(name, payload.endpoint.name == "responses" and reply.get("status") in _PENDING)
