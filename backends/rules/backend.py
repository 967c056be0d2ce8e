"""Rules as a backend: a transport that answers inside the gateway, without a network.

The rules are a file (see `rules.file`), or a Python function that takes the request's document (of
a batch, one row of it) and returns a label, a pair (label, confidence), or a dict of probabilities
by label. Either answers in microseconds on the event loop, in the route's own protocol.
"""

import importlib
import math
from collections.abc import AsyncIterator, Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tollway.backends.errors import BadRequest
from tollway.backends.ports import WireProtocol
from tollway.backends.protocols import plain
from tollway.backends.protocols.oip import local
from tollway.backends.rules.file import Decide, load
from tollway.backends.rules.ruling import Ruling
from tollway.backends.types import UNPARSED, Call, Headers, HttpReply, Payload

GROUP = "tollway.rules"

ROWS_MAX = 1_024
"""Of a batch: at some microseconds each, as long as the event loop may be blocked."""

_SPOKEN = {
    "oip": (local.rows, local.reply, local.describe),
    "http": (plain.rows, plain.reply, plain.describe),
    "plain": (plain.rows, plain.reply, plain.describe),
}


def open_rules(
    wire: WireProtocol, *, rules: Path | None = None, entry_point: str | None = None
) -> "Rules":
    """Return the rules of a TOML file, or of a function: exactly one of them.

    `entry_point` is `module:function`, or a name in the entry point group `tollway.rules`. Raises
    ValueError if rules are invalid, a function is missing, or the protocol does not support rules.
    """
    if wire.name not in _SPOKEN:
        known = ", ".join(_SPOKEN)
        raise ValueError(f"rules cannot answer in protocol {wire.name!r}, only in {known}")
    if (rules is None) == (entry_point is None):
        raise ValueError("rules need a file or an entry point: one of both")
    if rules is not None:
        return Rules(load(rules), wire)
    assert entry_point is not None
    return Rules(by_function(_function(entry_point)), wire)


class Rules:
    """Answers calls with `decide`, in the protocol `wire`."""

    def __init__(self, decide: Decide, wire: WireProtocol) -> None:
        self._decide = decide
        self._wire = wire
        self._rows, self._reply, self._describe = _SPOKEN[wire.name]

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Return the complete reply.

        Statuses: 400 if the call cannot be read, 500 if a function fails, 503 for requests that
        rules do not support, such as a batch above ROWS_MAX (another backend may).
        """
        try:
            payload = self._wire.parse(call) if call.payload is UNPARSED else call.payload
        except BadRequest as exc:
            return self._problem(400, "Bad request", str(exc))
        if payload.data is None:
            return self._about(call, payload)
        try:
            rows = self._rows(payload)
            if not 0 < len(rows) <= ROWS_MAX:
                detail = f"rules answer batches of 1 to {ROWS_MAX} rows of JSON or decoded tensors"
                return self._problem(503, "Not for rules", detail)
            headers, body = self._reply(call, [self._decide(row) for row in rows])
        except Exception as exc:  # a function of the operator's, which may fail in any way
            return self._problem(500, "Rules failed", f"{type(exc).__name__}: {exc}")
        return _whole(200, headers, body)

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""

    def _about(self, call: Call, payload: Payload) -> HttpReply:
        description = self._describe(call) if call.method == b"GET" else None
        if description is None:
            return self._problem(503, "Not for rules", "rules cannot read this request")
        return _whole(200, *description)

    def _problem(self, status: int, title: str, detail: str) -> HttpReply:
        kind, body = self._wire.error(status, {"title": title, "status": status, "detail": detail})
        return _whole(status, [(b"content-type", kind)], body)


class WholeRequestRules:
    """A complete body as a stream of one chunk."""

    # The mutable state of the body is whether it was read.
    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._body is None:
            raise StopAsyncIteration
        body, self._body = self._body, None
        return body

    async def aclose(self) -> None:
        """Release the body."""
        self._body = None


def by_function(function: Callable[[Any], Any]) -> Decide:
    """Wrap `function` to return a Ruling; the wrapper raises ValueError for an invalid result."""

    def decide(document: Any) -> Ruling:
        result = function(document)
        if isinstance(result, Ruling):
            return result
        if isinstance(result, dict):
            return _weighed(result)
        answer, confidence = result if isinstance(result, tuple) else (result, None)
        if answer is None:
            raise ValueError("the function returned no answer")
        if confidence is not None and not 0 <= confidence <= 1:
            raise ValueError(f"a confidence of {confidence!r}; it must be from 0 to 1")
        return Ruling(answer, confidence)

    return decide


def _weighed(probability_of: dict[Any, float]) -> Ruling:
    probabilities = tuple(map(float, probability_of.values()))
    if not probabilities or min(probabilities) < 0 or not math.isfinite(sum(probabilities)):
        raise ValueError(f"no probabilities: {probability_of!r}")
    best = max(probability_of, key=lambda label: probability_of[label])
    return Ruling(best, min(float(probability_of[best]), 1.0), probabilities)


def _function(name: str) -> Callable[[Any], Any]:
    """Return the function that an entry point names; ValueError if there is none."""
    module, colon, attribute = name.partition(":")
    try:
        if colon:
            target = importlib.import_module(module)
            for part in attribute.split("."):
                target = getattr(target, part)
        else:
            (point,) = entry_points(group=GROUP, name=name)
            target = point.load()
    except (ImportError, AttributeError, ValueError) as exc:
        raise ValueError(
            f"entry_point = {name!r}: {exc}; write module:function, or a name in the group {GROUP}"
        ) from exc
    if not callable(target):
        raise ValueError(f"entry_point = {name!r}: that is no function")
    function: Callable[[Any], Any] = target
    return function


def _whole(status: int, headers: Headers, body: bytes) -> HttpReply:
    return HttpReply(
        status, [*headers, (b"content-length", b"%d" % len(body))], WholeRequestRules(body)
    )
