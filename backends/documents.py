"""JSON bodies and header fields, read strictly: what cannot be read is said, never guessed."""

from typing import Any

import orjson

from backends.types import BadRequest, Headers, InvalidAnswer

_SHOWN_CHARS = (
    80  # of a client's own text in an error: enough to find it, too little to flood a log
)


def header(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of the first field called `name` (in lower case), or None."""
    for field, value in headers:
        if field == name:
            return value
    return None


def load_request(body: bytes) -> Any:
    """Return a request's JSON document; BadRequest where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        if not body:
            raise BadRequest("the body is empty; send a JSON document") from exc
        raise BadRequest(f"the body is not JSON: {exc} (NaN and Infinity are not JSON)") from exc


def check_coding(headers: Headers) -> None:
    """Raise BadRequest where a request's body is compressed: it could not be read here."""
    coding = header(headers, b"content-encoding")
    if coding is not None and coding.strip().lower() not in (b"", b"identity"):
        raise BadRequest(f"content-encoding {shown(coding)}: send the body uncompressed")


def load_reply(body: bytes) -> Any:
    """Return a reply's JSON document; InvalidAnswer where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidAnswer(f"not JSON: {exc}" if body else "an empty body") from exc


def shown(value: object) -> str:
    """Return a client's value as an error may show it: quoted, on one line, short."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
