"""HTTP of any kind: any method, any body, any reply, passed on byte for byte.

A body is read only for features, and a reply only for its answer; what cannot be read passes all
the same. Usage is read from the header field `x-device-seconds`, or from a `usage` member with any
of `device_s`, `input_tokens`, `cached_input_tokens`, `output_tokens`.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson

from tollway.backends import usage_headers
from tollway.backends.documents import is_coded, load_reply, media_type, reply_document
from tollway.backends.errors import InvalidAnswer
from tollway.backends.json_members import NO_EDITS, Edits
from tollway.backends.ports import StreamReader, UnaryProtocol
from tollway.backends.protocols.http import reading
from tollway.backends.protocols.http.free import FreePaths, below
from tollway.backends.protocols.http.presets import DEFAULT, PRESETS, filled
from tollway.backends.protocols.http.relay import HttpRelay
from tollway.backends.protocols.openai import usage
from tollway.backends.types import Call, Endpoint, HttpReply, ModelAnswer, Payload, Usage

FREE = Endpoint(name="free", is_free=True)
_FORM = b"application/x-www-form-urlencoded"  # of curl, whatever the body is
_NOT_STATED = frozenset((_FORM, b"text/plain"))
_OPENINGS = (b"{", b"[")


class Http(UnaryProtocol):
    """The protocol. `answer`, `confidence` and `probabilities` are places in the reply.

    `preset` is a row of `presets`; `path` is that of the route, whose `free` paths (None: those of
    the preset) are below it, or beside it if it is one path. `strip`: what is taken from the
    beginning of a path before it goes to a backend. Raises ValueError for invalid ones.
    """

    name = "http"
    failover_statuses: frozenset[int] = frozenset()

    def __init__(
        self,
        answer: str | None = None,
        confidence: str | None = None,
        probabilities: str | None = None,
        *,
        preset: str | None = None,
        path: str | None = None,
        free: Sequence[str] | None = None,
        strip: str | None = None,
    ) -> None:
        known = DEFAULT if preset is None else PRESETS[preset]
        self._read = reading.ReplyReader(
            answer or known.answer,
            confidence or known.confidence,
            probabilities or known.probabilities,
        )
        self._target = known.target.encode()
        self._error = known.error
        self._strip = (strip or "").encode()
        written: Sequence[str] = ()
        if free is not None:
            written = free
        elif path is not None and (preset is not None or path.endswith("/*")):
            written = known.free
        base = (path or "").rpartition("/")[0]
        self._base = base.encode()
        self._also = tuple([below(base, entry) for entry in written])
        self._free = FreePaths(self._also)

    def paths(self, path: str) -> tuple[str, ...]:
        """Return the free paths, without their methods."""
        return tuple([entry.rpartition(" ")[2] for entry in self._also])

    def passes(self, method: str, path: bytes, pattern: str, *, is_written: bool) -> bool:
        """Return whether a path is the route's own, by any method, or free."""
        return is_written or self._free.has(method.encode(), path)

    def text(self, call: Call) -> bytes:
        """Return the JSON text of a request; empty if it is another body."""
        return call.body if _is_json(call) else b""

    def parse(self, call: Call) -> Payload:
        """Read a document, if the body is one; everything is passed on."""
        if self._also and self._free.has(call.method, call.target):
            return Payload(_document(call) if call.body else None, endpoint=FREE)
        if not call.body:
            return Payload()
        document = _document(call)
        return Payload(document, fault="" if document is not None else "it was not read as JSON")

    def readdress(
        self, call: Call, base: bytes, model: str | None, payload: Payload
    ) -> tuple[bytes, Edits]:
        """Return (target, edits); there is no place for a model's name."""
        target = call.target
        if self._strip and target.startswith(self._strip):
            target = target[len(self._strip) :]
            target = target if target.startswith(b"/") else b"/" + target
        if self._target:  # the server has one path, and its free ones beside it
            path, mark, query = target.partition(b"?")
            is_free = payload.endpoint.is_free and path.startswith(self._base)
            target = (path[len(self._base) :] if is_free else self._target) + mark + query
        return base + target, NO_EDITS

    def follow(self, payload: Payload) -> StreamReader | None:
        """Return a relay: any reply may be a stream."""
        return HttpRelay(self._read)

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the usage that a reply reports; None if it reports none."""
        reported = usage_headers.from_headers(reply.headers)
        if reported is not None or not (b'"usage' in body or b'"billed_units"' in body):
            return reported
        return _usage(reply_document(reply, body))

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the answer and its confidence; a file has none that is missed."""
        if payload.endpoint.is_free:
            return ModelAnswer()
        document, has_document = reading.document_of(reply, body)
        if has_document:
            return self._read(reply, document)
        with suppress(InvalidAnswer):
            return self._read(reply, None)  # its header fields may say it
        return ModelAnswer()

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the problem (RFC 9457) with the members that the server's clients read."""
        title = problem.get("title") or f"status {status}"
        values = {"$status": status, "$title": title, "$detail": problem.get("detail") or title}
        document = {**filled(self._error, values), **problem}
        return b"application/problem+json", orjson.dumps(document)


def _document(call: Call) -> Any:
    """Return the document of a request's body, for features; None if it is none that is read."""
    if not _is_json(call):
        return None
    if call.document is not None:  # large, and read in slices
        return call.document.value
    with suppress(InvalidAnswer):
        return load_reply(call.body)  # servers in Python take NaN
    return None


def _is_json(call: Call) -> bool:
    """Return whether a body is to be read as JSON."""
    kind = media_type(call.headers)
    if kind and b"json" not in kind and not (kind in _NOT_STATED and call.body[:1] in _OPENINGS):
        return False
    return not is_coded(call.headers)


def _usage(document: Any) -> Usage | None:
    """Return the usage that a document reports: in our own names, else as providers do."""
    if not isinstance(document, dict):
        return None
    member = document.get("usage")
    if isinstance(member, dict) and member.keys() <= usage_headers.OWN:
        return usage_headers.from_member(member)
    return usage.of(document) or usage_headers.from_member(member)
