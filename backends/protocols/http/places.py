"""Places beside the document, as paths that begin with `$`.

Of a request: `$query.NAME`, `$headers.NAME`, `$form.NAME` (of a file `$form.NAME.bytes`), `$bytes`
(its size), `$rows` (of a batch, see `tollway.backends.bodies.batch`), `$type`, `$method`, `$path`,
`$text`. Of a reply: `$headers.NAME`. Values of fields are texts; where a number is wanted, the
number in them counts.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

from tollway.backends.bodies import multipart
from tollway.backends.bodies.batch import rows
from tollway.backends.documents import header, media_type
from tollway.backends.errors import BadRequest
from tollway.backends.types import Call, Headers

TEXT_BYTES_MAX = 64 << 10  # of a body that is read as text
FIELDS_MAX = 64  # of a query, or of a form in one line
HEADERS = "$headers"


def root_of(path: str) -> str:
    """Return the first key of a path, such as `$query`."""
    return path.partition(".")[0].partition("[")[0]


def check_request(path: str) -> None:
    """Raise ValueError if a path begins with a `$` that no request has."""
    if path.startswith("$") and root_of(path) not in _ROOTS:
        raise ValueError(f"{root_of(path)} is unknown; a request has {', '.join(_ROOTS)}")


def check_reply(path: str) -> None:
    """Raise ValueError if a path begins with a `$` that no reply has."""
    if path.startswith("$") and root_of(path) != HEADERS:
        raise ValueError(f"{root_of(path)} is unknown; beside its document a reply has {HEADERS}")


def of_request(call: Call, roots: Iterable[str]) -> dict[str, Any]:
    """Return what a request has at some roots."""
    return {root: _ROOTS[root](call) for root in roots}


def of_headers(headers: Headers) -> dict[str, str]:
    """Return the header fields as texts; of several of a name the first."""
    fields: dict[str, str] = {}
    for name, value in headers:
        fields.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return fields


def number(value: Any) -> float:
    """Return the number that a field holds; NaN if it holds none."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value) if len(value) <= 32 else math.nan
    return float(value) if isinstance(value, int | float) else math.nan


def scalar(text: str) -> Any:
    """Return the number that a text is, else the text."""
    as_number = number(text)
    if not math.isfinite(as_number):
        return text
    return int(text) if text.strip().lstrip("+-").isdigit() else as_number


def _query(call: Call) -> dict[str, str]:
    return _fields(call.target.partition(b"?")[2])


def _fields(text: bytes) -> dict[str, str]:
    with suppress(ValueError):  # more fields than are read
        pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=FIELDS_MAX)
        return dict(reversed(pairs))
    return {}


def _form(call: Call) -> Mapping[str, Any]:
    kind = media_type(call.headers)
    if header(call.headers, b"content-encoding") is not None:
        return {}
    if multipart.is_form(kind):
        with suppress(BadRequest):  # which the server may read all the same
            return multipart.of(call).fields
    if kind == b"application/x-www-form-urlencoded" and len(call.body) <= TEXT_BYTES_MAX:
        return _fields(call.body)
    return {}


_ROOTS: dict[str, Callable[[Call], Any]] = {
    "$bytes": lambda call: len(call.body),
    "$form": _form,
    HEADERS: lambda call: of_headers(call.headers),
    "$method": lambda call: call.method.decode("latin-1"),
    "$path": lambda call: call.target.partition(b"?")[0].decode("latin-1"),
    "$query": _query,
    "$rows": lambda call: rows(call.payload.data),
    "$text": lambda call: call.body[:TEXT_BYTES_MAX].decode("utf-8", "replace"),
    "$type": lambda call: media_type(call.headers).decode("latin-1"),
}
