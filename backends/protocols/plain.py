"""Plain JSON in, plain JSON out: accepts any document; settings say where the answer is.

Confidence is read from the first of: a list or an object of `probabilities`, a number at
`confidence`. Usage is read from the header field `x-device-seconds`, or from a `usage` member with
any of `device_s`, `input_tokens`, `cached_input_tokens`, `output_tokens`.
"""

import math
from typing import Any

import orjson

from tollway.backends import usage_headers
from tollway.backends.documents import check_coding, has_gap, load_reply, load_request, shown
from tollway.backends.json_path import compile_path
from tollway.backends.protocols import confidence as confidences
from tollway.backends.protocols.openai import usage
from tollway.backends.rules.ruling import Ruling
from tollway.backends.types import (
    Call,
    Headers,
    HttpReply,
    InvalidAnswer,
    ModelAnswer,
    Payload,
    UnaryProtocol,
    Usage,
)

_BODILESS = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS"))
_ANSWERS = ("label", "answer", "prediction", "result")


class Plain(UnaryProtocol):
    """The protocol. `answer`, `confidence` and `probabilities` are paths into the reply.

    Without `answer` the answer is the reply's `label`, `answer`, `prediction` or `result`, else the
    reply itself. If a configured path matches nothing, the reply holds no answer. Raises ValueError
    for an invalid path.
    """

    name = "plain"
    failover_statuses: frozenset[int] = frozenset()

    def __init__(
        self,
        answer: str | None = None,
        confidence: str | None = None,
        probabilities: str | None = None,
    ) -> None:
        self._where = answer
        self._answer = compile_path(answer) if answer is not None else _usual_answer
        self._confidence = compile_path(confidence or "confidence")
        self._probabilities = compile_path(probabilities or "probabilities")

    def parse(self, call: Call) -> Payload:
        """Read a JSON document; methods without a body need none."""
        if not call.body and call.method in _BODILESS:
            return Payload()
        check_coding(call.headers)
        return Payload(load_request(call.body))

    def readdress(self, call: Call, path: bytes, model: str | None, payload: Payload) -> Call:
        """Return the call below `path`; a plain document has no place for a model's name."""
        target = path.rstrip(b"/") + call.target
        return Call(call.method, target, call.headers, call.body, payload)

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the usage that a reply reports; None if it reports none."""
        told = usage_headers.from_headers(reply.headers)
        if told is not None or not (b'"usage' in body or b'"billed_units"' in body):
            return told
        return _usage(load_reply(body))

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the answer and its confidence."""
        document = load_reply(body)
        value = self._answer(document)
        if value is None or value in ("", [], {}):
            raise InvalidAnswer(f"nothing at {self._where}" if self._where else "an empty reply")
        if has_gap(value):
            raise InvalidAnswer(f"the answer holds null, NaN or infinity: {shown(value)}")
        return ModelAnswer(value, self._features(document))

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the problem as it is (RFC 9457)."""
        return b"application/problem+json", orjson.dumps(problem)

    def _features(self, document: Any) -> confidences.Features:
        found = self._probabilities(document)
        if isinstance(found, dict):
            found = list(found.values())
        if isinstance(found, list) and found and set(map(type, found)) <= {int, float}:
            return confidences.features(found)
        return confidences.alone(self._confidence(document))


def _usage(document: Any) -> Usage | None:
    """Return the usage that a document reports: in our own names, else as providers do."""
    if not isinstance(document, dict):
        return None
    member = document.get("usage")
    if isinstance(member, dict) and member.keys() <= usage_headers.OWN:
        return usage_headers.from_member(member)
    return usage.of(document) or usage_headers.from_member(member)


def _usual_answer(document: Any) -> Any:
    if isinstance(document, dict):
        for name in _ANSWERS:
            if document.get(name) is not None:
                return document[name]
        if document.get("error"):
            raise InvalidAnswer(f"an error with status 200: {shown(document['error'])}")
    return document


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
