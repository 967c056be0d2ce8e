"""Parts: the calls of a batch, and the port that joins them and splits the reply.

Calls are joined if a server could not tell that they came from different clients: the same method,
target and header fields, the same members beside the data, rows of the same shape and kind. Fields
that only name or trace a request may differ; the batch then carries those of one of its calls.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from tollway.backends.types import INFERENCE, Call, Headers

MAY_DIFFER = frozenset(
    (
        b"accept",
        b"accept-language",
        b"baggage",
        b"content-length",
        b"date",
        b"forwarded",
        b"inference-header-content-length",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"via",
        b"x-amzn-trace-id",
        b"x-cloud-trace-context",
        b"x-correlation-id",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
        b"x-tollway-deadline-ms",
    )
)
"""Request fields that say nothing to a model."""

OF_THE_WHOLE = frozenset(
    (
        b"content-digest",
        b"content-length",
        b"content-md5",
        b"digest",
        b"etag",
        b"inference-header-content-length",
        b"set-cookie",
        b"transfer-encoding",
        b"x-device-seconds",
    )
)
"""Reply fields that are about a whole batch, or about one client only."""

_NOT_COPIED = re.compile(rb"NaN|Infinity|(?<![0-9.])[0-9]{20}|-[0-9]{19}")
"""Numbers that may not survive reading and writing a JSON document: beyond 64 bits, not finite."""


class Unsplittable(ValueError):  # noqa: N818 - reads as what happened
    """A reply that cannot be divided among the calls of its batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A call that can be joined with those of the same key; `data` is the joiner's own."""

    key: Hashable
    rows: int
    data: Any
    call: Call


class Joiner(Protocol):
    """Joins calls of one protocol, and splits the replies. Pure."""

    def part(self, call: Call) -> Part | None:
        """Return a call as a part of a batch; None if it has to go alone."""

    def join(self, parts: Sequence[Part], head: Call) -> Call:
        """Return one call with the rows of all parts, in order, and the header fields of `head`."""

    def split(
        self, parts: Sequence[Part], headers: Headers, body: bytes, device_s: Sequence[float]
    ) -> list[tuple[Headers, bytes]]:
        """Return each part's header fields and body from a reply with status 200.

        `device_s`: each part's share of the device seconds, in place of a total in the body.
        Raises Unsplittable.
        """


def is_inference(call: Call) -> bool:
    """Return whether a call asks a model for one whole reply, and was read without doubts."""
    payload = call.payload
    is_plain = payload.endpoint is INFERENCE and not payload.fault
    return is_plain and call.method == b"POST" and call.document is None


def head_of(call: Call) -> Hashable:
    """Return what of a call's head has to be equal within a batch."""
    kept = [pair for pair in call.headers if pair[0] not in MAY_DIFFER]
    kept.sort()
    return (call.method, call.target, tuple(kept))


def is_exact(text: bytes) -> bool:
    """Return whether a JSON text keeps its numbers when it is read and written."""
    return _NOT_COPIED.search(text) is None


def of_each(headers: Headers) -> Headers:
    """Return the fields of a reply that each call of a batch gets."""
    return [pair for pair in headers if pair[0] not in OF_THE_WHOLE]


def check_common(value: Any, name: str) -> None:
    """Raise Unsplittable unless a value says the same of each row: it holds no number and no list.

    A number beside the rows is a count, a time or a mean of the whole batch, and a list may have
    one element for each row: only the server knows.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            check_common(inner, f"{name}.{key}")
    elif not (value is None or isinstance(value, str | bool)):
        raise Unsplittable(f"{name} is about the whole batch")


def canonical(members: dict[str, Any]) -> bytes:
    """Return a text that is equal for equal members."""
    return orjson.dumps(members, option=orjson.OPT_SORT_KEYS)
