"""Plain JSON in, plain JSON out: `http` whose replies are read whole, so that calls can be hedged.

Rules answer in it too.
"""

import math
from typing import Any

import orjson

from tollway.backends.ports import StreamReader
from tollway.backends.protocols.http.protocol import Http
from tollway.backends.rules.ruling import Ruling
from tollway.backends.types import Call, Headers, Payload


class Plain(Http):
    """The protocol; see `Http`."""

    name = "plain"

    def follow(self, payload: Payload) -> StreamReader | None:
        """Return None: no reply is relayed before its end."""
        return None


def rows(payload: Payload) -> list[Any]:
    """Return the document: plain JSON has no batches."""
    return [payload.data]


def reply(call: Call, rulings: list[Ruling]) -> tuple[Headers, bytes]:
    """Return (fields, body) of a reply: `label`, `confidence` and `probabilities`, if known."""
    (ruling,) = rulings
    document: dict[str, Any] = {"label": ruling.answer}
    if ruling.confidence is not None and math.isfinite(ruling.confidence):
        document["confidence"] = ruling.confidence
    if ruling.probabilities:
        document["probabilities"] = ruling.probabilities
    return [(b"content-type", b"application/json")], orjson.dumps(document)


def describe(call: Call) -> None:
    """Return None: plain JSON has no metadata of a model."""
