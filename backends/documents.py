"""JSON bodies and header fields, read strictly: invalid input is an error, never a guess."""

import json
import math
from collections.abc import Iterator
from typing import Any

import orjson

from tollway.backends.errors import BadRequest, InvalidAnswer, UnknownCoding
from tollway.backends.sliced_json import UNREAD
from tollway.backends.types import Call, Document, Headers, HttpReply

DEPTH_MAX = 200
"""Levels of a document: orjson reads 1,024 and writes 254, Python prints and walks some 900; the
part stored in the journal is a few levels deep.
"""

SHALLOW_BYTES = 2 * DEPTH_MAX
"""A document of so many bytes has no room for the brackets of more levels."""

EVENT_STREAM = b"text/event-stream"

LENIENT_BYTES_MAX = 256 * 1024
"""The largest reply that is read a second time, leniently: Python's reader takes about 2 ms for it,
and all other requests wait meanwhile.
"""

_WRITTEN_DEPTH = 254  # of orjson.dumps
_SHOWN_CHARS = (
    80  # of a client's own text in an error: enough to find it, too little to flood a log
)


def header(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of the first field called `name` (in lower case), or None."""
    for field, value in headers:
        if field == name:
            return value
    return None


def media_type(headers: Headers) -> bytes:
    """Return the media type in lower case and without its parameters; empty if there is none.

    RFC 9110 8.3.1: types compare without regard to case (0.4 us).
    """
    given = header(headers, b"content-type") or b""
    return given if given == b"application/json" else given.partition(b";")[0].strip().lower()


_OPAQUE = frozenset((b"multipart", b"audio", b"image", b"video", b"font", b"model"))


def is_opaque(kind: bytes) -> bool:
    """Return whether a request of this media type is no document, and is passed on unread."""
    return kind.partition(b"/")[0] in _OPAQUE or kind == b"application/octet-stream"


_STREAMS = frozenset((EVENT_STREAM, b"application/x-ndjson", b"application/vnd.amazon.eventstream"))


def streams_events(headers: Headers) -> bool:
    """Return whether a reply's body is a stream of events rather than one document (0.5 us)."""
    return media_type(headers) in _STREAMS


def load_request(body: bytes) -> Any:
    """Return a request's JSON document; BadRequest if it is not valid."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        if not body:
            raise BadRequest("the body is empty; send a JSON document") from exc
        raise BadRequest(f"the body is not JSON: {exc} (NaN and Infinity are not JSON)") from exc
    if not _is_shallow(body, document):
        raise BadRequest(f"the document is nested too deeply: {DEPTH_MAX} levels at most")
    return document


def request_document(call: Call, text: bytes) -> Any:
    """Return the document of a request's JSON text, as it was read in slices if it is large.

    BadRequest if it is not valid.
    """
    document = call.document
    if document is None:
        return load_request(text)
    if document.fault:
        raise BadRequest(f"the body is not JSON: {document.fault}")
    return document.value


def unchecked(call: Call) -> bytes:
    """Return the text in which names may be repeated: nothing if it was read in slices."""
    return b"" if call.document is not None else call.body


def whole_document(call: Call) -> Any:
    """Return the document of a request that is charged for all that is in it.

    BadRequest if it is not valid, or if it is large and something in it was not read, or may be
    read differently by the server.
    """
    document = call.document
    if document is not None and not document.is_whole:
        raise BadRequest(f"the document has {UNREAD!r}")
    if document is not None and document.repeats:
        raise BadRequest("the document has a member more than once")
    return request_document(call, call.body)


def is_coded(headers: Headers) -> bool:
    """Return whether a request's body is still compressed, so that it cannot be read here."""
    coding = header(headers, b"content-encoding")
    return coding is not None and coding.strip().lower() not in (b"", b"identity")


def check_coding(headers: Headers) -> None:
    """Raise UnknownCoding if a request's body is still compressed: it could not be read here."""
    if is_coded(headers):
        coding = header(headers, b"content-encoding")
        raise UnknownCoding(f"content-encoding {shown(coding)}: send the body uncompressed")


def load_reply(body: bytes) -> Any:
    """Return a reply's JSON document; InvalidAnswer if it is not valid.

    Servers written in Python also send NaN, Infinity, lone surrogates and byte order marks, so a
    reply that the strict reader refuses is read again by a lenient one.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        document = _load_leniently(body, exc)
    if not _is_shallow(body, document):
        raise InvalidAnswer(f"nested more than {DEPTH_MAX} levels deep")
    return document


def reply_document(reply: HttpReply, text: bytes) -> Any:
    """Return the document of a reply's JSON text, as it was read in slices if it is large.

    InvalidAnswer if it is not valid.
    """
    document = reply.document
    if document is None:
        return load_reply(text)
    if not document.fault:
        value = document.value
        return dict(value) if type(value) is dict else value  # readers add members
    if len(text) > LENIENT_BYTES_MAX:
        raise InvalidAnswer(f"not JSON: {document.fault}")
    return load_reply(text)


def retained_document(reply: HttpReply, text: bytes) -> Any:
    """Return what `reply_document` does, and keep it for the next reader of the reply."""
    if reply.document is None:
        reply.document = Document(load_reply(text))
    return reply_document(reply, text)


def _load_leniently(body: bytes, refused: orjson.JSONDecodeError) -> Any:
    """Return a document that orjson refuses, without texts and numbers it cannot write."""
    if not body:
        raise InvalidAnswer("an empty body") from refused
    if len(body) > LENIENT_BYTES_MAX:
        raise InvalidAnswer(f"not JSON: {refused}") from refused
    try:
        text = body.decode("utf-8-sig", "replace")
        document = json.loads(text, parse_int=_number)
        if "\\ud" in text.lower():  # an escaped surrogate, which may stand alone
            written = json.dumps(document, ensure_ascii=False)
            document = json.loads(written.encode("utf-8", "replace"), parse_int=_number)
    except (ValueError, RecursionError) as exc:
        raise InvalidAnswer(f"not JSON: {refused}") from exc
    return document


def _number(digits: str) -> int | float:
    """Return an integer that fits 64 bits as such, any other as a float, as orjson does."""
    return int(digits) if len(digits) < 19 else float(digits)


def has_gap(value: Any) -> bool:
    """Return whether an answer, or one of a list of answers, is null, NaN or infinite."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, list):
        if set(map(type, value)) <= {int, float} and math.isfinite(sum(value)):
            return False  # nearly all lists: NaN and infinity would show in the sum
        return any(map(has_gap, value))
    return value is None


def _is_shallow(body: bytes, document: Any) -> bool:
    """Return whether a document has at most DEPTH_MAX levels; more levels need as many brackets.

    Short documents have no room for their brackets. Where there are fewer, only these are counted
    (half a microsecond for a kilobyte); other documents are written once, which takes about as
    long as reading them.
    """
    if len(body) <= SHALLOW_BYTES or body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return True
    for _ in range(_WRITTEN_DEPTH - DEPTH_MAX):
        document = [document]
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError:
        return False
    return True


def shown(value: object, chars: int = _SHOWN_CHARS) -> str:
    """Return a client's value for display in an error: quoted, on one line, short.

    Only the displayed part is read: the value may be a document of megabytes.
    """
    text = ""
    for piece in _pieces(value, chars):
        text += piece
        if len(text) > chars:
            return text[: chars - 3] + "..."
    return text


def _pieces(value: object, chars: int) -> Iterator[str]:
    """Yield the parts of a value's `repr`, as many as fill an error."""
    if isinstance(value, str | bytes):
        yield repr(value[: chars + 1])
    elif isinstance(value, list):
        yield "["
        for at, element in enumerate(value):
            yield ", " if at else ""
            yield from _pieces(element, chars)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        for at, (key, element) in enumerate(value.items()):
            yield ", " if at else ""
            yield from _pieces(key, chars)
            yield ": "
            yield from _pieces(element, chars)
        yield "}"
    else:
        yield repr(value)
