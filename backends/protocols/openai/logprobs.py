"""Log-probabilities of chat completions: asked for, read, and hidden again.

A cascade reads from them how sure a model was. The gateway asks for them where the client did not,
and then removes them, so that the client gets the bytes that it would have got. What these are
depends on the server: most write `"logprobs":null` in each choice if they were not asked for,
llama.cpp leaves the member out. Its entries have an `id`, those of others do not, so the style is
known from the reply itself.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import orjson

from tollway.backends.json_members import edited
from tollway.backends.types import Addition

ADDED = Addition("logprobs", "logprobs", (b"logprobs", b"log probabilities", b"log_probs"))
MEMBER = b'"logprobs"'
AUTO, NULL, ABSENT, OFF = "auto", "null", "absent", "off"
"""What a server writes in place of log-probabilities that were not asked for: by its replies, null,
nothing; OFF: it is never asked."""

_KEY = re.compile(r'"logprobs"\s*:\s*')
_COMMA = re.compile(r"\s*,\s*")
# Numbers stay texts: Python reads no integer of more than 4,300 digits.
_scan = json.JSONDecoder(strict=False, parse_int=str, parse_float=str).raw_decode
_NULL = orjson.Fragment(b"null")
_LOGS_MAX = 1 << 14  # tokens of a reply whose probabilities are read


def asks(document: Any) -> bool:
    """Whether a chat request itself asks for log-probabilities, or says that it wants none."""
    return isinstance(document, dict) and "logprobs" in document


def hidden(body: bytes, document: Any, style: str = AUTO) -> bytes:
    """Return a reply, or a chunk of a stream, without the log-probabilities of its choices."""
    if MEMBER not in body or not isinstance(document, dict):
        return body
    choices = document.get("choices")
    told = [one["logprobs"] for one in choices or () if isinstance(one, dict) and "logprobs" in one]
    if all(one is None for one in told):
        return body
    absent = style == ABSENT or (style == AUTO and any(map(_has_ids, told)))
    if body.count(MEMBER) == len(told):  # else a token, or a member elsewhere, has the same name
        return _replaced(body.decode(), absent=absent).encode()
    return edited(body, {"choices.*.logprobs": None if absent else _NULL})


def _replaced(text: str, *, absent: bool) -> str:
    """Return a text with each member of the name replaced: 8 us for a kilobyte of it, once."""
    out: list[str] = []
    at = 0
    while (found := _KEY.search(text, at)) is not None:
        _, end = _scan(text, found.end())
        if not absent:
            out += (text[at : found.end()], "null")
        elif (comma := _COMMA.match(text, end)) is not None:
            out.append(text[at : found.start()])
            end = comma.end()
        else:  # the last member: the comma before it goes
            out.append(text[at : found.start()].rstrip().removesuffix(","))
        at = end
    return "".join([*out, text[at:]])


def logs_of(choice: Any) -> list[float]:
    """Return the log-probabilities of a choice's tokens; empty if there are none."""
    logprobs = choice.get("logprobs") if isinstance(choice, dict) else None
    if not isinstance(logprobs, dict):
        return []
    values = logprobs.get("token_logprobs")  # completions; chat has a list of objects
    if not isinstance(values, list):
        values = [entry.get("logprob") for entry in _entries(logprobs)]
    return [log for log in values[:_LOGS_MAX] if isinstance(log, int | float) and log <= 0]


def features(logs: Sequence[float]) -> tuple[float, ...]:
    """Return the geometric mean and the minimum of the tokens' probabilities; empty for none."""
    if not logs:
        return ()
    return math.exp(sum(logs) / len(logs)), math.exp(min(logs))


def _entries(logprobs: dict[str, Any]) -> list[dict[str, Any]]:
    content = logprobs.get("content")
    return [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []


def _has_ids(logprobs: Any) -> bool:
    entries = _entries(logprobs) if isinstance(logprobs, dict) else []
    return bool(entries) and "id" in entries[0]
