"""Bodies of `multipart/form-data` (RFC 7578): their fields are read, their bytes stay as they are.

The scanner only finds where the parts begin and end, so that no file is copied. A part takes 5 us,
a megabyte of a file 0.3 ms, or 7 ms if it is full of what looks like a boundary. So a large form is
read in slices. What another reader might understand differently is refused: a body
that does not end with its boundary, a head with folded lines or two dispositions, a part without a
name.
"""

import re
from collections.abc import Generator
from typing import Any

from tollway.backends.bodies.form import Form, Part
from tollway.backends.documents import header, shown
from tollway.backends.errors import BadRequest
from tollway.backends.types import Call, Headers

SLICE_BYTES = 1 << 20  # 0.3 ms of an ordinary file
PARTS_MAX = 256  # of a form: 16 images and a few fields are usual
HEAD_BYTES_MAX = 4_096  # of a part: a disposition with a file name, and a content type
TEXT_BYTES_MAX = (
    256 * 1024
)  # of a field that is not a file: prompts have at most some 32,000 letters
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 5.1.1
_PARAMETER = r"""[ \t]*;[ \t]*([A-Za-z*-]+)=("(?:[^"\\\r\n]|\\.)*"|[^\s";]+)"""
_PARAMETERS = re.compile(_PARAMETER)
_DISPOSITION = re.compile(f"form-data((?:{_PARAMETER})*)[ \t]*;?[ \t]*", re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)")


def is_form(kind: bytes) -> bool:
    """Return whether a media type is that of a form with parts."""
    return kind == b"multipart/form-data"


def of(call: Call) -> Form:
    """Return the form in a request's body, as it was read if it is large; BadRequest if invalid."""
    if call.form is None:
        return read(call.headers, call.body)
    if isinstance(call.form, BadRequest):
        raise call.form
    return call.form


def read(headers: Headers, body: bytes) -> Form:
    """Return the form in a body; BadRequest if it is none."""
    work = slices(headers, body)
    while True:
        try:
            next(work)
        except StopIteration as end:
            form: Form = end.value
            return form


def slices(headers: Headers, body: bytes) -> Generator[None, None, Form]:
    """Read the form in a body, and yield after each SLICE_BYTES; BadRequest if it is none."""
    mark = b"\r\n--" + _boundary(headers)
    paused = 0
    parts: list[Part] = []
    fields: dict[str, Any] = {}
    at = _first(body, mark)
    while body[at : at + 2] != b"--":
        if len(parts) == PARTS_MAX:
            raise BadRequest(f"the form has more than {PARTS_MAX} parts")
        start = at + 2
        if body[at:start] != b"\r\n":
            raise BadRequest("the form has something after a boundary")
        content = body.find(b"\r\n\r\n", at, at + HEAD_BYTES_MAX) + 4
        if content < 4:
            raise BadRequest("a part of the form has no head, or a long one")
        end = yield from _find(body, mark, content)
        if end < 0 or body.startswith(mark[2:], content):
            raise BadRequest("the form ends without its boundary")
        name, is_file = _head(body[start : content - 4])
        parts.append(Part(name, start, content, end))
        value = {"bytes": end - content} if is_file else _text(body[content:end])
        _put(fields, name, value)
        at = end + len(mark)
        if at - paused > SLICE_BYTES:
            paused = at
            yield
    return Form(fields, tuple(parts), mark)


def _find(body: bytes, mark: bytes, start: int) -> Generator[None, None, int]:
    """Return where a mark is at or after `start`, or -1; yield after each slice without it."""
    while True:
        stop = start + SLICE_BYTES
        at = body.find(mark, start, stop + len(mark) - 1)
        if at >= 0 or stop >= len(body):
            return at
        start = stop
        yield


def _boundary(headers: Headers) -> bytes:
    given = header(headers, b"content-type") or b""
    boundary = _parameters(";" + given.partition(b";")[2].decode("latin-1")).get("boundary", "")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise BadRequest(f"content-type {shown(given)}: it needs a boundary as in RFC 2046")
    return boundary.encode()


def _first(body: bytes, mark: bytes) -> int:
    """Return the end of the first boundary, which may stand at the very beginning."""
    if body.startswith(mark[2:]):
        return len(mark) - 2
    at = body.find(mark, 0, HEAD_BYTES_MAX)
    if at < 0:
        raise BadRequest("the form does not begin with its boundary")
    return at + len(mark)


def _head(head: bytes) -> tuple[str, bool]:
    """Return the name of a part, and whether it is a file."""
    dispositions = []
    for line in head.split(b"\r\n"):
        field, colon, value = line.partition(b":")
        if line and (not colon or b"\n" in line or b"\r" in line or field != field.strip()):
            raise BadRequest(f"a part of the form has an invalid head: {shown(line)}")
        if field.lower() == b"content-disposition":
            dispositions.append(value.strip().decode("utf-8", "surrogateescape"))
    read = _DISPOSITION.fullmatch(dispositions[0]) if len(dispositions) == 1 else None
    parameters = {} if read is None else _parameters(read[1])
    name = parameters.get("name")
    if not name:
        raise BadRequest(f"a part of the form needs one name: {shown(head)}")
    return name, "filename" in parameters or "filename*" in parameters


def _parameters(text: str) -> dict[str, str]:
    """Return the parameters of a header field; BadRequest if one is given twice."""
    parameters: dict[str, str] = {}
    for key, value in _PARAMETERS.findall(text):
        if key.lower() in parameters:
            raise BadRequest(f"{key!r} is given twice in {shown(text)}")
        quoted = value.startswith('"')
        parameters[key.lower()] = _ESCAPED.sub(r"\1", value[1:-1]) if quoted else value
    return parameters


def _text(content: bytes) -> str:
    if len(content) > TEXT_BYTES_MAX:
        raise BadRequest(f"a field of the form has more than {TEXT_BYTES_MAX} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise BadRequest("a field of the form is not UTF-8") from exc


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    if name not in fields:
        fields[name] = value
    elif isinstance(fields[name], list):
        fields[name].append(value)
    else:
        fields[name] = [fields[name], value]
